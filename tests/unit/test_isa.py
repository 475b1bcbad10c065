"""The instruction table: encoding, legality rules, footprints, queues, filters."""

from __future__ import annotations

import numpy as np
import pytest

from targets.mlu220 import isa
from targets.mlu220.isa import INPUT, NRAM, OUTPUT, SRAM, WORKSPACE, WRAM, Partial


def conv(**changes):
    """A legal 3x3 convolution of 16x16x64 to 14x14x64, with some fields changed."""
    values = dict(
        src=0, dst=0x20000, filters=0, ci=64, h=16, w=16, kh=3, kw=3, co=64, src_row_pitch=1024, src_pixel_pitch=64,
        dst_row_pitch=14 * 128, dst_pixel_pitch=128, src_type="I8", filter_type="I8", dst_type="F16",
    )  # fmt: skip
    return isa.Conv(**{**values, **changes})


def binary(**changes):
    values = dict(dst=0, a=1024, b=2048, count=64, dtype="F16", function="ADD")
    return isa.Binary(**{**values, **changes})


def copy(dst=(NRAM, 0), src=(INPUT, 0), run=64, **changes):
    return isa.Copy(dst=dst, src=src, run=run, **changes)


def faults(instruction):
    return list(instruction.check())


# -- encoding -------------------------------------------------------------------------------------------------------
def test_a_row_is_the_opcode_then_the_fields_in_declared_order():
    row = isa.Wait(queue="VECTOR", counter=7, value=3).encode()
    assert row.dtype == np.dtype("<i4") and row.shape == (32,)
    assert row.tolist() == [0x02, 2, 7, 3] + [0] * 28


def test_a_far_address_takes_two_words():
    row = copy(dst=(WORKSPACE, 0x80)).encode()
    assert row[:5].tolist() == [0x10, WORKSPACE, 0x80, INPUT, 0]
    assert isa.Copy.column("dst_space") == 1 and isa.Copy.column("dst") == 2


def test_decode_gives_back_the_instruction_with_typed_fields():
    instruction = isa.decode(conv(fix_position=-12).encode())
    assert isinstance(instruction, isa.Conv) and instruction == conv(fix_position=-12)
    assert instruction.fix_position == -12
    assert instruction.partial is Partial.NONE
    assert isa.decode(copy(dst=(OUTPUT + 2, 64)).encode()).dst == isa.Address(OUTPUT + 2, 64)


def test_a_float_immediate_is_stored_as_its_fp32_bits():
    instruction = binary(mode="CONST", constant=0.1)
    assert instruction.encode()[isa.Binary.column("constant")] == np.float32(0.1).view(np.int32)
    assert instruction.constant == np.float32(0.1)


def test_build_makes_many_rows_at_once():
    rows = isa.Copy.build(dst_space=NRAM, dst=np.arange(3) * 64, src_space=INPUT, src=0, run=64)
    assert [isa.decode(r) for r in rows] == [copy(dst=(NRAM, k * 64)) for k in range(3)]


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(TypeError, match="has no field 'cont'; did you mean 'count'"):
        binary(cont=3)


def test_a_missing_field_is_named():
    with pytest.raises(TypeError, match="needs field 'queue'"):
        isa.Signal(counter=1)


def test_a_value_that_fits_no_word_is_refused():
    with pytest.raises(OverflowError):
        conv(src=2**31)
    with pytest.raises(OverflowError):
        isa.Signal.build(queue=0, counter=2**40)


def test_an_unknown_opcode_does_not_decode():
    with pytest.raises(ValueError, match="0x7f"):
        isa.decode([0x7F] + [0] * 31)


def test_opcodes_and_mnemonics_are_unique_and_every_instruction_is_documented():
    assert len(isa.INSTRUCTIONS) == len(isa.BY_NAME)
    for spec in isa.INSTRUCTIONS.values():
        assert spec.__doc__ and spec.width <= isa.ROW_WORDS


