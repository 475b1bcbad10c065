"""Random programs of the shape that compiled layers have: a head (convolution, depthwise, pooling, load) and a run of
elementwise instructions on its result, in place or not, seen as one row or many, sometimes with a second reader. They
exercise what translate fuses and elides; `isa_strategies` makes programs of independent instructions. Not tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.mlu220 import isa
from targets.mlu220.container import OfflineModel, Step
from targets.mlu220.isa import Mode, Partial, Type
from tests.isa_strategies import INPUT_TYPES, RandomFunction, Region, _Builder


class ChainBuilder(_Builder):
    """Adds layers: a head and a chain."""

    def layer(self, core: int) -> None:
        head = self.pick([self._conv_head, self._conv_head, self._depthwise_head, self._pool_head, self._load_head])
        value, channels = head(core)
        for _ in range(self.integer(1, 6)):
            value = self._link(core, value, channels)
            if value.type not in (Type.F16, Type.F32):
                break
        self.publish(value)

    # -- heads: (region, channels)
    def _place_dense(self, core: int, type: Type, oh: int, ow: int, channels: int) -> tuple[Region, dict[str, int]]:
        dst = self.allocate(core, type, oh * ow, channels, strided=self.chance(0.2))
        return dst, {"dst": dst.base, "dst_row_pitch": ow * dst.pitch, "dst_pixel_pitch": dst.pitch}

    def _conv_head(self, core: int) -> tuple[Region, int]:
        src_type, filter_type = self.pick([(Type.I8, Type.I8)] * 3 + [(Type.I16, Type.I8), (Type.I16, Type.I16)])
        runs, dst_type = self.pick(isa.Runs), self.float_type()
        ci, co = self.integer(1, 8), self.pick([1, 3, 16, 32, 40, 64])
        src, g, oh, ow = self.window(core, src_type, ci, dilated=True, dense_pixels=runs is isa.Runs.ROW)
        dst, d = self._place_dense(core, dst_type, oh, ow, co)
        types = {"src_type": src_type, "filter_type": filter_type, "dst_type": dst_type, "runs": runs}
        values: dict[str, Any] = dict(ci=ci, co=co, fix_position=self.integer(-14, 0), **types, **g)
        links = self.pick([[Partial.NONE], [Partial.NONE], [Partial.FIRST, Partial.LAST]])
        sums = self._sums(core, oh * ow * co, src_type, filter_type) if len(links) > 1 else None
        for partial in links:
            filters = self.filters(core, (co, g["kh"], g["kw"], ci), filter_type, runs)
            last = partial in (Partial.NONE, Partial.LAST)
            conv = isa.Conv(
                filters=filters.base, partial=partial, partial_sums=sums.base if sums else 0, **values,
                **(d if last else {}),
            )  # fmt: skip
            reads = [src, filters] + ([sums] if sums and last else [])
            self.append(core, conv, reads, [dst if last else sums])  # type: ignore[list-item]
        return dst, co

    def _depthwise_head(self, core: int) -> tuple[Region, int]:
        type, channels = self.float_type(), self.integer(1, 9)
        src, g, oh, ow = self.window(core, type, channels, dilated=True)
        filters = self.source(core, type, g["kh"] * g["kw"] * channels, dense=True)
        dst, d = self._place_dense(core, type, oh, ow, channels)
        self.append(core, isa.Depthwise(c=channels, dtype=type, filters=filters.base, **g, **d), [src, filters], [dst])
        return dst, channels

    def _pool_head(self, core: int) -> tuple[Region, int]:
        type, channels = self.float_type(), self.integer(1, 9)
        src, g, oh, ow = self.window(core, type, channels, dilated=False)
        dst, d = self._place_dense(core, type, oh, ow, channels)
        pool = isa.Pool(c=channels, dtype=type, function=self.pick(isa.PoolFunction), **g, **d)
        self.append(core, pool, [src], [dst])
        return dst, channels

    def _load_head(self, core: int) -> tuple[Region, int]:
        src = self.source(core, self.pick(Type), dense=True)
        dst_type = self.float_type()
        if src.type == dst_type:
            return src, src.count
        dst = self.allocate(core, dst_type, src.rows, src.count, strided=False)
        convert = isa.Convert(
            dst=dst.base, src=src.base, rows=src.rows, count=src.count, dst_pitch=dst.pitch, src_pitch=src.pitch,
            src_type=src.type, dst_type=dst_type, position=self.integer(-6, 0),
        )  # fmt: skip
        self.append(core, convert, [src], [dst])
        return dst, src.count

    # -- links
    def _link(self, core: int, value: Region, channels: int) -> Region:
        """One elementwise instruction on the whole of `value`; sometimes somebody else reads `value` too."""
        if self.chance(0.1):
            self.publish(value)
        rows, count = value.rows, value.count
        if value.dense and self.chance(0.5):
            rows, count = self.pick([(1, rows * count), (rows * count // channels, channels)])
        if rows * count != value.elements:
            rows, count = value.rows, value.count
        kind = self.pick(["binary"] * 4 + ["unary", "convert"])
        new_type = value.type if kind != "convert" else self._other_type(value.type)
        in_place = kind != "convert" and self.chance(0.6)
        if in_place:
            dst, pitch = value, value.pitch
        else:
            dst = self.allocate(core, new_type, rows, count, strided=self.chance(0.2))
            pitch = dst.pitch
        source_pitch = value.pitch if (rows, count) == (value.rows, value.count) else count * value.size
        if in_place:
            pitch = source_pitch
        shape = {"rows": rows, "count": count, "dst_pitch": pitch, "dst": dst.base}
        reads = [value]
        if kind == "unary":
            function = self.pick([f for f in isa.UnaryFunction])
            instruction: Any = isa.Unary(
                src=value.base, src_pitch=source_pitch, dtype=value.type, function=function, parameter=0.125, **shape
            )
        elif kind == "convert":
            instruction = isa.Convert(
                src=value.base, src_pitch=source_pitch, src_type=value.type, dst_type=new_type,
                position=self.integer(-5, 0), **shape,
            )  # fmt: skip
        else:
            instruction = self._binary_link(core, value, source_pitch, channels, shape, reads)
        self.append(core, instruction, reads, [dst])
        return Region(isa.NRAM, core, dst.base, new_type, rows, count, pitch, dst.writer) if not in_place else dst

    def _other_type(self, type: Type) -> Type:
        return self.pick([Type.I8, Type.I16, Type.F32 if type is Type.F16 else Type.F16])

    def _binary_link(
        self, core: int, value: Region, pitch: int, channels: int, shape: dict[str, int], reads: list[Region]
    ) -> isa.Instruction:
        mode = self.pick(Mode)
        count, rows = shape["count"], shape["rows"]
        fields: dict[str, Any] = {
            "dtype": value.type, "function": self.pick(isa.BinaryFunction), "mode": mode, "a": value.base,
            "a_pitch": pitch,
        }  # fmt: skip
        if mode is Mode.CONST:
            return isa.Binary(constant=float(self.rng.normal()), **fields, **shape)
        needed = {Mode.FULL: rows * count, Mode.ROW: rows, Mode.CYCLE: channels}[mode]
        try:
            other = self.load(core, value.type, needed)
        except ValueError:  # more than an input holds
            return isa.Binary(**{**fields, "mode": Mode.CONST}, constant=0.5, **shape)
        if not other.dense:
            return isa.Binary(**{**fields, "mode": Mode.CONST}, constant=-0.5, **shape)
        reads.append(other)
        fields["b"] = other.base
        if mode is Mode.CYCLE:
            fields["period"] = self.pick([channels, channels, max(1, channels // 2), min(channels, 5)])
        if mode is Mode.FULL:
            fields["b_pitch"] = count * value.size
            if self.chance(0.3):
                fields |= {"a": other.base, "a_pitch": count * value.size, "b": value.base, "b_pitch": pitch}
        return isa.Binary(**fields, **shape)


def random_chains(seed: int, cores: int = 1, layers: int = 3) -> RandomFunction:
    """A legal device function of some layers per core."""
    builder = ChainBuilder(seed, cores)
    for _ in range(layers):
        for core in range(cores):
            try:
                builder.layer(core)
            except MemoryError:
                break
    return builder.finish()


def offline_model(function: RandomFunction, rounding: str = "nearest-even") -> OfflineModel:
    """A model of one subnet that is the whole of `main`."""
    inner = function.function
    names = tuple(r.name for r in inner.inputs), tuple(r.name for r in inner.outputs)
    return OfflineModel(
        board="m2", cores=inner.cores, rounding=rounding, steps=[Step(inner.name, *names)], functions=[inner],
        inputs=inner.inputs, outputs=inner.outputs, constants=function.constants,
    )  # fmt: skip


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bytes, any NaN equal to any other."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    bits = f"u{a.itemsize}"
    return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())


__all__ = ["INPUT_TYPES", "ChainBuilder", "offline_model", "random_chains", "same_bits"]
