"""Listings: readable, editable, and back to the same bytes; faults with line, column and help, several per run."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isa_strategies import RandomFunction, any_instruction, programs

from compiler.errors import CompilerError
from targets.mlu220 import isa
from targets.mlu220.assembler import Listing, assemble, disassemble, instruction_text
from targets.mlu220.assembler_parser import Line, parse_instruction
from targets.mlu220.container import DebugEntry, DeviceFunction, HostFunction, IORecord, OfflineModel, Step


def model_of(made: RandomFunction) -> OfflineModel:
    f = made.function
    step = Step("subnet0", tuple(r.name for r in f.inputs), tuple(r.name for r in f.outputs))
    return OfflineModel(
        board="m2", cores=f.cores, steps=[step], functions=[f], inputs=f.inputs, outputs=f.outputs,
        constants=made.constants,
    )  # fmt: skip


def small_model(debug: list[DebugEntry] | None = None, text: str = "func @host0\n  yield") -> OfflineModel:
    data, middle = IORecord.dense("data", (2, 8), "f32"), IORecord.dense("t", (2, 8), "f32")
    rows = isa.encode_program(
        [
            isa.Copy(dst=(isa.NRAM, 0), src=(isa.INPUT, 0), run=64),
            isa.Unary(dst=0, src=0, count=16, dtype="F32", function="RELU"),
            isa.Copy(dst=(isa.OUTPUT, 0), src=(isa.NRAM, 0), run=64),
        ]
    )
    device = DeviceFunction(
        name="subnet0", inputs=[data], outputs=[middle], programs=[rows, rows[:0]], cores=1, workspace=128,
        debug=[DebugEntry(0, 0, 1, "relu1", "Relu_0"), DebugEntry(0, 2, 2, "out", "")] if debug is None else debug,
    )  # fmt: skip
    out = IORecord(
        name="out", shape=(1, 2, 3, 4), dtype="f16", device_shape=(1, 3, 4, 2), permutation=(0, 2, 3, 1),
        layout="NHWC", position=-6, scale=1.682119, preprocessing={"mean": [1, 2.5]},
    )  # fmt: skip
    constants = {"big": np.arange(100.0), "half": np.array([[1, 2]], ml_dtypes.bfloat16), "none": np.zeros((0, 3))}
    host = HostFunction(name="host0", text=text, inputs=[middle], outputs=[out], constants=constants)
    return OfflineModel(
        board="m2", cores=1, rounding="half-away", functions=[device, host], inputs=[data], outputs=[out],
        steps=[Step("subnet0", ("data",), ("t",)), Step("host0", ("t",), ("out",))],
        constants=np.arange(5, dtype=np.uint8), metadata={"source": "a \"b\".onnx", "n": [1, None, True]},
    )  # fmt: skip


def round_trips(model: OfflineModel) -> bool:
    listing = disassemble(model)
    return assemble(listing.text, listing.blobs).to_bytes() == model.to_bytes()


def faults(text: str, blobs=None) -> list:
    with pytest.raises(CompilerError) as caught:
        assemble(text, blobs, "x.masm")
    return list(caught.value.diagnostics)


def changed(old: str, new: str) -> list:
    """Faults of the small model's listing with one piece replaced."""
    listing = disassemble(small_model())
    assert old in listing.text
    return faults(listing.text.replace(old, new, 1), listing.blobs)


# -- round trip -----------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_assembling_a_listing_gives_the_same_bytes(made):
    assert round_trips(model_of(made))


def test_host_functions_records_and_metadata_round_trip():
    assert round_trips(small_model())


@given(any_instruction())
def test_every_instruction_reads_back_from_its_line(instruction):
    text = instruction_text(instruction.encode())
    assert parse_instruction(Line(text)).tolist() == instruction.words


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=31, max_size=31), st.sampled_from([*isa.INSTRUCTIONS, 0]))
def test_even_illegal_rows_read_back(words, opcode):
    row = np.array([opcode, *words], np.int32)
    assert parse_instruction(Line(instruction_text(row))).tolist() == row.tolist()


