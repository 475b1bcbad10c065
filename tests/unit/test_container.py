"""The offline model's file: what goes in comes out, the same bytes each time; nothing damaged or hostile gets in."""

from __future__ import annotations

import hashlib
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from targets.mlu220 import container_json as js
from targets.mlu220 import isa
from targets.mlu220.container import (
    DebugEntry,
    DeviceFunction,
    HostFunction,
    IORecord,
    OfflineModel,
    Step,
    dtype_name,
    numpy_dtype,
)
from targets.mlu220.container_records import OPEN


def small_model() -> OfflineModel:
    """A subnet of three instructions, then a host function with two constants."""
    data = IORecord(
        name="data", shape=(1, 3, 4, 4), dtype="f32", device_shape=(1, 4, 4, 3), permutation=(0, 2, 3, 1),
        layout="NHWC", position=-7, scale=1.682119, preprocessing={"mean": [0.5, 1], "order": "rgb"},
    )  # fmt: skip
    middle, out = IORecord.dense("t", (1, 48), "f32"), IORecord.dense("out", (1, 48), "i64")
    program = isa.encode_program(
        [isa.Copy(dst=(0, 0), src=(isa.INPUT, 0), run=192), isa.Copy(dst=(isa.OUTPUT, 0), src=(0, 0), run=192)]
    )
    memory = isa.encode_program([isa.Barrier(mask=16)])
    device = DeviceFunction(
        name="subnet0", inputs=[data], outputs=[middle], programs=[program, memory], cores=1, workspace=64,
        debug=[DebugEntry(0, 0, 1, "c1", "Conv_0"), DebugEntry(1, 0, 0, "c1", "Conv_0")],
    )  # fmt: skip
    constants = {"w": np.arange(5, dtype=np.float64), "b": np.array([1, 2.5], ml_dtypes.bfloat16)}
    host = HostFunction(name="host0", text="func @host0 …\n", inputs=[middle], outputs=[out], constants=constants)
    return OfflineModel(
        board="m2", cores=1, steps=[Step("subnet0", ("data",), ("t",)), Step("host0", ("t",), ("out",))],
        functions=[device, host], inputs=[data], outputs=[out], constants=np.arange(100, dtype=np.uint8),
        metadata={"source": "x.onnx", "pipeline": "prepare", "numbers": [1, 2.5, None]},
    )  # fmt: skip


DATA = small_model().to_bytes()


def refused(data: bytes) -> str:
    """The rendered fault of bytes that must not load."""
    with pytest.raises(CompilerError) as caught:
        OfflineModel.from_bytes(data, "m.cambricon")
    assert all(d.code.startswith("E70") and d.where for d in caught.value.diagnostics)
    return str(caught.value)


def resealed(change) -> bytes:
    """The file with sections changed by `change(kind, index, bytes)` and all checksums made right again."""
    count = struct.unpack_from("<I", DATA, 12)[0]
    sections = []
    for k in range(count):
        kind, index, offset, size, _, _ = struct.unpack_from("<4sIQQ32sQ", DATA, 64 + 64 * k)
        sections += change(kind.decode(), index, DATA[offset : offset + size])
    return sealed(sections)


def sealed(sections, offsets=None) -> bytes:
    offset, table, body = 64 + 64 * len(sections), b"", b""
    for k, (kind, index, data) in enumerate(sections):
        place = offset if offsets is None else offsets[k]
        table += struct.pack("<4sIQQ32sQ", kind.encode(), index, place, len(data), hashlib.sha256(data).digest(), 0)
        padded = data + bytes(-len(data) % 64)
        body += padded
        offset += len(padded)
    head = DATA[:8] + struct.pack("<IIQQ", 1, len(sections), offset, 0)
    return head + hashlib.sha256(head + table).digest() + table + body


def with_head(edit) -> bytes:
    """The file with its HEAD section's JSON edited and everything sealed again."""

    def change(kind, index, data):
        if kind == "HEAD":
            value = js.parse(data)
            edit(value)
            data = js.dump(value)
        return [(kind, index, data)]

    return resealed(change)