# -- legality -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (conv(ci=0), "ci = 0 is outside 1 to 65535"),
        (conv(src_type="I8", filter_type="I16"), "i8 input with i16 filters does not exist"),
        (conv(kh=17), "kernel 17x3 does not fit the input 16x16"),
        (conv(dilation_y=8), "kernel 3x3 does not fit the input 16x16"),
        (conv(dilation_x=2), "runs ROW needs dilation_x = 1 and dense pixels (src_pixel_pitch = ci * element size)"),
        (conv(filters=32), "filters must be 64-byte aligned"),
        (conv(dst=0x20001), "dst and its pitches must be multiples of the element size"),
        (conv(dst_pixel_pitch=64), "destination overlaps itself: pitches are smaller than what lies inside them"),
        (conv(dst=64), "destination overlaps a source"),
        (conv(partial="FIRST", partial_sums=4), "partial_sums overlap the source"),
        (conv(partial="LAST", partial_sums=0x20000), "destination overlaps a source"),
        (conv(partial="LAST", partial_sums=0x40002), "partial_sums must be a multiple of the sum's size"),
        (conv(fix_position=127), "fix_position = 127 is outside -126 to 126"),
        (copy(dst=(INPUT, 0)), "writes to input0+0x0, which is read-only"),
        (copy(dst=(isa.CONSTANTS, 0)), "writes to constants+0x0, which is read-only"),
        (copy(dst=(WRAM, 0), src=(WRAM, 64)), "no copy from WRAM to WRAM"),
        (copy(dst=(9, 0)), "dst names no memory: space 9"),
        (
            copy(dst=(WRAM, 0), n2=2, dst_stride2=64, src_stride2=64),
            "a copy to or from WRAM is one dense run (n0 = n1 = n2 = 1)",
        ),
        (copy(dst=(NRAM, 0), src=(NRAM, 32)), "destination overlaps a source"),
        (copy(n1=2, dst_stride1=32), "destination overlaps itself: pitches are smaller than what lies inside them"),
        (binary(dst=1026), "destination must be exactly a source or apart from it"),
        (binary(mode="CYCLE"), "mode CYCLE needs a period of at least 1"),
        (binary(a=1025), "addresses and pitches must be multiples of the element size"),
        (
            isa.Convert(dst=0, src=512, count=8, src_type="I8", dst_type="I16"),
            "no conversion from I8 to I16",
        ),
        (
            isa.Convert(dst=0, src=0, rows=4, count=64, dst_pitch=64, src_pitch=0, src_type="F32", dst_type="I8"),
            "destination must be exactly a source or apart from it",
        ),
        (isa.Fill(dst=0, element_size=3, run=3), "element_size is 1, 2 or 4, not 3"),
        (isa.Fill(dst=0, element_size=1, run=3, value=256), "value 0x100 does not fit 1 bytes (unsigned)"),
        (isa.Barrier(mask=0), "mask = 0 is outside 1 to 31"),
        (
            isa.Transpose(dst=0, src=4096, rows=8, columns=4, element_size=2, src_pitch=8, dst_pitch=8),
            "destination overlaps itself: pitches are smaller than what lies inside them",
        ),
        (
            isa.ReshapeFilter(dst=32, src=0, co=8, ci=8, src_pitch=8, filter_type="I8"),
            "dst must be 64-byte aligned, as filters are",
        ),
        (
            isa.ReshapeFilter(dst=64, src=0, co=8, ci=8, src_pitch=9, filter_type="I16"),
            "src and src_pitch must be multiples of the element size",
        ),
    ],
)
def test_a_broken_rule_says_what_is_wrong(instruction, message):
    assert message in faults(instruction)


@pytest.mark.parametrize(
    "instruction",
    [
        conv(),
        conv(runs="TAP", dilation_x=2, dilation_y=2, dst_row_pitch=12 * 128),
        conv(partial="FIRST", partial_sums=0x10000, dst_pixel_pitch=0),
        binary(dst=1024),
        binary(dst=2048),
        binary(mode="CONST", constant=2.0, b=0),
        binary(rows=4, a_pitch=0, dst_pitch=128, b_pitch=128),
        copy(dst=(NRAM, 0), src=(NRAM, 64), run=32, n2=4, dst_stride2=128, src_stride2=128),
        copy(n0=2, n1=3, run=8, dst_stride0=8, dst_stride1=16),
        isa.Unary(dst=0, src=0, count=64, dtype="F32", function="EXP"),
        isa.Convert(dst=0, src=0, count=64, src_type="F16", dst_type="I16"),
        isa.Convert(dst=0, src=512, count=64, src_type="I32", dst_type="F32"),
    ],
)
def test_legal_instructions_have_no_faults(instruction):
    assert faults(instruction) == []


def test_unused_words_must_be_zero():
    row = copy().encode()
    row[31] = 5
    assert "unused and must be 0" in isa.faults(row[None])[0].message


def test_faults_of_a_program_name_their_rows_in_order():
    rows = isa.encode_program([copy(), conv(ci=0), binary(a=1025)])
    rows = np.concatenate([rows, np.zeros((1, 32), np.int32)])
    assert [(f.row, f.message) for f in isa.faults(rows)] == [
        (1, "ci = 0 is outside 1 to 65535"),
        (2, "addresses and pitches must be multiples of the element size"),
        (3, "no instruction has opcode 0x0"),
    ]


def test_the_memory_core_copies_between_sram_and_gdram_only():
    legal = [copy(dst=(SRAM, 0)), isa.Signal(queue="DMA", counter=0), isa.Barrier(mask=0b10001)]
    assert isa.faults(isa.encode_program(legal), isa.MEMORY_CORE) == []
    illegal = [copy(), conv(), isa.Signal(queue="MATRIX", counter=0), isa.Barrier(mask=0b1)]
    messages = [f.message for f in isa.faults(isa.encode_program(illegal), isa.MEMORY_CORE)]
    assert messages == [
        "the memory core reaches SRAM and GDRAM only", "the memory core has no conv",
        "the memory core has a DMA queue only", "barrier mask does not name its own core 4",
    ]  # fmt: skip


