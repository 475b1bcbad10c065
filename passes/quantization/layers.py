"""Which ops the matrix unit can do in integers, and what calibration must know for it.

Depthwise convolution is not among them: the chip computes it in floating point (docs/mlu220.md 1.8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.types import DType

CONVOLUTIONS = ("nn.conv2d", "nn.conv_transpose2d")

PAIRS = {"i8": (DType.I8, DType.I8), "i16": (DType.I16, DType.I16), "i16xi8": (DType.I16, DType.I8)}
"""Layer type → element types of activation and weights: the chip's legal pairs."""


def is_depthwise(op: Op) -> bool:
    """A grouped convolution with one channel per group."""
    if op.op_name not in CONVOLUTIONS or op.attributes.get("groups", 1) == 1:
        return False
    shape = op.inputs[1].type.shape
    inner = 1 if op.attributes.get("layout", "NCHW") == "NCHW" else 3
    if op.op_name == "nn.conv2d":
        return shape[inner] == 1
    return shape[0] == op.attributes["groups"]


def integer_layers(function: Function) -> Iterator[Op]:
    """The convolutions and matmuls that can run on the matrix unit, in order."""
    for op in function.body:
        if _is_float_product(op) and not is_depthwise(op):
            yield op


def _is_float_product(op: Op) -> bool:
    if op.op_name in CONVOLUTIONS:
        return isinstance(op.operands[1], Constant) and all(v.type.dtype is DType.F32 for v in op.inputs)
    if op.op_name != "nn.matmul":
        return False
    computed = [v for v in op.inputs if not isinstance(v, Constant)]
    return bool(computed) and all(v.type.dtype is DType.F32 for v in op.inputs)


def computed_inputs(op: Op) -> list[Value]:
    """The operands of an integer layer that are quantised while the network runs."""
    return [v for v in op.inputs[:2] if not isinstance(v, Constant)]


def imported(value: Value) -> Value | None:
    """The integers a model keeps a value as by itself, where the chip has their type: what a `quant.dequantize` of
    symmetric i8 or i16 takes."""
    producer = value.producer
    if producer is None or producer.op_name != "quant.dequantize":
        return None
    stored = producer.inputs[0]
    quant = stored.type.quant
    if quant is None or isinstance(stored, Constant) or quant.axis is not None or quant.zero_point:
        return None
    return stored if quant.storage in (DType.I8, DType.I16) else None


def without_range(op: Op) -> list[Value]:
    """The operands of an integer layer whose range calibration must find."""
    return [v for v in computed_inputs(op) if imported(v) is None]


def has_own_scheme(function: Function) -> bool:
    """Whether a model comes quantised in the chip's own types, so that nothing is left to calibrate."""
    known = any(imported(v) is not None for op in integer_layers(function) for v in computed_inputs(op))
    return known and not any(without_range(op) for op in integer_layers(function))


def shortcuts(function: Function) -> Iterator[tuple[Op, int]]:
    """Residual sums of two computed f32 tensors of one shape, with the number of the operand that was made first.

    That one waits in memory while the other is computed; the other is added where it is made.
    """
    order = {op: index for index, op in enumerate(function.body)}
    for op in function.body:
        a, b = op.operands if op.op_name == "math.add" else (None, None)
        if a is None or b is None or isinstance(a, Constant) or isinstance(b, Constant):
            continue
        if a.type == b.type and a is not b and a.type.rank == 4 and a.type.dtype is DType.F32:
            first = [order[v.producer] if v.producer is not None else -1 for v in (a, b)]
            yield op, first.index(min(first))


def values_of(function: Function) -> Iterator[Value]:
    """Arguments and results, in order."""
    yield from function.arguments
    for op in function.body:
        yield from op.results


def output_axis(op: Op) -> int | None:
    """The axis of output channels of a layer's second operand; None where they do not lie on one axis."""
    rank = op.inputs[1].type.rank
    if op.op_name == "nn.matmul":
        return rank - 1 if rank > 1 else None
    if op.op_name == "nn.conv2d":
        return 0
    if op.attributes.get("groups", 1) > 1:
        return None
    return 1 if op.attributes.get("layout", "NCHW") == "NCHW" else 3


def multiply_adds(op: Op) -> int:
    """Products of one convolution or matmul, of known shape."""
    out = op.results[0].type.elements
    if op.op_name == "nn.matmul":
        return out * int(op.inputs[0].type.static_shape[-1])
    weights = op.inputs[1].type.elements
    if op.op_name == "nn.conv_transpose2d":
        return op.inputs[0].type.elements * weights // op.inputs[1].type.static_shape[0]
    return out * weights // op.inputs[1].type.static_shape[0]


def module_hash(module: Module) -> str:
    """sha256, in hex, of what the module computes: ops, operands, attributes, types and constants; not locations."""
    digest = hashlib.sha256()
    for function in module.functions.values():
        digest.update(f"{function.name} {[(a.name, str(a.type)) for a in function.arguments]}\n".encode())
        for op in function.walk():
            operands = [_identity(v) for v in op.operands]
            results = [(r.name, str(r.type)) for r in op.results]
            digest.update(f"{op.op_name} {operands} {sorted(op.attributes.items())} {results}\n".encode())
    return digest.hexdigest()


def _identity(value: Value | None) -> str:
    if isinstance(value, Constant):
        return f"@{value.name} {value.hash}"
    return "_" if value is None else f"%{value.name}"