# -- round trip -----------------------------------------------------------------------------------------------------
def test_what_is_saved_is_loaded(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.cambricon")
    loaded = OfflineModel.load(tmp_path / "m.cambricon")
    assert (loaded.board, loaded.cores, loaded.rounding) == ("m2", 1, "nearest-even")
    assert loaded.steps == model.steps and loaded.metadata == model.metadata
    assert loaded.inputs == model.inputs and loaded.outputs == model.outputs
    assert (loaded.constants == model.constants).all()
    device, host = loaded.function("subnet0"), loaded.function("host0")
    assert isinstance(device, DeviceFunction) and isinstance(host, HostFunction)
    original = model.device_functions[0]
    assert all((a == b).all() for a, b in zip(device.programs, original.programs, strict=True))
    assert device.debug == original.debug and device.workspace == 64
    assert host.text == model.host_functions[0].text
    assert host.constants["b"].dtype == ml_dtypes.bfloat16 and host.constants["b"].tolist() == [1, 2.5]


def test_the_same_model_gives_the_same_bytes():
    assert small_model().to_bytes() == DATA
    assert OfflineModel.from_bytes(DATA).to_bytes() == DATA


def test_constants_are_aligned_and_stay_mapped(tmp_path):
    small_model().save(tmp_path / "m.cambricon")
    constants = OfflineModel.load(tmp_path / "m.cambricon").constants
    assert not constants.flags.owndata and not constants.flags.writeable
    assert constants.ctypes.data % 64 == 0


def test_programs_are_private_copies_because_a_mapping_could_change_after_the_check():
    data = bytearray(DATA)
    model = OfflineModel.from_bytes(data)
    data[:] = bytes(len(data))
    assert model.device_functions[0].programs[0][0, 0] == isa.Copy.opcode


def test_the_twins_stand_beside_the_file_and_nothing_else_does(tmp_path):
    small_model().save(tmp_path / "m.cambricon")
    assert sorted(os.listdir(tmp_path)) == ["m.cambricon", "m.cambricon_twins"]
    assert (tmp_path / "m.cambricon_twins").read_text().startswith('This is the Twins File of "m.cambricon".')


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.cambricon"
    small_model().save(path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CompilerError, match="No space left"):
        small_model().save(path)
    assert path.read_bytes() == DATA
    assert sorted(os.listdir(tmp_path)) == ["m.cambricon", "m.cambricon_twins"]


@pytest.mark.parametrize("name", ["i1", "i8", "u16", "i64", "f16", "bf16", "f64"])
def test_type_names_and_numpy_types_are_inverse(name):
    assert dtype_name(numpy_dtype(name)) == name


def test_numpy_numbers_in_records_and_metadata_are_saved_as_plain_ones():
    model = small_model()
    model.metadata = {"loss": np.float32(0.5), "shape": (np.int64(3),)}
    assert OfflineModel.from_bytes(model.to_bytes()).metadata == {"loss": 0.5, "shape": [3]}


OPEN_RECORD = IORecord.dense("open", (OPEN, 3), "f32")


# -- models that do not hold together --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: setattr(m, "cores", 5), "5 cores"),
        (lambda m: setattr(m, "rounding", "up"), "rounding 'up'"),
        (lambda m: setattr(m, "steps", m.steps[1:]), "reads 't' before anything has made it"),
        (lambda m: m.steps.append(Step("subnet9", (), ())), "calls 'subnet9', which does not exist"),
        (lambda m: m.steps.append(m.steps[0]), "value 't' is made twice"),
        (lambda m: setattr(m, "outputs", [IORecord.dense("nope", (1,), "f32")]), "no step makes output 'nope'"),
        (lambda m: setattr(m.functions[0], "workspace", -1), "a workspace of -1 bytes"),
        (lambda m: m.functions[0].programs.pop(), "1 programs for 1 cores and the memory core"),
        (lambda m: m.functions[0].debug.append(DebugEntry(0, 1, 7, "x")), "names instructions that do not exist"),
        (lambda m: setattr(m.functions[1], "name", "subnet0"), "two functions have the same name"),
        (lambda m: m.inputs.append(OPEN_RECORD) or m.outputs.append(OPEN_RECORD), "is open"),
    ],
)
def test_an_unsound_model_is_not_written(edit, message):
    model = small_model()
    edit(model)
    with pytest.raises(ValueError, match=message):
        model.to_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "f8"}, "unknown element type"),
        ({"shape": (1, 0)}, "is not one of at most"),
        ({"shape": (2**16, 2**16)}, "is not one of at most"),
        ({"permutation": (0, 0)}, "is not a permutation"),
        ({"device_shape": (3, 2)}, "is not the permuted shape"),
        ({"layout": "HWCN"}, "layout 'HWCN'"),
    ],
)
def test_a_record_that_contradicts_itself_is_faulted(changes, message):
    values = dict(name="x", shape=(2, 3), dtype="f32", device_shape=(2, 3), permutation=(0, 1))
    assert any(message in fault for fault in IORecord(**{**values, **changes}).faults())


# -- damaged files ---------------------------------------------------------------------------------------------------
@given(st.integers(0, len(DATA) * 8 - 1))
@settings(max_examples=300)
def test_any_flipped_bit_is_noticed(bit):
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    refused(bytes(data))


@given(st.integers(0, len(DATA) - 1))
def test_any_truncation_is_noticed(length):
    assert "E70" in refused(DATA[:length])


@given(st.binary(min_size=1, max_size=200))
def test_bytes_after_the_end_are_noticed(tail):
    assert "should have" in refused(DATA + tail)


@given(st.binary(max_size=400))
def test_noise_is_refused(data):
    refused(data)
    refused(DATA[:8] + data)


def test_a_damaged_section_is_named():
    data = bytearray(DATA)
    data[data.index(b"func @host0")] ^= 1
    assert "section TEXT 1" in refused(bytes(data))


def test_a_later_format_version_is_named():
    text = refused(DATA[:8] + struct.pack("<I", 2) + DATA[12:])
    assert "E701" in text and "version 2" in text


