"""What every kernel does with a result before it is stored: elementwise steps, each rounded as the instruction it
stands for, on 16 lanes in registers.

`steps` are known while a kernel is translated: tuples (kind, mode, operand type, rounded, swapped), so that a kernel
holds exactly the instructions of its run. Addresses and constants stand in the descriptor's table of steps. Operands
that repeat from pixel to pixel (cycles over the columns) are widened once per block of columns.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.language import I8, I16, I32, LANES, function
from compiler.native.memory import (
    BYTES,
    FLOATS,
    INTS,
    SHORTS,
    i32_at,
    i64_at,
    load,
    low_float,
    narrow,
    rounded,
    sign_extended,
    spread,
    store,
    store_first,
    to_floats,
    to_integers,
    widen,
)
from runtime.kernels import functions
from runtime.kernels.layout import (
    CONST,
    CONSTANT,
    CYCLE,
    FULL,
    NOTHING,
    OPERAND,
    OPERAND_BYTES,
    OPERAND_PIXEL,
    OPERAND_ROW,
    PERIOD,
    SCRATCH_OPERANDS,
    SIZES,
    STEP_WORDS,
    STEPS,
    TYPE_F16,
    TYPE_F32,
    TYPE_I8,
    TYPE_I16,
    TYPE_I32,
    UNARY_BASE,
)

ELEMENTS = {TYPE_I8: I8, TYPE_I16: I16, TYPE_I32: I32}
VECTORS = {TYPE_I8: BYTES, TYPE_I16: SHORTS, TYPE_I32: INTS}


def numbered(items):
    """For a loop over what is known."""
    return tuple(enumerate(items))


def is_binary(kind, mode, wanted):
    """Whether a step is a binary function whose operand is given in the mode `wanted`."""
    return kind < UNARY_BASE and mode == wanted


@function
def share(total, parts, part, unit):
    """Part `part` of `parts` of range(total), cut at multiples of `unit`: (first, end)."""
    units = (total + unit - 1) // unit
    return units * part // parts * unit, min(total, units * (part + 1) // parts * unit)


@function
def load_floats(kind, address):
    """16 elements of f16 or f32."""
    return widen(load(SHORTS, address)) if kind == TYPE_F16 else load(FLOATS, address)


@function
def load_lanes(kind, address, factor):
    """16 elements of any type; integers become x * factor."""
    if kind in (TYPE_F16, TYPE_F32):
        return load_floats(kind, address)
    value = load(VECTORS[kind], address)
    return to_floats(value if kind == TYPE_I32 else sign_extended(value, INTS)) * factor


@function
def store_lanes(target, x, address, factor, lanes):
    """Narrow to the type of `target` (type, half away) and store the lanes of a mask, or all where it is None."""
    kind, half_away = target
    if kind == TYPE_F16:
        store_first(narrow(x), address, lanes)
    elif kind == TYPE_F32:
        store_first(x, address, lanes)
    else:
        store_first(to_integers(x * factor, ELEMENTS[kind], half_away), address, lanes)


# -- operands ----------------------------------------------------------------------------------------------------------
@function
def step_operands(steps, arena, d):
    """Per step: the constant in all lanes, or (address, bytes of a row, of a pixel, period)."""
    found = ()
    for number, (kind, mode, _, _, _) in numbered(steps):
        t = i64_at(d[STEPS] + number * STEP_WORDS * 8)
        if kind >= UNARY_BASE or mode == CONST:
            found = (*found, spread(low_float(t[CONSTANT])))
        else:
            found = (*found, (arena + t[OPERAND], t[OPERAND_ROW], t[OPERAND_PIXEL], t[PERIOD]))
    return found


@function
def prepare_cycles(steps, operands, scratch, column, columns):
    """Widen the operands that repeat from pixel to pixel, for a block of columns."""
    for number, (kind, mode, operand_type, _, _) in numbered(steps):
        if is_binary(kind, mode, CYCLE):
            source, _, _, period = operands[number]
            out = scratch + SCRATCH_OPERANDS + number * OPERAND_BYTES
            prepare_cycle(operand_type, source, period, out, column, columns)


@function
def prepare_cycle(kind, source, period, out, column, columns):
    """out[i] = source[(column + i) % period]; what is written beyond a run is overwritten by the next one."""
    size = SIZES[kind]
    position, done = column % period, 0
    while done < columns:
        run = min(period - position, columns - done)
        for i in range(0, run, LANES):
            store(load_floats(kind, source + (position + i) * size), out + 4 * (done + i))
        done += run
        position = 0


@function
def pixel_operands(steps, operands, y, x, pixel, column):
    """Per step what belongs to a pixel: the address of its elements, or its one element in all lanes."""
    found = ()
    for number, (kind, mode, operand_type, _, _) in numbered(steps):
        if is_binary(kind, mode, FULL):
            base, row, step, _ = operands[number]
            found = (*found, base + y * row + x * step + column * SIZES[operand_type])
        elif kind < UNARY_BASE and mode not in (CYCLE, CONST):
            found = (*found, one_element(operand_type, operands[number][0] + pixel * SIZES[operand_type]))
        else:
            found = (*found, None)
    return found


@function
def one_element(kind, address):
    """One f16 or f32 in all lanes."""
    if kind == TYPE_F16:
        return widen(spread(load(I16, address), SHORTS))
    return spread(low_float(i32_at(address)[0]))


# -- steps -------------------------------------------------------------------------------------------------------------
@function
def apply_steps(steps, operands, places, scratch, offset, x):
    """x after all steps; `offset` is the lane's column within the block that was prepared."""
    for number, (kind, mode, operand_type, rounds, swapped) in numbered(steps):
        if kind >= UNARY_BASE and kind != NOTHING:
            x = unary(kind - UNARY_BASE, x, operands[number])
        elif kind != NOTHING:
            if mode == CONST:
                b = operands[number]
            elif mode == CYCLE:
                b = load(FLOATS, scratch + SCRATCH_OPERANDS + number * OPERAND_BYTES + 4 * offset)
            elif mode == FULL:
                b = load_floats(operand_type, places[number] + offset * SIZES[operand_type])
            else:
                b = places[number]
            x = functions.BINARY[kind](b, x) if swapped else functions.BINARY[kind](x, b)
        if rounds:
            x = rounded(x)
    return x


@function
def unary(number, x, parameter):
    if number == functions.LEAKY_RELU:
        return functions.leaky_relu(x, parameter)
    return functions.UNARY[number](x)
