"""What an offline model holds: records of inputs and outputs, device and host functions, steps, debug entries.

Plain dataclasses, their form as JSON, and the rules a model must keep whether it was built here or read from a file.
Bytes and sections are `container.py`; whether programs are safe to run is `check.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from targets.mlu220.isa_fields import IPU_CORES, MAX_IO, ROW_WORDS

MAX_BYTES = 2**31 - 1
"""Largest segment an address can reach: a tensor, the workspace, the constants."""
ROUNDINGS = ("nearest-even", "half-away")
LAYOUTS = ("NCHW", "NHWC", "ARRAY")
MAX_RANK = 8
OPEN = -1
"""A dimension that is known only when a host function has run."""

DTYPES: dict[str, str] = {
    "i1": "|b1", "i8": "|i1", "i16": "<i2", "i32": "<i4", "i64": "<i8", "u8": "|u1", "u16": "<u2", "u32": "<u4",
    "u64": "<u8", "f16": "<f2", "bf16": "bfloat16", "f32": "<f4", "f64": "<f8",
}  # fmt: skip
"""Element types by the names of IR text."""


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy type of an element type's name; KeyError for an unknown one."""
    if name == "bf16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(DTYPES[name])


def dtype_name(dtype: np.dtype) -> str:
    """The inverse of `numpy_dtype`; KeyError for a type that IR text does not have."""
    little = dtype.newbyteorder("<")
    if dtype.name == "bfloat16":
        return "bf16"
    return {np.dtype(text): name for name, text in DTYPES.items() if name != "bf16"}[little]


@dataclass(frozen=True, kw_only=True)
class IORecord:
    """An input or output. `shape` is the model's own, dense row-major; on the device the tensor is dense row-major in
    `device_shape`, whose axis i is the model's axis permutation[i]. Position and scale: quantised types only. A
    dimension of what a host function makes or takes may be `OPEN`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    device_shape: tuple[int, ...]
    permutation: tuple[int, ...]
    layout: str = "ARRAY"
    position: int | None = None
    scale: float | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numpy(self) -> np.dtype:
        return numpy_dtype(self.dtype)

    @property
    def is_open(self) -> bool:
        """Whether a dimension is known only when the model runs."""
        return OPEN in self.shape

    @property
    def elements(self) -> int:
        """Elements of the tensor; of an open one those of a slice of its open axes."""
        return math.prod(d for d in self.shape if d != OPEN)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` is such a tensor."""
        return len(shape) == len(self.shape) and all(d in (s, OPEN) for d, s in zip(self.shape, shape, strict=True))

    @property
    def bytes(self) -> int:
        return self.elements * self.numpy.itemsize

    @staticmethod
    def dense(name: str, shape: Sequence[int], dtype: str, **values: Any) -> IORecord:
        """A record whose device layout is the model's own."""
        order = tuple(range(len(shape)))
        return IORecord(
            name=name, shape=tuple(shape), dtype=dtype, device_shape=tuple(shape), permutation=order, **values
        )

    def faults(self, may_be_open: bool = False) -> Iterator[str]:
        if self.dtype not in DTYPES:
            yield f"{self.name}: unknown element type {self.dtype!r}"
        elif self.is_open and not may_be_open:
            yield f"{self.name}: shape {list(self.shape)} is open, which only what host functions give or take may be"
        elif not all(d >= 1 or d == OPEN for d in self.shape) or len(self.shape) > MAX_RANK or self.bytes > MAX_BYTES:
            yield f"{self.name}: shape {list(self.shape)} is not one of at most {MAX_RANK} axes and 2^31 - 1 bytes"
        if sorted(self.permutation) != list(range(len(self.shape))):
            yield f"{self.name}: {list(self.permutation)} is not a permutation of {len(self.shape)} axes"
        elif self.device_shape != tuple(self.shape[axis] for axis in self.permutation):
            yield f"{self.name}: device shape {list(self.device_shape)} is not the permuted shape {list(self.shape)}"
        if self.layout not in LAYOUTS:
            yield f"{self.name}: layout {self.layout!r} is not one of {', '.join(LAYOUTS)}"