@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from([s for s in isa.INSTRUCTIONS.values() if s.width > 1]))
def test_a_field_out_of_range_reads_back(word, spec):
    row = np.array([spec.opcode] + [0] * 31, np.int32)
    for column in range(1, spec.width):
        row[column] = word
    assert parse_instruction(Line(instruction_text(row))).tolist() == row.tolist()


@pytest.mark.parametrize(
    "debug",
    [
        [],
        [DebugEntry(0, 1, 1, "a", "x"), DebugEntry(0, 2, 2, "a", "x")],
        [DebugEntry(0, 0, 0, "a", "x")],
        [DebugEntry(0, 0, 2, "outer", "x"), DebugEntry(0, 1, 1, "inner", "y")],
        [DebugEntry(0, 2, 2, "late", ""), DebugEntry(0, 0, 0, "early", "")],
    ],
)
def test_any_debug_table_round_trips(debug):
    assert round_trips(small_model(debug))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_host_text_round_trips(text):
    assert round_trips(small_model(text=text))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_round_trips(name):
    model = small_model([DebugEntry(0, 0, 1, name, name)])
    model.metadata = {name: name}
    assert round_trips(model)


# -- what it looks like ---------------------------------------------------------------------------------------------
def test_a_listing_is_compact_and_says_where_instructions_come_from():
    assert disassemble(small_model()).text.splitlines()[9:23] == [
        "constants 5 hex:0001020304",
        'device "subnet0" workspace=128 {',
        '  input "data" f32 [2, 8]',
        '  output "t" f32 [2, 8]',
        "  core 0 {",
        '    op "relu1" at "Relu_0"  // 0 to 1',
        "      copy dst=nram+0x0 src=input0+0x0 run=64",
        "      unary dst=0x0 src=0x0 count=16 dtype=F32 function=RELU",
        '    op "out" at ""  // 2 to 2',
        "      copy dst=output0+0x0 src=nram+0x0 run=64",
        "  }",
        "  memory {",
        "  }",
        "}",
    ]


def test_fields_at_their_defaults_are_left_out_and_floats_stay_short():
    row = isa.Binary(dst=0, a=0, count=8, dtype="F16", function="MUL", mode="CONST", constant=0.1).encode()
    assert instruction_text(row) == "binary dst=0x0 a=0x0 count=8 dtype=F16 function=MUL mode=CONST constant=0.1"


def test_a_nan_keeps_its_bits():
    row = isa.Unary(dst=0, src=0, count=8, dtype="F32", function="LEAKY_RELU").encode()
    row[isa.Unary.column("parameter")] = 0x7FC00123
    assert instruction_text(row).endswith("parameter=0x7fc00123")


def test_an_opcode_nobody_knows_is_printed_raw():
    assert instruction_text(np.array([0x77, 5] + [0] * 30, np.int32)) == "raw 0x77 0x5"


def test_long_blobs_stand_by_their_hash_and_travel_beside_the_text(tmp_path):
    listing = disassemble(small_model())
    (name,) = listing.blobs
    assert f"800 sha256:{name}" in listing.text
    listing.save(tmp_path / "m.masm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.masm", "m.masm.safetensors"]
    assert Listing.load(tmp_path / "m.masm") == listing


def test_without_limit_everything_is_in_the_text():
    listing = disassemble(small_model(), inline=1 << 20)
    assert listing.blobs == {}
    assert assemble(listing.text).to_bytes() == small_model().to_bytes()


def test_editing_by_hand_moves_the_debug_table_along():
    listing = disassemble(small_model())
    line = "      unary dst=0x0 src=0x0 count=16 dtype=F32 function=RELU\n"
    text = listing.text.replace(line, line + line.replace("RELU", "ABS"))
    function = assemble(text, listing.blobs).device_functions[0]
    assert len(function.programs[0]) == 4
    assert [(e.first, e.last) for e in function.debug] == [(0, 2), (3, 3)]


