"""Small programs for tests: short names for instructions, a correct double-buffered kernel, and a call of the check."""

from __future__ import annotations

import numpy as np

from targets.mlu220 import isa
from targets.mlu220.check import Proof, check_programs

NRAM, WRAM, SRAM = isa.NRAM, isa.WRAM, isa.SRAM
WORKSPACE, CONSTANTS, INPUT, OUTPUT = isa.WORKSPACE, isa.CONSTANTS, isa.INPUT, isa.OUTPUT
DMA, MATRIX, VECTOR = isa.Queue.DMA, isa.Queue.MATRIX, isa.Queue.VECTOR
EMPTY = np.zeros((0, isa.ROW_WORDS), np.int32)


def copy(dst: tuple[int, int], src: tuple[int, int], run: int, **values: int) -> isa.Copy:
    return isa.Copy(dst=isa.Address(*dst), src=isa.Address(*src), run=run, **values)


def signal(queue: isa.Queue, counter: int) -> isa.Signal:
    return isa.Signal(queue=queue, counter=counter)


def wait(queue: isa.Queue, counter: int, value: int) -> isa.Wait:
    return isa.Wait(queue=queue, counter=counter, value=value)


def barrier(mask: int) -> isa.Barrier:
    return isa.Barrier(mask=mask)


def relu(dst: int, src: int, count: int) -> isa.Unary:
    return isa.Unary(dst=dst, src=src, count=count, dtype="F32", function="RELU")


def program(*instructions: isa.Instruction) -> np.ndarray:
    return isa.encode_program(instructions)


def check(*cores: np.ndarray, memory_core: np.ndarray = EMPTY, **sizes) -> Proof:
    """Check one program per core; sizes are those of `check_programs` (inputs, outputs, workspace, constants)."""
    return check_programs([*cores, memory_core], cores=len(cores), **sizes)


def double_buffered(tiles: int, tile: int = 256, core: int = 0) -> list[isa.Instruction]:
    """output = relu(input) in `tiles` tiles of `tile` bytes through two NRAM buffers: while one is computed in place,
    the other is stored and loaded. Every wait is needed."""
    loaded, computed = 2 * core, 2 * core + 1
    start = core * tiles * tile
    body: list[isa.Instruction] = []
    for t in range(tiles):
        buffer = t % 2 * tile
        body += [
            copy((NRAM, buffer), (INPUT, start + t * tile), tile),
            signal(DMA, loaded),
            wait(VECTOR, loaded, t + 1),
            relu(buffer, buffer, tile // 4),
            signal(VECTOR, computed),
        ]
        if t > 0:
            previous = (t - 1) % 2 * tile
            body += [wait(DMA, computed, t), copy((OUTPUT, start + (t - 1) * tile), (NRAM, previous), tile)]
    last = (tiles - 1) % 2 * tile
    body += [wait(DMA, computed, tiles), copy((OUTPUT, start + (tiles - 1) * tile), (NRAM, last), tile)]
    return body
