"""Packed parameters in archives: the states of torch's own C++ classes, as what the aten table takes.

A quantised convolution or linear layer stores its weights, bias and settings in one object, in forms that changed
over the years; all that PyTorch still reads are read. Prepacked float layers of mobile archives (XNNPACK) as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.frontend.aten.prepacked import Clamped
from compiler.frontend.aten.quantized import PackedCell, PackedConv, PackedLinear
from compiler.frontend.records import Malformed, Unsupported
from compiler.frontend.torchscript.pickled import Object, StoredTensor

if TYPE_CHECKING:
    from compiler.frontend.torchscript.instances import Instances

PREFIX = "__torch__.torch.classes."


def is_packed(value: Object) -> bool:
    """Whether an object is one of torch's own C++ classes whose state is known here."""
    return value.class_name.removeprefix(PREFIX) in STATES and value.class_name.startswith(PREFIX)


def unpack(value: Object, path: str, instances: Instances) -> Any:
    """The parameters of a packed object. Raises Malformed for a state of a form that is not known."""
    kind = value.class_name.removeprefix(PREFIX)
    try:
        return STATES[kind](value.state, path, instances)
    except (IndexError, TypeError, ValueError, KeyError) as fault:
        raise Malformed(f"has {kind} of a form that is not known ({type(fault).__name__}: {fault})") from None


def _weight(stored: Any, instances: Instances) -> Any:
    if not isinstance(stored, StoredTensor):
        raise TypeError("weights are no tensor")
    quantised = instances.quantised(stored)
    return quantised if quantised is not None else instances.builder.constant(instances.array(stored))


def _bias(stored: Any, instances: Instances) -> Any:
    return None if stored is None else instances.array(stored)


def _conv_settings(state: Any, instances: Instances) -> tuple[list[int], Any, Any]:
    """Settings [dimensions, strides, paddings, dilations, output paddings, groups, flags], weights and bias."""
    head = state[0]
    if isinstance(head, StoredTensor):  # the first form: every setting in a tensor of its own
        weight, bias, strides, paddings, dilations, groups = state[:6]
        numbers = [[int(instances.array(t).reshape(-1)[0]) for t in part] for part in (strides, paddings, dilations)]
        count = len(numbers[0])
        group = int(instances.array(groups).reshape(-1)[0])
        return [count, *numbers[0], *numbers[1], *numbers[2], *[0] * count, group, 0], weight, bias
    if head == "2":
        settings = [int(v) for v in instances.array(state[1][0]).reshape(-1)]
        return settings, state[1][1], state[2][0] if state[2] else None
    if head == 3:
        tensors = state[2]
        return [int(v) for v in state[1]], tensors[1], tensors[2] if len(tensors) > 2 else None
    raise ValueError(f"version {head!r}")


def _conv(state: Any, path: str, instances: Instances) -> PackedConv:
    settings, weight, bias = _conv_settings(_single(state), instances)
    count = settings[0]
    if count not in (1, 2):
        raise Unsupported(f"convolves in {count} dimensions", "1 and 2 are supported")
    parts = [tuple(settings[1 + i * count : 1 + (i + 1) * count]) for i in range(4)]
    groups, flags = settings[1 + 4 * count], settings[2 + 4 * count]
    return PackedConv(
        _weight(weight, instances), _bias(bias, instances), parts[0], parts[1], parts[2], groups, bool(flags & 1),
        parts[3],
    )  # fmt: skip


def _linear(state: Any, path: str, instances: Instances) -> PackedLinear:
    weight, bias = _single(state)
    return PackedLinear(_weight(weight, instances), _bias(bias, instances))


def _cell(state: Any, path: str, instances: Instances) -> PackedCell:
    """Biases, if they do not lie with the packed weights, are the first two tensors."""
    kind, tensors, _, _, packed = _single(state)
    if kind not in ("quantized_dynamic", "quantized_fp16") or len(packed) != 2:
        raise Unsupported(f"has parameters of kind {kind!r}", "quantise it with torch.ao.quantization.quantize_dynamic")
    parts = [unpack(item, path, instances) if isinstance(item, Object) else item for item in packed]
    biases = [instances.array(t) for t in tensors[:2]] if len(tensors) >= 2 else [None, None]
    both = [p if b is None else replace(p, bias=b) for p, b in zip(parts, biases, strict=True)]
    return PackedCell(*both)


def _single(state: Any) -> Any:
    """Some versions wrap the state in a tuple of one."""
    return state[0] if len(state) == 1 and isinstance(state[0], tuple | list) else state


def _limits(low: Any, high: Any) -> tuple[float, float]:
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


def _clamped_linear(state: Any, path: str, instances: Instances) -> Clamped:
    weight, bias, low, high = state
    return Clamped("linear", _weight(weight, instances), _bias(bias, instances), *_limits(low, high))


def _clamped_conv(state: Any, path: str, instances: Instances) -> Clamped:
    weight, bias, stride, padding, dilation, groups, low, high = state
    settings = (_ints(stride), _ints(padding), _ints(dilation), False, (0, 0), int(groups))
    return Clamped("conv", _weight(weight, instances), _bias(bias, instances), *_limits(low, high), settings)


def _clamped_transposed(state: Any, path: str, instances: Instances) -> Clamped:
    weight, bias, stride, padding, output_padding, dilation, groups, low, high = state
    settings = (_ints(stride), _ints(padding), _ints(dilation), True, _ints(output_padding), int(groups))
    return Clamped("conv", _weight(weight, instances), _bias(bias, instances), *_limits(low, high), settings)


def _ints(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


STATES: dict[str, Callable[[Any, str, Instances], Any]] = {
    "quantized.Conv2dPackedParamsBase": _conv, "quantized.Conv3dPackedParamsBase": _conv,
    "quantized.LinearPackedParamsBase": _linear, "rnn.CellParamsBase": _cell,
    "xnnpack.LinearOpContext": _clamped_linear, "xnnpack.Conv2dOpContext": _clamped_conv,
    "xnnpack.TransposeConv2dOpContext": _clamped_transposed,
}
"""Class below `__torch__.torch.classes.` → how its state is read."""
