"""The pass that carries out a scheme: integer weights, conversions in front of integer layers, nothing else.

Everything between the layers stays float, residual sums, depthwise convolutions and pooling included, so that rounding
happens only where the chip's matrix unit demands it. The integers of a value are `round(x * scale * 2^-position)`,
clamped (docs/mlu220.md 2.1). What the scheme decides is not decided here; where ranges come from is `calibrate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.types import DType
from compiler.ops.quant import Dequantize
from compiler.pass_context import Pass, PassContext
from passes.layers import WEIGHTED, matching, names_of, unmatched
from passes.quantization.hoist import Conversions, hoist, join_pairs
from passes.quantization.integers import Memo, WeightType, check_weights, convert_constant
from passes.quantization.layers import (
    PAIRS,
    computed_inputs,
    has_own_scheme,
    imported,
    integer_layers,
    is_depthwise,
    module_hash,
    multiply_adds,
    output_axis,
    shortcuts,
    values_of,
    without_range,
)
from passes.quantization.scheme import F16_MAX, HEADROOM, Scheme

NO_SCHEME = "needs to know the ranges of activations, and there is neither a scheme nor calibration data"
NO_SCHEME_HELP = """give calibration images with --calibrate DIR, a scheme file with --scheme q.toml,
or quantize{scheme=q.toml} in the pipeline; without any, leave quantize out: the model then runs in float on the host"""


@dataclass
class _Layer:
    """An integer layer and what it becomes; `kind` is one of PAIRS."""

    op: Op
    kind: str


@dataclass(frozen=True, kw_only=True)
class Quantize(Pass):
    """Make convolutions and matmuls integer, by a quantisation scheme.

    The scheme is a file (`scheme=q.toml`), or what calibration of this compilation found. `weights` overrides the
    scheme's choice of one scale per output channel or one per tensor. Layers that match `keep-float` are not quantised
    and run on the host, because the matrix unit is integer only; those that match `i16` use 16-bit integers. Both win
    over the scheme.
    """

    name = "quantize"
    scheme: str = ""
    weights: Literal["per-channel", "per-tensor"] | None = None
    keep_float: tuple[str, ...] = ()
    i16: tuple[str, ...] = ()
    given: Scheme | None = field(default=None, metadata={"text": False})
    """A scheme in memory; wins over `scheme` and over the compilation's option of that name."""
    memo: Memo | None = field(default=None, metadata={"text": False})
    """Weights quantised before, where one network is quantised several times."""

    def run(self, module: Module, ctx: PassContext) -> None:
        main = module.main
        scheme = self._find_scheme(main, ctx)
        if renamed := module.attributes.pop("renamed", ()):
            entries = {new: scheme.tensors[old] for new, old in [renamed] if old in scheme.tensors}
            scheme = dataclasses.replace(scheme, tensors=scheme.tensors | entries)
        self._check_names(module, scheme)
        self._check_module(module, scheme, ctx)
        layers = self._layers(main, scheme, ctx)
        residuals = list(shortcuts(main)) if scheme.residuals == "i8" else []
        self._check_ranges(layers, residuals, scheme)
        conversions = Conversions(main.body, _Namer(main))
        done: dict[tuple[Constant, WeightType], Constant] = {}
        ctx.statistics.count("pairs of conversions that change nothing", join_pairs(main.body, ctx))
        layers = [layer for layer in layers if ctx.may_rewrite(f"quantize at {layer.op.name}")]
        taken = {layer.op for layer in layers}
        for layer in layers:
            self._quantize(module, layer, scheme, conversions, done, taken)
            ctx.statistics.count(f"layers {layer.kind}")
        self._quantize_residuals(residuals, scheme, conversions, ctx)
        ctx.statistics.count("conversions moved above an op", hoist(main.body, conversions, ctx))
        _name_float_types(main, scheme)
        module.drop_unused_constants()

    # -- what to do ----------------------------------------------------------------------------------------------------
    def _find_scheme(self, main: Function, ctx: PassContext) -> Scheme:
        if self.given is not None:
            return self.given
        if not self.scheme and not ctx.options.get("scheme") and has_own_scheme(main):
            return Scheme(method="the model's own")
        return find_scheme(self.scheme, ctx)

    def _check_names(self, module: Module, scheme: Scheme) -> None:
        """Raise CompilerError naming everything the scheme or the options call by a name nobody has."""
        main = module.main
        layers = [name for op in main.body if op.op_name in WEIGHTED for name in names_of(op)]
        values = {v.name for v in values_of(main)} | set(module.attributes.pop("absorbed", ()))
        faults = [_unknown(f"scheme: no tensor is called {name!r}", name, values)
                  for name in scheme.tensors if name not in values]  # fmt: skip
        sources = {"scheme": scheme.layers, "keep-float": self.keep_float, "i16": self.i16}
        for source, patterns in sources.items():
            for pattern in unmatched(patterns, layers):
                faults.append(_unknown(f"{source}: {pattern!r} names no layer that can be quantised", pattern, layers))
        if faults:
            raise CompilerError(faults)

    def _check_module(self, module: Module, scheme: Scheme, ctx: PassContext) -> None:
        known = module.attributes.pop("scheme_for", None) or module_hash(module)
        if scheme.module and scheme.module != known:
            after = f" after the pipeline {scheme.pipeline!r}" if scheme.pipeline else ""
            message = "the scheme was made for another module; its ranges may not fit this one"
            ctx.diagnose("E529", message, op=self.name, help=f"calibrate again{after}")

    def _layers(self, main: Function, scheme: Scheme, ctx: PassContext) -> list[_Layer]:
        found = []
        for op in main.body:
            if is_depthwise(op):
                ctx.statistics.count("layers float: depthwise")
        for op in integer_layers(main):
            kind = self._kind(op, scheme)
            if kind == "float":
                self._report_float(op, ctx)
            else:
                found.append(_Layer(op, kind))
        return found

    def _kind(self, op: Op, scheme: Scheme) -> str:
        """The type of a layer: from the options, else from the scheme's layers, else from its inputs' entries."""
        if matching(self.keep_float, op):
            return "float"
        if matching(self.i16, op):
            return "i16"
        override = scheme.layer_type(names_of(op))
        if override is not None:
            return override
        entries = [scheme.tensors[v.name] for v in computed_inputs(op) if v.name in scheme.tensors]
        if any(not entry.is_quantized for entry in entries):
            return "float"
        own = [stored for v in computed_inputs(op) if (stored := imported(v)) is not None]
        if any(stored.type.dtype is DType.I16 for stored in own):
            return "i16xi8" if len(own) == 1 else "i16"
        if any(entry.type is DType.I16 for entry in entries):
            return "i16" if scheme.bits == 16 or len(entries) > 1 else "i16xi8"
        return "i8"

    def _report_float(self, op: Op, ctx: PassContext) -> None:
        ctx.statistics.count("layers float: asked for")
        message = f"{op.name!r} stays float and runs on the host: {multiply_adds(op):,} multiply-adds per inference"
        help = "the matrix unit is integer only; i16 keeps the layer on the chip"
        ctx.diagnose("E528", message, op=op.op_name, where=str(op.location), help=help)

    def _check_ranges(self, layers: Iterable[_Layer], residuals: Iterable[tuple[Op, int]], scheme: Scheme) -> None:
        """Raise CompilerError naming every tensor the layers and sums need and the scheme does not have."""
        faults = []
        needed = [(v, layer.op) for layer in layers for v in without_range(layer.op)]
        for value, op in [*needed, *((op.inputs[index], op) for op, index in residuals)]:
            if value.name not in scheme.tensors:
                message = f"scheme has no range for {value.name!r}, an input of {op.name!r}"
                help = f"calibrate again, or keep the layer float: [layers] {op.name!r} = 'float'"
                faults.append(Diagnostic(code="E525", op=self.name, message=message, help=help))
        if faults:
            raise CompilerError(faults)

    # -- doing it ------------------------------------------------------------------------------------------------------
    def _quantize(
        self,
        module: Module,
        layer: _Layer,
        scheme: Scheme,
        conversions: Conversions,
        done: dict[tuple[Constant, WeightType], Constant],
        taken: set[Op],
    ) -> None:
        activation, weight = PAIRS[layer.kind]
        for index, value in enumerate(layer.op.operands[:2]):
            storage = weight if index == 1 else activation
            if isinstance(value, Constant):
                key = (value, self._weight_type(layer.op, index, storage, scheme))
                if key not in done:
                    done[key] = _convert_weights(module, *key, taken, self.memo)
                layer.op.set_operand(index, done[key])
            elif value is not None:
                layer.op.set_operand(index, _as_integers(value, storage, scheme, conversions))
        layer.op.infer_again()

    def _quantize_residuals(
        self, residuals: list[tuple[Op, int]], scheme: Scheme, conversions: Conversions, ctx: PassContext
    ) -> None:
        """Store the waiting operand of residual sums as integers, as the scheme's `residuals = "i8"` asks."""
        for op, index in residuals:
            value = op.inputs[index]
            entry = scheme.tensors[value.name]
            if entry.is_quantized and ctx.may_rewrite(f"quantize residual at {op.name}"):
                real = Dequantize(conversions.of(value, entry.quant()), names=[conversions.namer(f"{value.name}.real")])
                real.location = op.location
                conversions.block.insert_before(op, real)
                op.set_operand(index, real.result)
                ctx.statistics.count("residuals i8")

    def _weight_type(self, op: Op, index: int, storage: DType, scheme: Scheme) -> WeightType:
        """How a constant operand is quantised: per output channel where the op allows it and the scheme wants it."""
        outputs = output_axis(op) if index == 1 else None
        per_channel = (self.weights or scheme.weights) == "per-channel"
        rounding = scheme.weight_rounding if outputs is not None else "nearest"
        return WeightType(storage, outputs if per_channel else None, outputs or 0, rounding)


