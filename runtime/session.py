"""Run an offline model on arrays: load, prove safe, translate, then `run`. The model's own layout in and out.

A session owns its memory and is safe to share between Python threads: calls take turns. Results are those of the
instruction set's definition, the same bytes for every number of host threads, with every step of translation on or
off, and from either engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from runtime.host import HostSegment
from targets.mlu220.check import MemorySizes, Proof, check_function
from targets.mlu220.container import DeviceFunction, IORecord, OfflineModel
from targets.mlu220.hardware import Board, board_of

ENGINES = ("simulator", "oracle")
Outputs = np.ndarray | list[np.ndarray] | dict[str, np.ndarray]
Segment = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""A function of the model on arrays in the model's own layout."""


class Session:
    """An offline model ready to run.

    `threads`: host threads, by default all processors. `translate`: True, False, or some of {"fuse": bool, "elide":
    bool, "overlap": bool}. `engine`: "simulator", or "oracle" (slow NumPy, the reference). `state`: {output: input},
    an output that becomes an input of the next run; True for those the file names. At first such an input has the
    values the file says, otherwise zeros. Raises CompilerError when the file is damaged,
    or names every instruction that is not provably safe.
    """

    def __init__(
        self,
        model: str | Path | OfflineModel,
        threads: int | None = None,
        translate: Mapping[str, bool] | bool | None = None,
        engine: str = "simulator",
        state: Mapping[str, str] | bool | None = None,
    ):
        if engine not in ENGINES:
            raise error("E724", f"there is no engine {engine!r}", help=did_you_mean(engine, ENGINES))
        if threads is not None and threads < 1:
            raise error("E724", f"{threads} host threads", help="threads must be at least 1")
        self.model = model if isinstance(model, OfflineModel) else OfflineModel.load(model)
        self.path = None if isinstance(model, OfflineModel) else Path(model)
        self.engine = engine
        self.board = board_of(self.model)
        self.proofs = _prove(self.model, self.board)
        self._lock = threading.Lock()
        self._segments: dict[str, Segment] = {f.name: HostSegment(f).run for f in self.model.host_functions}
        self._last_uses = _last_uses(self.model)
        if engine == "oracle":
            self._segments |= {f.name: self._oracle(f) for f in self.model.device_functions}
        else:
            self._simulate(threads, translate)
        self._state = _stated(self.model) if state is True else dict(state or {})
        _check_state(self.model, self._state)
        self.reset()

    # -- what the model takes and gives --------------------------------------------------------------------------------
    @property
    def inputs(self) -> list[IORecord]:
        """Records of the inputs a caller gives (state is not among them)."""
        return [r for r in self.model.inputs if r.name not in self._state.values()]

    @property
    def outputs(self) -> list[IORecord]:
        """Records of the outputs a caller gets (state is not among them)."""
        return [r for r in self.model.outputs if r.name not in self._state]

    @property
    def threads(self) -> int:
        """Host threads in use; 1 for the oracle."""
        return self._executor.threads if self.engine == "simulator" else 1

    @property
    def statistics(self) -> dict[str, dict[str, int]]:
        """Per device function, what translation made of it: instructions, operations after each step, phases."""
        return {name: dict(plan.statistics) for name, plan in self._plans.items()} if self.engine == "simulator" else {}

    # -- running -------------------------------------------------------------------------------------------------------
    def run(self, *arrays: Any, **named: Any) -> Outputs:
        """One inference. Inputs as arrays in order, or by name (one mapping, or keywords), exactly as the model states
        them. One output gives an array, several a list; inputs by name give a dictionary. E725: inputs do not fit."""
        by_name = bool(named) or (len(arrays) == 1 and isinstance(arrays[0], Mapping))
        given = self._given(arrays, named)
        results = self._run_main(given)
        if by_name:
            return dict(zip([r.name for r in self.outputs], results, strict=True))
        return results[0] if len(results) == 1 else results

    def run_many(self, inputs: Any) -> Outputs:
        """Any number of samples through a model of fixed batch; the last batch is padded by repeating its last sample.

        `inputs`: an array whose first axis counts samples, a list of samples (each without the batch axis, or whole
        batches), or {name: array}. Outputs have the samples along their first axis, in the form `run` gives them.
        """
        named = isinstance(inputs, Mapping)
        columns = dict(inputs) if named else {self._only_input().name: inputs}
        self._check_names(columns)
        records = {r.name: r for r in self.inputs}
        stacked = {name: _samples(records[name], value) for name, value in columns.items()}
        for r in self.outputs:
            if r.is_open:
                raise error("E725", f"output {_describe(r)} has another shape for every batch", help="call run")
        counts = {len(array) for array in stacked.values()}
        batches = {r.shape[0] if r.shape else 0 for r in (*self.inputs, *self.outputs)}
        if len(counts) != 1 or len(batches) != 1 or not counts or 0 in batches | counts:
            message = f"run_many needs one number of samples and one batch, got {sorted(counts)} and {sorted(batches)}"
            raise error(
                "E725", message,
                help="every input and output must have the batch as first axis; otherwise call run",
            )  # fmt: skip
        results = self._run_batches(stacked, counts.pop(), batches.pop())
        if named:
            return dict(zip([r.name for r in self.outputs], results, strict=True))
        return results[0] if len(results) == 1 else results

    def reset(self) -> None:
        """Set recurrent state to its first values."""
        records = {r.name: r for r in self.model.inputs}
        with self._lock:
            self._kept = {n: _first_value(self.model, records[n]) for n in self._state.values()}

    def profile(self) -> Any:
        """What the model costs on the chip: a `runtime.profile.Profile`."""
        from runtime.profile import profile

        return profile(self.model, self.board)

    def _run_batches(self, stacked: dict[str, np.ndarray], count: int, batch: int) -> list[np.ndarray]:
        collected: list[list[np.ndarray]] = [[] for _ in self.outputs]
        for first in range(0, count, batch):
            part = {name: array[first : first + batch] for name, array in stacked.items()}
            missing = batch - min(batch, count - first)
            if missing:
                part = {n: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for n, a in part.items()}
            for column, result in zip(collected, self._run_main(part), strict=True):
                column.append(result[: batch - missing])
        return [np.concatenate(column) for column in collected]

    def _run_main(self, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._lock:
            values = {r.name: _checked(r, given[r.name]) for r in self.inputs} | self._kept
            for k, step in enumerate(self.model.steps):
                results = self._segments[step.function]([values[name] for name in step.inputs])
                values.update(zip(step.outputs, results, strict=True))
                for name in self._last_uses[k]:
                    del values[name]
            taken = {r.name for r in self.model.inputs}  # an output among them is the caller's array, or a state
            owned = {r.name: values[r.name].copy() if r.name in taken else values[r.name] for r in self.model.outputs}
            for output, name in self._state.items():
                self._kept[name] = owned[output]
            return [owned[r.name] for r in self.outputs]

    # -- inputs --------------------------------------------------------------------------------------------------------
    def _given(self, arrays: tuple[Any, ...], named: dict[str, Any]) -> dict[str, np.ndarray]:
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            for name in named.keys() & arrays[0].keys():
                raise error("E725", f"input {name!r} is given twice", help="in the mapping or as a keyword, not both")
            named, arrays = {**arrays[0], **named}, ()
        records = self.inputs
        if (arrays and named) or (arrays and len(arrays) != len(records)):
            raise error(
                "E725", f"the model takes {len(records)} inputs, {len(arrays) + len(named)} were given",
                help="inputs: " + ", ".join(_describe(r) for r in records),
            )  # fmt: skip
        if arrays:
            return {r.name: array for r, array in zip(records, arrays, strict=True)}
        self._check_names(named)
        return named

    def _check_names(self, given: Mapping[str, Any]) -> None:
        known = [r.name for r in self.inputs]
        faults = [
            Diagnostic(code="E725", message=f"the model has no input {name!r}", help=did_you_mean(name, known))
            for name in given
            if name not in known
        ]
        faults += [
            Diagnostic(code="E725", message=f"input {_describe(r)} is missing")
            for r in self.inputs
            if r.name not in given
        ]
        if faults:
            raise CompilerError(faults)

    def _only_input(self) -> IORecord:
        if len(self.inputs) != 1:
            raise error(
                "E725", f"the model takes {len(self.inputs)} inputs",
                help="give a dictionary of arrays: " + ", ".join(_describe(r) for r in self.inputs),
            )  # fmt: skip
        return self.inputs[0]

    # -- engines -------------------------------------------------------------------------------------------------------
    def _simulate(self, threads: int | None, translate: Mapping[str, bool] | bool | None) -> None:
        """Lay out the arena, copy the constants there, translate every device function."""
        from compiler.native.build import without_collector
        from runtime.machine import Arena, Executor, default_threads
        from runtime.translate import Options
        from runtime.translate import translate as make_plan

        options = Options.of(translate)
        spaces, size = _lay_out(self.model, self.board)
        self._arena = Arena(size)
        constants = self.model.constants
        for function in self.model.device_functions[:1]:
            self._arena.view((spaces[function.name].constants, constants.size))[:] = constants
        with without_collector():
            self._plans = {
                f.name: make_plan(
                    f, self.proofs[f.name].order, spaces[f.name], self.model.rounding, options, self._arena.bytes
                )
                for f in self.model.device_functions
            }
        self._executor = Executor(self._arena, list(self._plans.values()), threads or default_threads())
        self._segments |= {f.name: self._simulator(f) for f in self.model.device_functions}

    def _simulator(self, function: DeviceFunction) -> Segment:
        plan, arena, executor = self._plans[function.name], self._arena, self._executor

        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            for array, record, region in zip(arrays, function.inputs, plan.inputs, strict=True):
                target = arena.view(region).view(record.numpy).reshape(record.device_shape)
                _copy(target, array.transpose(record.permutation))
            executor.run(plan)
            return [
                _from_device(arena.view(region), record)
                for record, region in zip(function.outputs, plan.outputs, strict=True)
            ]

        return run

    def _oracle(self, function: DeviceFunction) -> Segment:
        model, order = self.model, self.proofs[function.name].order

        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            from runtime import oracle

            device = [
                np.ascontiguousarray(array.transpose(record.permutation))
                for array, record in zip(arrays, function.inputs, strict=True)
            ]
            results = oracle.run_function(function, model.constants, device, order, model.rounding)
            return [_from_device(data, record) for data, record in zip(results, function.outputs, strict=True)]

        return run


# -- helpers -----------------------------------------------------------------------------------------------------------
def _prove(model: OfflineModel, board: Board) -> dict[str, Proof]:
    """The proof of every device function; all faults of all functions at once."""
    proofs, faults = {}, []
    for function in model.device_functions:
        try:
            proofs[function.name] = check_function(function, int(model.constants.size), board)
        except CompilerError as fault:
            faults += list(fault.diagnostics)
    if faults:
        raise CompilerError(faults)
    return proofs


def _lay_out(model: OfflineModel, board: Board) -> tuple[dict[str, Any], int]:
    """Where the memories of every device function lie, and the arena's size. Functions run one after the other and
    share all but their inputs and outputs."""
    from runtime.lowering import Spaces
    from runtime.machine import Regions

    regions, sizes = Regions(), MemorySizes.of(board)
    functions = model.device_functions
    cores = max([f.cores for f in functions], default=0)
    constants = regions.take(int(model.constants.size))
    nram = [regions.take(sizes.nram) for _ in range(cores)]
    wram = [regions.take(sizes.wram) for _ in range(cores)]
    sram = regions.take(sizes.sram)
    workspace = regions.take(max([f.workspace for f in functions], default=0))
    spaces = {
        f.name: Spaces(
            nram, wram, sram, workspace, constants, [regions.take(r.bytes) for r in f.inputs],
            [regions.take(r.bytes) for r in f.outputs], int(model.constants.size),
        )
        for f in functions
    }  # fmt: skip
    return spaces, regions.end


def _last_uses(model: OfflineModel) -> list[list[str]]:
    """Per step, the values that no later step and no output needs."""
    needed = {r.name for r in model.outputs}
    result: list[list[str]] = []
    for step in reversed(model.steps):
        names = dict.fromkeys((*step.inputs, *step.outputs))
        result.append([name for name in names if name not in needed])
        needed |= set(names)
    return result[::-1]


def _check_state(model: OfflineModel, state: Mapping[str, str]) -> None:
    """That every output and input named exists and that the two fit each other."""
    outputs, inputs = ({r.name: r for r in records} for records in (model.outputs, model.inputs))
    faults = []
    for output, name in state.items():
        for kind, known, wanted in (("output", outputs, output), ("input", inputs, name)):
            if wanted not in known:
                message = f"state names {kind} {wanted!r}, which the model does not have"
                faults.append(Diagnostic(code="E726", message=message, help=did_you_mean(wanted, known)))
        a, b = outputs.get(output), inputs.get(name)
        if a and b and (a.shape, a.dtype) != (b.shape, b.dtype):
            message = f"state: output {_describe(a)} does not fit input {_describe(b)}"
            faults.append(Diagnostic(code="E726", message=message))
    if len(set(state.values())) != len(state):
        faults.append(Diagnostic(code="E726", message="state: two outputs feed the same input"))
    if faults:
        raise CompilerError(faults)


def _stated(model: OfflineModel) -> dict[str, str]:
    """The outputs that become inputs of the next run, as the file names them."""
    found = model.metadata.get("state", {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise error("E726", "the file names its state in a form that is not known")
    return dict(found)


def _first_value(model: OfflineModel, record: IORecord) -> np.ndarray:
    """What a state is before the first run: what the file says, otherwise zeros."""
    given = model.metadata.get("first_state", {})
    value = given.get(record.name, 0.0) if isinstance(given, dict) else 0.0
    try:
        array = np.asarray(value, np.float64)
        full = array.reshape(record.shape) if array.ndim else np.full(record.shape, array)
        return full.astype(record.numpy)
    except (TypeError, ValueError):
        raise error("E726", f"the first value of state {_describe(record)} does not fit it") from None


def _describe(record: IORecord) -> str:
    return f"{record.name} {record.dtype}{list(record.shape)}"


def _checked(record: IORecord, array: Any) -> np.ndarray:
    """The array, when it is exactly what the record states. E725 otherwise: nothing is converted silently."""
    array = np.asarray(array)
    if array.shape != record.shape:
        raise error("E725", f"input {record.name}: shape {list(array.shape)}, the model takes {_describe(record)}")
    if array.dtype != record.numpy:
        raise error(
            "E725", f"input {record.name}: element type {array.dtype}, the model takes {_describe(record)}",
            help=f"convert it: x.astype(np.{record.numpy})",
        )  # fmt: skip
    return array


def _samples(record: IORecord, value: Any) -> np.ndarray:
    """Samples of an input along the first axis: an array as it is, a list of samples or of batches joined."""
    if isinstance(value, np.ndarray):
        return value
    arrays = [np.asarray(v) for v in value]
    batches = bool(arrays) and all(a.ndim == len(record.shape) for a in arrays)
    if len({a.shape[1:] if batches else a.shape for a in arrays}) > 1:
        shapes = ", ".join(sorted({str(list(a.shape)) for a in arrays}))
        raise error("E725", f"input {record.name}: samples of shapes {shapes}, the model takes {_describe(record)}")
    if batches:
        return np.concatenate(arrays)
    return np.stack(arrays) if arrays else np.zeros((0, *record.shape[1:]), record.numpy)


FEW = 8
"""Channels that are copied one by one: NumPy copies a transposed image five times slower than its channels."""


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, where the last axis is short and not dense in the source, index by index of that axis."""
    if source.ndim > 1 and 1 < source.shape[-1] <= FEW and source.strides[-1] != source.itemsize:
        for k in range(source.shape[-1]):
            target[..., k] = source[..., k]
    else:
        np.copyto(target, source)


def _from_device(data: np.ndarray, record: IORecord) -> np.ndarray:
    """A copy in the model's own layout of bytes in the device's."""
    array = data.view(record.numpy).reshape(record.device_shape)
    return np.array(array.transpose(np.argsort(record.permutation)), order="C", copy=True).reshape(record.shape)
