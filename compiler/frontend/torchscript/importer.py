"""From a TorchScript archive to a module: inputs, evaluation of `forward`, outputs, and what did not convert.

An import may take several evaluations of the code: again with another element type where an input turns out to hold
indices, and again where attributes change from call to call (`state`). Each starts from the archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic
from compiler.frontend.builder import Builder
from compiler.frontend.records import Malformed, NodeRecord, Unsupported, finished
from compiler.frontend.torchscript import state
from compiler.frontend.torchscript.archive import Archive, open_archive
from compiler.frontend.torchscript.evaluator import Evaluator
from compiler.frontend.torchscript.instances import Instances, Named
from compiler.frontend.torchscript.operators import BLOCKED, Missing, Operators, Refusal, Retype
from compiler.frontend.torchscript.pickled import Object, StoredTensor
from compiler.frontend.torchscript.signature import Leaf, Signature, read_signature
from compiler.frontend.torchscript.source import Class, Function, Source
from compiler.frontend.torchscript.tensors import Tensor
from compiler.frontend.torchscript.unpickle import read_pickle
from compiler.ir.core import Constant, Module, Value
from compiler.ir.core import Function as IRFunction
from compiler.ir.printer import print_module
from compiler.ir.types import DType
from compiler.ops.graph import Return

MOST_OUTPUTS = 10_000
MOST_EVALUATIONS = 12
MOST_SETTLING = 4


def import_model(path: Path, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any]) -> Module:
    """The module of a TorchScript file. Raises CompilerError listing everything that cannot be converted."""
    return finished(Importer(path, shapes, bindings))


class Importer:
    """One import. After `run`: `module` (complete only if nothing was reported), `records`, `faults`."""

    def __init__(
        self, source: Path | Archive, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any],
        dtypes: Mapping[str, DType] | None = None,
    ) -> None:  # fmt: skip
        archive = source if isinstance(source, Archive) else open_archive(source)
        self.archive = archive
        self.file = archive.file
        self.shapes = shapes
        self.bindings = bindings
        self.dtypes = dict(dtypes or {})
        self.source = Source(archive)
        self.recorded = _recorded_inputs(archive)
        self._root = self._read("data.pkl", "data/")
        self._constants = self._read("constants.pkl", "constants/") if "constants.pkl" in archive else ()
        if not isinstance(self._root, Object):
            raise archive.fault("its data.pkl holds no module", "save it again with torch.jit.save")
        if not isinstance(self._constants, tuple | list):
            raise archive.fault("its constants.pkl holds no list", "save it again with torch.jit.save")
        self._evaluation: Evaluation | None = None

    @property
    def module(self) -> Module:
        return self._last.module

    @property
    def records(self) -> list[NodeRecord]:
        return self._last.operators.records

    @property
    def faults(self) -> list[Diagnostic]:
        return self._last.operators.faults

    @property
    def _last(self) -> Evaluation:
        if self._evaluation is None:
            raise RuntimeError("the import was not run")
        return self._evaluation

    def _read(self, member: str, folder: str) -> Any:
        return read_pickle(self.archive, member, folder)

    def run(self) -> None:
        """Evaluate the network as far as possible."""
        first = self._evaluate(state.Plan())
        if first.has_faults or first.plan.is_empty:
            return
        self._settle(first)

    def _evaluate(self, plan: state.Plan) -> Evaluation:
        """One evaluation; with other element types of inputs where it finds them wrong."""
        for _ in range(MOST_EVALUATIONS):
            root = self._root if self._evaluation is None else self._read("data.pkl", "data/")
            constants = self._constants if self._evaluation is None else self._read("constants.pkl", "constants/")
            signature = self._signature(root)
            self._evaluation = Evaluation(self, root, constants, signature, plan)
            try:
                self._evaluation.run()
                break
            except Retype as found:
                self.dtypes[found.name] = found.dtype
        return self._last

    def _signature(self, root: Object) -> Signature:
        return read_signature(
            self.forward_of(root), self.recorded, self.shapes, self.bindings, self.dtypes, self.file
        )  # fmt: skip

    def forward_of(self, root: Object) -> Function:
        found = self.source.class_of(root.class_name)
        if not isinstance(found, Class) or "forward" not in found.methods:
            methods = ", ".join(found.methods) if isinstance(found, Class) else ""
            raise self.archive.fault(
                f"class {root.class_name} has no method forward" + (f" (it has {methods})" if methods else ""),
                "save a module whose forward computes the network",
            )  # fmt: skip
        return found.methods["forward"]

    def _settle(self, first: Evaluation) -> None:
        """Evaluate as for later calls, until the attributes are what they were assumed to be."""
        later, plan = first, first.plan
        for _ in range(MOST_SETTLING):
            before = later
            later = self._evaluate(plan)
            if later.has_faults:
                return
            found = later.plan
            if found.same_as(plan) or (later.text == before.text and before is not first):
                self._finish_state(first, later, plan)
                return
            plan = _merged(plan, found)
        names = ", ".join(repr(n) for n in sorted({*plan.settled, *plan.tensors}))
        later.fault("E210", f"attributes change at every call in a way that never settles: {names}", state.REMEDY)

    def _finish_state(self, first: Evaluation, later: Evaluation, plan: state.Plan) -> None:
        used = later.drop_unused_state(plan)
        values = state.first_values(plan, first.module, later.module, used)
        if values is None:
            names = ", ".join(repr(n) for n in used) or ", ".join(repr(n) for n in plan.settled)
            message = f"the first call computes something else than later calls do, whatever {names} is at first"
            later.fault("E210", message, state.REMEDY)
            return
        later.document_state(values)


def _merged(a: state.Plan, b: state.Plan) -> state.Plan:
    """What two evaluations found; of what both found, the later one's types and values, and the first one's candidates
    that still fit.
    """
    merged = state.Plan({**a.tensors, **b.tensors})
    merged.settled = {k: v for k, v in {**a.settled, **b.settled}.items() if k not in merged.tensors}
    for name, type in merged.tensors.items():
        source = a if name in a.candidates else b
        fitting = [c for c in source.candidates[name] if c.shape == type.shape]
        merged.candidates[name] = fitting or [np.zeros(type.static_shape, type.dtype.numpy)]
        if name in source.exact and fitting and fitting[0] is source.candidates[name][0]:
            merged.exact.add(name)
    return merged


def _recorded_inputs(archive: Archive) -> Sequence[Any]:
    """The inputs `forward` was traced with (their types and shapes; the data is not kept)."""
    if "traced_inputs.pkl" not in archive:
        return ()
    found = read_pickle(archive, "traced_inputs.pkl", "traced_inputs/")
    inputs = found.get("forward") if isinstance(found, dict) else None
    return inputs if isinstance(inputs, list) else ()


class Evaluation:
    """One evaluation of the network's code into a module of its own."""

    def __init__(
        self, importer: Importer, root: Object, constants: Sequence[Any], signature: Signature, plan: state.Plan
    ) -> None:
        self.importer = importer
        self.file = importer.file
        self.root = root
        self.signature = signature
        self.assumed = plan
        self.plan = state.Plan()
        self.module = Module({"source": importer.file})
        self.function = self.module.add_function(IRFunction("main"))
        self.builder = Builder(self.module, self.function)
        archive = importer.archive
        self.operators = Operators(self.file, self.builder, self.function, archive.version, len(archive.data))
        self.instances = Instances(importer.source, constants, self.builder)
        self.evaluator = Evaluator(importer.source, self.instances, self.operators)
        self._arguments: dict[str, Value] = {}

    @property
    def has_faults(self) -> bool:
        return bool(self.operators.faults) or any(
            r.status in ("unsupported", "malformed", "blocked") for r in self.operators.records
        )

    @property
    def text(self) -> str:
        """The module as text: two evaluations with the same text compute the same."""
        return print_module(self.module)

    def fault(self, code: str, message: str, help: str = "") -> None:
        self.operators.faults.append(Diagnostic(code=code, where=self.file, message=message, help=help))

    def run(self) -> None:
        """Evaluate; what stops the evaluation altogether is a fault like the others."""
        self.instances.ready(self.root, "")
        if self.signature.resolved.assumed:
            self.module.attributes["assumed_shapes"] = dict(self.signature.resolved.assumed)
        self._add_arguments()
        try:
            arguments = {name: self._argument(spec) for name, spec in self.signature.parameters.items()}
            self._assume_state()
            result = self._forward(arguments)
        except CompilerError as fault:
            self.operators.faults += fault.diagnostics
            return
        except RecursionError:
            self.fault("E212", "its code is nested too deeply", "simplify the network's code")
            return
        if not self._add_outputs(result):
            return
        _erase_dead_ops(self.function)
        self.module.drop_unused_constants()

    def _forward(self, arguments: Mapping[str, Any]) -> Any:
        function = self.importer.forward_of(self.root)
        try:
            arguments = self._hooked_arguments(arguments)
            return self._hooked_result(arguments, self.evaluator.call(function, [self.root], arguments, ""))
        except (Unsupported, Malformed) as fault:
            code = "E210" if isinstance(fault, Unsupported) else "E212"
            self.fault(code, fault.reason, fault.remedy)
        except Refusal as fault:
            self.operators.faults.append(Diagnostic(
                code="E213", where=fault.where or self.file,
                message=f"the network's own code refuses what it is given: {fault}",
                help="give other shapes (--shape) or values (--bind) for the inputs",
            ))  # fmt: skip
        return BLOCKED

    def _hooked_arguments(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the network's own pre-hooks make of its arguments. (Calls of inner modules have theirs in the code.)"""
        for hook in self.importer.source.hooks_of(self.root.class_name, "__forward_pre_hooks__"):
            given = self.evaluator.method(self.root, hook, [tuple(arguments.values())], {}, 1)
            if given is not None and given is not BLOCKED:
                values = given if isinstance(given, tuple) else (given,)
                if len(values) != len(arguments):
                    raise Malformed(f"hook {hook!r} gives {len(values)} arguments where forward takes {len(arguments)}")
                arguments = dict(zip(arguments, values, strict=True))
        return arguments

    def _hooked_result(self, arguments: Mapping[str, Any], result: Any) -> Any:
        for hook in self.importer.source.hooks_of(self.root.class_name, "__forward_hooks__"):
            given = self.evaluator.method(self.root, hook, [tuple(arguments.values()), result], {}, 1)
            result = result if given is None else given
        return result

    # -- inputs --------------------------------------------------------------------------------------------------------
    def _add_arguments(self) -> None:
        for name in self.signature.resolved.types:
            self.builder.reserve(name)
        for name, type in self.signature.resolved.types.items():
            self._arguments[name] = self.function.add_argument(type, name)
        for name, array in self.signature.resolved.bound.items():
            self._arguments[name] = self.builder.constant(array, name)

    def _argument(self, spec: Any) -> Any:
        """A parameter's value: inputs as tensors, in whatever holds them."""
        if isinstance(spec, Leaf):
            return Tensor.of(self._arguments[spec.name])
        if isinstance(spec, list | tuple):
            return type(spec)(self._argument(item) for item in spec)
        if isinstance(spec, dict):
            return {key: self._argument(item) for key, item in spec.items()}
        return spec

    # -- outputs -------------------------------------------------------------------------------------------------------
    def _add_outputs(self, result: Any) -> bool:
        """Return the network's tensors, and those of its attributes that changed."""
        outputs: dict[str, Value] = {}
        if not self._collect(result, "", outputs):
            return False
        self._find_changes()
        for name in {**self.assumed.tensors, **self.plan.tensors}:
            value = self._attribute(name)
            if isinstance(value, Tensor):
                outputs[name + state.NEXT] = self.operators.value(value)
        values = [self.builder.registered(value, name) for name, value in outputs.items()]
        if not values:
            self.fault("E211", "the network gives no tensor", "return at least one tensor from forward")
            return False
        self.function.body.append(Return(*values))  # type: ignore[arg-type]
        self.function.attributes["outputs"] = tuple(outputs)
        return True

    def _collect(self, result: Any, path: str, outputs: dict[str, Value]) -> bool:
        """Enter the tensors of a result under names that say where they stand in it; False where one is missing."""
        if len(outputs) > MOST_OUTPUTS or path.count(".") > 8:
            self.fault("E211", "the network gives too many tensors")
            return False
        if result is BLOCKED:
            if not self.has_faults:
                self.fault("E211", "an output depends on something that was not converted")
            return False
        if isinstance(result, Missing):
            self.fault("E211", f"output {path or 'output'!r} {result.fault.reason}", result.fault.remedy)
            return False
        if isinstance(result, Tensor):
            outputs[path or "output"] = self.operators.value(result)
        elif isinstance(result, bool | int | float) and not isinstance(result, bool):
            array = np.asarray(result, np.float32 if isinstance(result, float) else np.int64)
            outputs[path or "output"] = self.builder.constant(array)
        elif isinstance(result, dict | list | tuple):
            return all([self._collect(v, _below(path, k), outputs) for k, v in _items(result)])
        return True

    # -- state ---------------------------------------------------------------------------------------------------------
    def _assume_state(self) -> None:
        """Put inputs, or the values they settle at, into the attributes that change."""
        for path, value in self.assumed.settled.items():
            known = Tensor.of(self.builder.constant(value)) if isinstance(value, np.ndarray) else value
            self._place(path, known)
        for path, type in self.assumed.tensors.items():
            self.builder.reserve(path)
            self._place(path, Tensor.of(self.function.add_argument(type, path)))

    def _place(self, path: str, value: Any) -> None:
        holder, name = self._holder(path)
        holder.attributes[name] = value

    def _attribute(self, path: str) -> Any:
        holder, name = self._holder(path)
        return self.instances.get(holder, name, self.evaluator)

    def _holder(self, path: str) -> tuple[Object, str]:
        """The object that has an attribute, and the attribute's name."""
        target: Any = self.root
        parts = path.split(".")
        while len(parts) > 1:
            for count in range(1, len(parts)):  # a name may contain dots
                found = self.instances.get(target, ".".join(parts[:count]), self.evaluator)
                if isinstance(found, Object):
                    target, parts = found, parts[count:]
                    break
            else:
                break
        return target, ".".join(parts)

    def _find_changes(self) -> None:
        """Fill `plan` with the attributes that have another value now than before."""
        for (holder, name), assigned in self.instances.changes():
            path = f"{holder.path}.{name}".strip(".")
            before = self._before(path)
            after = self._comparable(holder.attributes[name])
            values = [v.data for v in map(self._comparable, assigned) if isinstance(v, Constant)]
            if not state.add_change(self.plan, path, before, after, values):
                self.fault("E210", f"attribute {path!r} changes from call to call, and is no tensor", state.REMEDY)

    def _comparable(self, value: Any) -> Any:
        return self.operators.value(value) if isinstance(value, Tensor) else value

    def _before(self, path: str) -> Any:
        """What an attribute was before the evaluation: an array, a Python value, or None."""
        if path in self.assumed.settled:
            return self.assumed.settled[path]
        target: Any = self.importer._read("data.pkl", "data/")
        for part in path.split("."):
            target = target.attributes.get(part) if isinstance(target, Object) else None
        if isinstance(target, StoredTensor):
            return self.instances.array(target)
        return None if isinstance(target, Object) else target

    def drop_unused_state(self, plan: state.Plan) -> list[str]:
        """Take away the state that no call reads; gives the names that stay."""
        returned = self.function.body.last
        names = list(self.function.attributes["outputs"])
        values = dict(zip(names, returned.operands, strict=True))  # type: ignore[union-attr]
        kept = []
        for argument in list(self.function.arguments):
            if argument.name not in plan.tensors:
                continue
            readers = [u for u in argument.users if u is not returned]
            if readers or any(values[n] is argument for n in names if not n.endswith(state.NEXT)):
                kept.append(argument.name)
            else:
                values.pop(argument.name + state.NEXT, None)
        self._return(values)
        for argument in list(self.function.arguments):
            if argument.name in plan.tensors and argument.name not in kept:
                self.function.body.remove_argument(argument.index)
        _erase_dead_ops(self.function)
        self.module.drop_unused_constants()
        return kept

    def _return(self, values: Mapping[str, Any]) -> None:
        last = self.function.body.last
        if last is not None:
            last.erase()
        self.function.body.append(Return(*values.values()))
        self.function.attributes["outputs"] = tuple(values)

    def document_state(self, values: Mapping[str, np.ndarray]) -> None:
        """Say in the module which outputs become which inputs of the next call, and what those are at first."""
        if not values:
            return
        shown = {name: state.as_attribute(value) for name, value in values.items()}
        for name, value in shown.items():
            if value is None:
                self.fault("E210", f"the first value of attribute {name!r} is too large to be kept", state.REMEDY)
        self.module.attributes["state"] = {name + state.NEXT: name for name in values}
        self.module.attributes["first_state"] = shown


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else key if isinstance(key, str) else f"output.{key}"


def _items(result: Any) -> list[tuple[Any, Any]]:
    if isinstance(result, dict):
        return list(result.items())
    if isinstance(result, Named):
        return list(zip(result.fields, result, strict=True))
    return list(enumerate(result))


def _erase_dead_ops(function: IRFunction) -> None:
    for op in reversed(function.body):
        if op.results and not any(r.uses for r in op.results):
            op.erase()