def find_scheme(named: str, ctx: PassContext) -> Scheme:
    """The scheme in the file `named`, or else the one of the compilation. Raises CompilerError E520 for none."""
    found = named or ctx.options.get("scheme")
    if isinstance(found, Scheme):
        return found
    if not found:
        raise error("E520", NO_SCHEME, op=Quantize.name, help=NO_SCHEME_HELP)
    return Scheme.parse(found) if "\n" in str(found) else Scheme.load(found)


def _unknown(message: str, word: str, known: Iterable[str]) -> Diagnostic:
    return Diagnostic(code="E524", op="quantize", message=message, help=did_you_mean(word, known))


def _as_integers(value: Value, storage: DType, scheme: Scheme, conversions: Conversions) -> Value:
    """A computed operand as integers of a width: those the model has by itself, where it has them."""
    own = imported(value)
    if own is None:
        return conversions.of(value, scheme.tensors[value.name].quant(storage))
    if own.type.dtype is storage:
        return own
    quant = own.type.quant
    assert quant is not None
    return conversions.of(value, dataclasses.replace(quant, storage=storage))


def _convert_weights(
    module: Module, weights: Constant, kind: WeightType, taken: set[Op], memo: Memo | None
) -> Constant:
    """The integer twin of a constant, in its place where all of its users are being quantised."""
    check_weights(weights)
    replaceable = module.constants.get(weights.name) is weights and all(op in taken for op in weights.users)
    return convert_constant(weights, kind, replaceable, memo)


def _name_float_types(main: Function, scheme: Scheme) -> None:
    """Note on ops which of their results the scheme wants as f16 or f32; `legalize` reads it."""
    for op in main.body:
        for result in op.results:
            entry = scheme.tensors.get(result.name)
            if entry is None or not result.type.dtype.is_float:
                continue
            if not entry.is_quantized:
                op.set_attribute("_float", str(entry.type))
            elif entry.absmax * HEADROOM > F16_MAX:
                op.set_attribute("_float", str(DType.F32))


class _Namer:
    """Names no value of a function has yet."""

    def __init__(self, function: Function) -> None:
        self.names = {v.name for v in values_of(function)}

    def __call__(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self.names:
            number += 1
            name = f"{wanted}.{number}"
        self.names.add(name)
        return name
