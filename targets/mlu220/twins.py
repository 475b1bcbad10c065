"""The `_twins` text beside an offline model, in the shape people know from the vendor's tools (docs/mlu220.md 3.6 [C]).

One Function block per subnet. Shapes are the device's, with four axes as the vendor prints them. The tensor ids are
ours: inputs first, then outputs, counted from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from targets.mlu220.container import OfflineModel
    from targets.mlu220.container_records import DeviceFunction, IORecord

MASK = 338036233
CNRT_TYPES = {
    "i1": "CNRT_BOOL", "i8": "CNRT_INT8", "i16": "CNRT_INT16", "i32": "CNRT_INT32", "i64": "CNRT_INT64",
    "u8": "CNRT_UINT8", "u16": "CNRT_UINT16", "u32": "CNRT_UINT32", "f16": "CNRT_FLOAT16", "f32": "CNRT_FLOAT32",
    "f64": "CNRT_FLOAT64",
}  # fmt: skip


def four_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A device shape as the vendor prints it: the first axis, ones, the rest; more than four axes stay."""
    return shape if len(shape) >= 4 else (*shape[: len(shape) > 1], *[1] * (4 - len(shape)), *shape[len(shape) > 1 :])


def dim_order(record: IORecord) -> str:
    """The order of the device's axes. The record's layout is that of the model's axes, which the device permutes; what
    is not an image counts as NHWC, as the vendor prints it."""
    axes = {"NCHW": "NCHW", "NHWC": "NHWC"}.get(record.layout) if len(record.shape) == 4 else None
    if axes is None:
        return "CNRT_NHWC"
    return "CNRT_NCHW" if "".join(axes[i] for i in record.permutation) == "NCHW" else "CNRT_NHWC"


def _record(kind: str, index: int, tensor_id: int, record: IORecord) -> list[str]:
    shape = " ".join(str(d) for d in four_axes(record.device_shape))
    return [
        f"    {kind} #{index}.",
        f"        Mask: {MASK}",
        f"        Shape(dim): {shape} ",
        f"        Name: {record.name}",
        f"        Id: {tensor_id}",
        f"        Data type: {CNRT_TYPES.get(record.dtype, 'CNRT_INVALID')}        Dim Order: {dim_order(record)}",
        f"        Quantize position: {record.position or 0}",
        f"        Quantize scale: {record.scale or 0.0:.6f}",
    ]


def _function(index: int, function: DeviceFunction) -> list[str]:
    lines = [f"Function #{index} {{", "Kernel num:1 ", "Cache mode:0 ", f"Name: {function.name}"]
    lines.append(f"Input number: {len(function.inputs)}")
    for k, record in enumerate(function.inputs):
        lines += _record("Input", k, k, record)
    lines.append(f"Output number: {len(function.outputs)}")
    for k, record in enumerate(function.outputs):
        lines += _record("Output", k, len(function.inputs) + k, record)
    return [
        *lines,
        "Kernel header #0:",
        f"    Name: {function.name}{sum(len(program) for program in function.programs)}",
        "    Core version: ",
        f"    Model Parallelism: {function.cores}",
        f"    Core limit: {function.cores}",
        "    Inst data split: true",
        "}",
    ]


def twins_text(model: OfflineModel, file_name: str) -> str:
    """The whole text, for a model saved under `file_name`."""
    lines = [
        f'This is the Twins File of "{file_name}".',
        f"Function number: {len(model.device_functions)}",
        "---------------kernel graph--------------------",
        "",
    ]
    for index, function in enumerate(model.device_functions):
        lines += [*_function(index, function), ""]
    return "\n".join(lines)
