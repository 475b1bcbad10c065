"""Filters as the matrix unit wants them in WRAM, and sizes that follow from it.

WRAM layout `[ceil(co/64)][2][K/u][32][u]` with u = 4 bytes' worth of elements (4 for i8, 2 for i16). K runs over the
kernel in runs: with `Runs.ROW` one run per kernel row, of kw*ci elements; with `Runs.TAP` one run per tap, of ci
elements. Every run is padded to a multiple of u, and co to a multiple of 64; `pack_filters` pads with zeros, and what
stands in the padding never influences a result. (docs/mlu220.md 1.5: 64 lanes [C], the grouping is ours [U].) The size
functions take ints or arrays and are free of branches, so compiled code may use them too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LANES = 64
HALF_LANES = 32


def output_size(size: Any, kernel: Any, stride: Any, dilation: Any = 1) -> Any:
    """Rows (or columns) a window operation without padding makes of `size`."""
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def conv_runs(kh: Any, kw: Any, ci: Any, runs: Any) -> tuple[Any, Any]:
    """(number of runs, elements per run) for `runs` = 0 (ROW) or 1 (TAP)."""
    return kh * (1 + runs * (kw - 1)), ci * (kw - runs * (kw - 1))


def run_unit(filter_type: Any) -> Any:
    """Elements a run is padded to a multiple of: 4 for I8 (0), 2 for I16 (1)."""
    return 4 >> filter_type


def padded_k(kh: Any, kw: Any, ci: Any, filter_type: Any, runs: Any) -> Any:
    """Elements of K, the padding of every run included."""
    number, length = conv_runs(kh, kw, ci, runs)
    unit = run_unit(filter_type)
    return number * ((length + unit - 1) // unit * unit)


def filter_bytes(co: Any, kh: Any, kw: Any, ci: Any, filter_type: Any, runs: Any) -> Any:
    """Bytes of WRAM (and of the file) that `co` filters take; a multiple of 256."""
    return (co + LANES - 1) // LANES * LANES * padded_k(kh, kw, ci, filter_type, runs) * (1 + filter_type)


def pack_filters(w: np.ndarray, runs: int) -> np.ndarray:
    """Filters [co, kh, kw, ci] int8 or int16 → uint8[filter_bytes] in WRAM layout."""
    if w.ndim != 4 or w.dtype not in (np.int8, np.int16):
        raise ValueError(f"filters are [co, kh, kw, ci] of int8 or int16, not {w.dtype}{list(w.shape)}")
    co, kh, kw, ci = w.shape
    unit = 4 // w.dtype.itemsize
    number, length = conv_runs(kh, kw, ci, int(runs))
    groups, padded = -(-co // LANES), -(-length // unit) * unit
    panel = np.zeros((groups * LANES, number, padded), w.dtype.newbyteorder("<"))
    panel[:co, :, :length] = w.reshape(co, number, length)
    blocks = panel.reshape(groups, 2, HALF_LANES, number * padded // unit, unit).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)


def unpack_filters(data: np.ndarray, co: int, kh: int, kw: int, ci: int, filter_type: int, runs: int) -> np.ndarray:
    """The inverse of `pack_filters`: bytes in WRAM layout → [co, kh, kw, ci]; `filter_type` 0 is int8, 1 int16."""
    size = int(filter_bytes(co, kh, kw, ci, filter_type, runs))
    if data.nbytes < size:
        raise ValueError(f"{co} filters of {kh}x{kw}x{ci} take {size} bytes, {data.nbytes} are there")
    dtype = np.dtype("<i2") if filter_type else np.dtype(np.int8)
    unit = run_unit(int(filter_type))
    number, length = conv_runs(kh, kw, ci, int(runs))
    k = int(padded_k(kh, kw, ci, filter_type, runs))
    blocks = data.reshape(-1).view(np.uint8)[:size].view(dtype).reshape(-1, 2, k // unit, HALF_LANES, unit)
    panel = blocks.transpose(0, 1, 3, 2, 4).reshape(-1, number, k // number)
    return np.ascontiguousarray(panel[:co, :, :length]).reshape(co, kh, kw, ci)