def test_work_beyond_2_to_the_40_is_refused_without_overflow():
    huge = copy(run=2**31 - 1, n0=2**24, n1=2**24, n2=2**24)
    assert "more than 2^40 elementary steps" in faults(huge)


# -- questions about programs -----------------------------------------------------------------------------------------
def test_every_instruction_stands_in_its_units_queue_and_barriers_in_all():
    rows = isa.encode_program(
        [copy(), conv(), binary(), isa.Wait(queue="MATRIX", counter=0, value=1), isa.Barrier(mask=1)]
    )
    assert isa.queue_of(rows).tolist() == [0, 1, 2, 1, isa.ALL_QUEUES]


def test_footprints_merge_dense_loops_and_keep_row_order():
    a = isa.footprints(isa.encode_program([binary(rows=4, dst_pitch=128, a_pitch=128, b_pitch=256), conv()]))
    assert a.row.tolist() == [0, 0, 0, 1, 1, 1]
    assert a.space.tolist() == [NRAM, NRAM, NRAM, NRAM, WRAM, NRAM]
    assert a.run.tolist() == [512, 128, 512, 16 * 16 * 64, 64 * 9 * 64, 14 * 14 * 128]
    assert a.counts[1].tolist() == [1, 1, 4] and a.strides[1].tolist() == [0, 0, 256]
    assert a.write.tolist() == [False, False, True, False, False, True]


def test_a_strided_1x1_convolution_reads_only_the_pixels_it_uses():
    strided = conv(kh=1, kw=1, stride_y=2, stride_x=2, dst_row_pitch=8 * 128)
    source = isa.footprints(strided.encode()[None]).take(np.array([0]))
    assert source.bytes.tolist() == [8 * 8 * 64]
    assert source.counts[0].tolist() == [1, 8, 8] and source.strides[0].tolist() == [0, 2048, 128]


@pytest.mark.parametrize(
    ("partial", "writes", "reads"), [("NONE", 1, 2), ("FIRST", 1, 2), ("MIDDLE", 1, 3), ("LAST", 1, 3)]
)
def test_partial_sums_are_read_and_written_as_the_chain_demands(partial, writes, reads):
    accesses = isa.footprints(conv(partial=partial, partial_sums=0x40000).encode()[None])
    assert (accesses.write.sum(), (~accesses.write).sum()) == (writes, reads)
    written = accesses.base[accesses.write].tolist()
    assert written == ([0x40000] if partial in ("FIRST", "MIDDLE") else [0x20000])


def test_partial_sums_are_eight_bytes_when_a_16_bit_type_is_in_play():
    wide = conv(partial="FIRST", src_type="I16", src_pixel_pitch=128, src_row_pitch=2048, partial_sums=0x40000)
    accesses = isa.footprints(wide.encode()[None])
    assert accesses.run[accesses.write].tolist() == [14 * 14 * 64 * 8]


def test_space_names_and_numbers_are_inverse():
    for space in [*range(5), INPUT, INPUT + 17, OUTPUT, OUTPUT + 255]:
        assert isa.space_number(isa.space_name(space)) == space
    assert isa.space_number("input256") is None
    assert isa.space_number("nvram") is None


def test_a_board_sized_program_is_checked_in_well_under_a_second():
    rows = np.tile(isa.encode_program([copy(), conv(), binary()]), (5000, 1))
    assert isa.faults(rows) == []
    assert len(isa.footprints(rows)) == 5000 * (2 + 3 + 3)


# -- filters --------------------------------------------------------------------------------------------------------
def test_filter_layout_is_64_lanes_in_two_halves_of_four_byte_groups():
    w = np.arange(70 * 8, dtype=np.int64).astype(np.int16).reshape(70, 1, 1, 8)
    packed = isa.pack_filters(w, isa.Runs.ROW).view("<i2").reshape(2, 2, 4, 32, 2)
    assert packed[0, 1, 2, 5].tolist() == w[37, 0, 0, 4:6].tolist()
    assert packed[1, 0, 0, 6].tolist() == [0, 0]


def test_rows_and_taps_pad_their_runs_differently():
    assert isa.padded_k(3, 3, 3, isa.Type.I8, isa.Runs.ROW) == 3 * 12
    assert isa.padded_k(3, 3, 3, isa.Type.I8, isa.Runs.TAP) == 9 * 4
    assert isa.filter_bytes(65, 3, 3, 3, isa.Type.I16, isa.Runs.TAP) == 128 * 36 * 2
    assert isa.filter_bytes(np.array([1, 64]), 1, 1, 4, 0, 0).tolist() == [256, 256]


def test_filters_of_other_types_or_ranks_are_refused():
    with pytest.raises(ValueError, match="float32"):
        isa.pack_filters(np.zeros((1, 1, 1, 1), np.float32), 0)
    with pytest.raises(ValueError, match="take 256 bytes, 255 are there"):
        isa.unpack_filters(np.zeros(255, np.uint8), 1, 1, 1, 4, 0, 0)