@dataclass(frozen=True)
class DebugEntry:
    """Instructions first to last (inclusive) of a core come from this op of the model."""

    core: int
    first: int
    last: int
    op_name: str
    location: str = ""


@dataclass(kw_only=True)
class DeviceFunction:
    """A subnet. `programs`: int32 [n, 32] for cores 0 to cores-1, then for the memory core; `workspace` in bytes."""

    name: str
    inputs: list[IORecord]
    outputs: list[IORecord]
    programs: list[np.ndarray]
    cores: int
    workspace: int = 0
    debug: list[DebugEntry] = field(default_factory=list)

    def faults(self) -> Iterator[str]:
        if not 1 <= self.cores <= IPU_CORES or len(self.programs) != self.cores + 1:
            yield f"{self.name}: {len(self.programs)} programs for {self.cores} cores and the memory core"
            return
        for core, program in enumerate(self.programs):
            if program.ndim != 2 or program.shape[1] != ROW_WORDS or program.dtype != np.dtype("<i4"):
                yield f"{self.name}: program {core} is {program.dtype}{list(program.shape)}, not int32[n, {ROW_WORDS}]"
        if not 0 <= self.workspace <= MAX_BYTES:
            yield f"{self.name}: a workspace of {self.workspace} bytes"
        if max(len(self.inputs), len(self.outputs)) > MAX_IO:
            yield f"{self.name}: more than {MAX_IO} inputs or outputs"
        for entry in self.debug:
            if not (0 <= entry.core <= self.cores and 0 <= entry.first <= entry.last < len(self.programs[entry.core])):
                yield f"{self.name}: debug entry {entry} names instructions that do not exist"
        for record in (*self.inputs, *self.outputs):
            yield from (f"{self.name}: {fault}" for fault in record.faults())


@dataclass(kw_only=True)
class HostFunction:
    """A segment for the host: IR text, and the constants its text names."""

    name: str
    text: str
    inputs: list[IORecord]
    outputs: list[IORecord]
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def faults(self) -> Iterator[str]:
        for name, array in self.constants.items():
            try:
                dtype_name(array.dtype)
            except KeyError:
                yield f"{self.name}: constant {name!r} has type {array.dtype}"
        for record in (*self.inputs, *self.outputs):
            yield from (f"{self.name}: {fault}" for fault in record.faults(may_be_open=True))


@dataclass(frozen=True)
class Step:
    """One call of `main`: which function, on which values, making which."""

    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def step_faults(
    steps: Sequence[Step], functions: Sequence[DeviceFunction | HostFunction], inputs: Sequence[IORecord],
    outputs: Sequence[IORecord],
) -> Iterator[str]:  # fmt: skip
    """Whether main's calls fit the functions: names, counts, and tensors of equal size and type."""
    by_name = {f.name: f for f in functions}
    if len(by_name) != len(functions):
        yield "two functions have the same name"
    known = {record.name: record for record in inputs}
    if len(known) != len(inputs):
        yield "two inputs have the same name"
    for step in steps:
        function = by_name.get(step.function)
        if function is None:
            yield f"step calls {step.function!r}, which does not exist"
            continue
        if len(step.inputs) != len(function.inputs) or len(step.outputs) != len(function.outputs):
            yield f"step calls {step.function!r} with other numbers of inputs or outputs than it has"
            continue
        for name, record in zip(step.inputs, function.inputs, strict=True):
            if name not in known:
                yield f"step {step.function!r} reads {name!r} before anything has made it"
            elif not _matches(known[name], record):
                yield f"step {step.function!r} takes {name!r} as {record.dtype}{list(record.shape)}"
        for name, record in zip(step.outputs, function.outputs, strict=True):
            if name in known:
                yield f"value {name!r} is made twice"
            known[name] = record
    for record in outputs:
        if record.name not in known or not _matches(known[record.name], record):
            yield f"no step makes output {record.name!r} as {record.dtype}{list(record.shape)}"


def _matches(made: IORecord, taken: IORecord) -> bool:
    return made.shape == taken.shape and made.dtype == taken.dtype
