"""Laws of the instruction table, held against brute force over sets of bytes."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isa_strategies import any_instruction, programs, random_function

from targets.mlu220 import isa
from targets.mlu220.isa import Accesses, Columns


def byte_set(accesses: Accesses, k: int) -> set[tuple[int, int]]:
    """(space, byte) of everything access k touches."""
    loops = [range(n) for n in accesses.counts[k]]
    starts = {accesses.base[k] + sum(i * s for i, s in zip(at, accesses.strides[k], strict=True))
              for at in itertools.product(*loops)}  # fmt: skip
    return {(int(accesses.space[k]), int(start + b)) for start in starts for b in range(accesses.run[k])}


@st.composite
def small_accesses(draw, n=2):
    """A few small accesses in one memory, as written: loops of one and overlapping runs included."""
    small = st.integers(0, 12)
    return Accesses(
        row=np.arange(n), space=np.zeros(n, np.int64), base=np.array([draw(st.integers(0, 30)) for _ in range(n)]),
        run=np.array([draw(st.integers(1, 8)) for _ in range(n)]),
        counts=np.array([[draw(st.integers(1, 3)) for _ in range(3)] for _ in range(n)]),
        strides=np.array([[draw(small) for _ in range(3)] for _ in range(n)]), write=np.zeros(n, bool),
    )  # fmt: skip


@given(any_instruction())
def test_decoding_what_was_encoded_gives_the_same_instruction(instruction):
    row = instruction.encode()
    assert isa.decode(row) == instruction
    assert (isa.decode(row).encode() == row).all()


@given(any_instruction())
def test_fields_in_range_are_faulted_by_rules_only(instruction):
    for message in instruction.check():
        assert "is outside" not in message and "unused" not in message


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=31, max_size=31), st.sampled_from([*isa.INSTRUCTIONS, 0]))
def test_any_row_is_judged_without_a_crash(words, opcode):
    row = np.array([[opcode, *words]], np.int32)
    for fault in isa.faults(row, core=4):
        assert fault.row == 0 and fault.message


@given(st.data())
def test_one_word_out_of_range_is_named(data):
    spec = data.draw(st.sampled_from([s for s in isa.INSTRUCTIONS.values() if s is not isa.Barrier]))
    name, f = data.draw(st.sampled_from([(n, f) for n, f in spec.fields.items() if f.kind not in ("f32", "bits")]))
    row = np.zeros((1, 32), np.int64)
    row[0, 0] = spec.opcode
    for other in spec.fields.values():
        row[0, other.column] = other.low
    row[0, f.column] = data.draw(st.sampled_from([f.low - 1, f.high + 1 if f.high < 2**31 - 1 else f.low - 1]))
    assert any(fault.message.startswith(f"{name} = ") for fault in isa.faults(row))


@given(small_accesses())
def test_coalescing_touches_the_same_bytes(accesses):
    merged = isa.coalesce(accesses)
    for k in range(len(accesses)):
        assert byte_set(merged, k) == byte_set(accesses, k)


@given(small_accesses())
def test_accesses_called_disjoint_share_no_byte(accesses):
    a, b = accesses.take(np.array([0])), accesses.take(np.array([1]))
    if isa.disjoint(a, b)[0]:
        assert not byte_set(a, 0) & byte_set(b, 0)


@given(small_accesses(n=1))
def test_an_access_without_self_overlap_touches_each_byte_once(accesses):
    if isa.no_self_overlap(accesses)[0]:
        assert len(byte_set(accesses, 0)) == accesses.bytes[0]


def naive_conv_reads(c: isa.Conv) -> set[int]:
    """Bytes of src that the taps of a convolution touch, one by one."""
    size = int(isa.TYPE_SIZES[c.src_type])
    oh = (c.h - (c.kh - 1) * c.dilation_y - 1) // c.stride_y + 1
    ow = (c.w - (c.kw - 1) * c.dilation_x - 1) // c.stride_x + 1
    return {
        c.src + (oy * c.stride_y + ky * c.dilation_y) * c.src_row_pitch
        + (ox * c.stride_x + kx * c.dilation_x) * c.src_pixel_pitch + byte
        for oy in range(oh) for ky in range(c.kh) for ox in range(ow) for kx in range(c.kw)
        for byte in range(c.ci * size)
    }  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1))
def test_a_convolutions_footprint_covers_every_byte_its_taps_read(seed):
    rows = random_function(seed, length=3, kinds=["conv"]).function.programs[0]
    for row in rows[rows[:, 0] == isa.Conv.opcode]:
        instruction = isa.decode(row)
        source = isa.Conv.source(Columns(isa.Conv, row))
        covered = {byte for _, byte in byte_set(source, 0)}
        naive = naive_conv_reads(instruction)
        assert naive <= covered
        if instruction.kh == instruction.kw == 1:
            assert naive == covered


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_generated_programs_are_legal(made):
    function = made.function
    assert list(function.faults()) == []
    for k, program in enumerate(function.programs):
        assert isa.faults(program, k if k < function.cores else isa.MEMORY_CORE) == []


shapes = st.tuples(st.integers(1, 70), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))


@settings(deadline=None)
@given(shapes, st.sampled_from([np.int8, np.int16]), st.sampled_from(list(isa.Runs)), st.integers(0, 99))
def test_packing_filters_follows_the_written_layout(shape, dtype, runs, seed):
    co, kh, kw, ci = shape
    w = np.random.default_rng(seed).integers(-128, 128, shape).astype(dtype)
    unit = 4 // w.itemsize
    number, length = isa.conv_runs(kh, kw, ci, runs)
    padded = -(-length // unit) * unit
    packed = isa.pack_filters(w, runs)
    elements = packed.view(w.dtype.newbyteorder("<"))
    assert len(packed) == isa.filter_bytes(co, kh, kw, ci, dtype is np.int16, runs)
    flat = w.reshape(co, number, length)
    seen = 0
    for c, r, i in itertools.product(range(co), range(number), range(length)):
        k = r * padded + i
        groups = number * padded // unit
        place = (((c // 64 * 2 + c % 64 // 32) * groups + k // unit) * 32 + c % 32) * unit + k % unit
        assert elements[place] == flat[c, r, i]
        seen += int(elements[place] != 0)
    assert seen == np.count_nonzero(elements)
    assert (isa.unpack_filters(packed, *shape, int(dtype is np.int16), runs) == w).all()