def test_a_vendor_file_is_told_apart():
    assert "vendor files cannot be read" in refused(b"cambricon_offline" * 20)


def test_a_missing_or_empty_file_is_a_user_error(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for name, code in (("absent", "E700"), ("empty", "E700"), (".", "E700")):
        with pytest.raises(CompilerError, match=code):
            OfflineModel.load(tmp_path / name)


# -- hostile files: checksums right, content wrong -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("offset", "why"),
    [(0, "header"), (64, "table"), (2**63, "far away"), (2**64 - 64, "wraps"), (128 + 1, "not aligned")],
)
def test_a_section_anywhere_but_in_its_place_is_refused(offset, why):
    assert "E703" in refused(sealed([("HEAD", 0, b"{}")], [offset]))


def test_section_sizes_cannot_reach_past_the_file():
    data = bytearray(sealed([("HEAD", 0, b"{}")]))
    struct.pack_into("<Q", data, 64 + 16, 2**64 - 1)
    head_and_table = bytes(data[:32]) + bytes(data[64:128])
    data[32:64] = hashlib.sha256(head_and_table).digest()
    assert "E703" in refused(bytes(data))


def test_a_section_table_longer_than_the_file_is_refused():
    head = DATA[:8] + struct.pack("<IIQQ", 1, 2**32 - 1, 64, 0)
    assert "E703" in refused(head + hashlib.sha256(head).digest())


@pytest.mark.parametrize("kind", ["HEAD", "PROG", "TEXT", "DATA", "CNST", "DBUG"])
def test_a_missing_section_is_named(kind):
    text = refused(resealed(lambda k, i, data: [] if k == kind else [(k, i, data)]))
    assert f"section {kind}" in text


def test_sections_nobody_owns_or_that_come_twice_are_refused():
    assert "no function owns" in refused(
        resealed(lambda k, i, d: [(k, i, d), ("PROG", 7, b"")] if k == "CNST" else [(k, i, d)])
    )
    assert "there twice" in refused(resealed(lambda k, i, d: [(k, i, d)] * 2))
    assert "unknown kind" in refused(resealed(lambda k, i, d: [(k.lower(), i, d)]))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"[" * 100_000, b'{"a":NaN}', b"\xff", b"1" * 10_000, b'{"board":"m2"}'],
)
@pytest.mark.parametrize("kind", ["HEAD", "DBUG"])
def test_bad_json_is_refused(kind, text):
    assert f"section {kind} 0" in refused(resealed(lambda k, i, d: [(k, i, text if k == kind else d)]))


def test_a_number_beyond_all_floats_is_refused():
    file = resealed(lambda k, i, d: [(k, i, d.replace(b'"metadata":{', b'"metadata":{"big":1e999,'))])
    assert "1e999 is not a number" in refused(file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h.update(extra=1), "unknown entry 'extra'"),
        (lambda h: h.pop("board"), "has no entry 'board'"),
        (lambda h: h.update(cores=True), "is not a whole number"),
        (lambda h: h.update(cores=2**80), "is not a whole number"),
        (lambda h: h["functions"][0].update(kind="gpu"), "neither for the host nor for the device"),
        (lambda h: h["functions"][0].update(lengths=[3, 1]), "bytes for programs"),
        (lambda h: h["functions"][0].update(lengths=[4, -1]), "bytes for programs"),
        (lambda h: h["functions"][0].update(lengths=[3]), "1 programs for 1 cores"),
        (lambda h: h["functions"][0].update(lengths=[4, *[0] * 9]), "bytes for programs"),
        (lambda h: h["functions"][0].update(workspace=2**40), "a workspace of"),
        (lambda h: h["functions"][1]["constants"][0].update(offset=64), "is not where it must be"),
        (lambda h: h["functions"][1]["constants"][0].update(shape=[2**40, 2**40]), "is larger than memory"),
        (lambda h: h["functions"][1]["constants"][0].update(shape=[0, 2**61]), "is larger than memory"),
        (lambda h: h["functions"][1]["constants"][0].update(shape=[-5]), "has no such type or shape"),
        (lambda h: h["functions"][1]["constants"][0].update(dtype="object"), "has no such type or shape"),
        (lambda h: h["functions"][1]["constants"].pop(), "bytes that no constant owns"),
        (lambda h: h["inputs"][0].update(shape=[1, 3, 2**40, 4]), "is not one of at most"),
        (lambda h: h["inputs"][0].update(scale="big"), "is not a number"),
        (lambda h: h.update(steps=[]), "no step makes output"),
    ],
)
def test_a_head_that_lies_is_refused(edit, message):
    assert message in refused(with_head(edit))


@pytest.mark.parametrize("row", [[5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 9, 0], [0, 0, 0], [1, 0, 0, 0, 0, 0]])
def test_debug_entries_that_name_nothing_are_refused(row):
    table = js.dump({"strings": ["a"], "entries": [row]})
    assert "DBUG" in refused(resealed(lambda k, i, d: [(k, i, table if k == "DBUG" else d)]))