# -- faults ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "code", "message", "help"),
    [
        ("unary dst", "unery dst", "E751", "no instruction is called 'unery'", "did you mean 'unary'"),
        ("count=16", "cuont=16", "E751", "'cuont' means nothing here", "did you mean 'count'"),
        ("function=RELU", "function=RELUX", "E751", "function cannot be 'RELUX'", "did you mean 'RELU'"),
        ("src=input0", "src=inptu0", "E751", "no memory is called 'inptu0'", "did you mean 'input0'"),
        ("src=input0+0x0", "src=input0", "E752", "src is a memory and an offset", ""),
        ("count=16", "count=many", "E752", "count is a whole number, not 'many'", ""),
        ("count=16", "count=4294967296", "E752", "does not fit a 32-bit word", ""),
        ("count=16 ", "", "E752", "unary needs count", ""),
        ("count=16", "count=16 count=16", "E750", "'count' is given twice", ""),
        ("count=16", "count", "E750", "expected '='", ""),
        ("board ", "bored ", "E751", "'bored' means nothing here", "did you mean 'board'"),
        ('board "m2"', "board m2", "E750", "expected the board's name in quotation marks", ""),
        ("cores 1", "cores 9", "E752", "a whole number from 1 to 4", ""),
        ("f32 [2, 8]", "f23 [2, 8]", "E751", "no element type is called 'f23'", "'f32'"),
        ("f32 [2, 8]", "f32 [2, true]", "E752", "a shape is a list of whole numbers", ""),
        ("hex:0001", "hex:00", "E752", "expected hex: and 10 digits", ""),
        ("workspace=128 {", "workspace=128", "E750", "expected '{'", ""),
        ("core 0", "core 1", "E750", "cores stand in order", ""),
        ("mluc listing 1", "mluc listing 2", "E751", "'mluc' means nothing here", ""),
        ("cores 1\n", "", "E754", "the listing names no cores", ""),
        ('-> ["t"]', '-> ["u"]', "E754", "reads 't' before anything has made it", ""),
    ],
)  # fmt: skip
def test_a_fault_names_code_place_and_cure(old, new, code, message, help):
    first = changed(old, new)[0]
    assert first.code == code
    assert message in first.message and help in first.help
    assert first.where.startswith("x.masm")


def test_line_column_and_caret_point_at_the_word():
    (fault,) = changed("count=16", "cuont=16")
    assert fault.where == "x.masm:17:29"
    line, caret = fault.excerpt.splitlines()
    assert line[caret.index("^") :].startswith("cuont")


def test_several_faults_are_reported_in_one_run():
    listing = disassemble(small_model())
    text = listing.text.replace("copy dst", "cpoy dst").replace("function=RELU", "function=RULE")
    assert [f.where.split(":")[1] for f in faults(text, listing.blobs)] == ["16", "17", "19"]


def test_a_fault_in_a_blocks_first_line_is_not_followed_by_nonsense():
    (fault,) = changed('device "subnet0"', 'devcie "subnet0"')
    assert fault.help == "did you mean 'device'?"


def test_a_block_that_is_never_closed_is_named():
    listing = disassemble(small_model())
    cut = listing.text[: listing.text.index("  memory")]
    assert "never closed" in faults(cut, listing.blobs)[0].message


def test_a_blob_that_is_missing_or_wrong_is_named():
    listing = disassemble(small_model())
    (name,) = listing.blobs
    assert "is not there" in faults(listing.text)[0].message
    assert "is not what its hash says" in faults(listing.text, {name: bytes(800)})[0].message


def test_an_absent_listing_is_a_user_error(tmp_path):
    with pytest.raises(CompilerError, match="E700"):
        Listing.load(tmp_path / "absent.masm")


def test_a_damaged_side_file_is_a_user_error(tmp_path):
    disassemble(small_model()).save(tmp_path / "m.masm")
    (tmp_path / "m.masm.safetensors").write_bytes(b"noise")
    with pytest.raises(CompilerError, match="cannot read the constants"):
        Listing.load(tmp_path / "m.masm")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mangled_listing_never_crashes_the_assembler(data):
    listing = disassemble(small_model())
    at = data.draw(st.integers(0, len(listing.text) - 1))
    end = data.draw(st.integers(at, min(at + 12, len(listing.text))))
    text = listing.text[:at] + data.draw(st.text(max_size=5)) + listing.text[end:]
    try:
        assemble(text, listing.blobs)
    except CompilerError as fault:
        assert all(d.code.startswith("E75") for d in fault.diagnostics)
