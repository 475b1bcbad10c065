"""The restricted unpickler: what TorchScript writes is read; everything else is refused by name and nothing runs."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.frontend.torchscript.archive import read_archive
from compiler.frontend.torchscript.pickled import Device, Object, StoredTensor, walk
from compiler.frontend.torchscript.unpickle import read_pickle
from tests.growth import LINEAR, exponent
from tests.torchscript_archives import Instance, Pickler, QTensor, forward, glob, members, zipped


def read(data: bytes, storages: dict[str, bytes] | None = None) -> Any:
    files = members(forward("return x"), data) | (storages or {})
    return read_pickle(read_archive(zipped(files), "net.pt"), "data.pkl", "data/")


def read_value(value: Any) -> Any:
    pickler = Pickler()
    data = pickler.pickle(value)
    return read(data, {f"data/{k}": s for k, s in enumerate(pickler.storages)})


def refused(data: bytes, message: str, storages: dict[str, bytes] | None = None) -> str:
    with pytest.raises(CompilerError, match=message) as caught:
        read(data, storages)
    return str(caught.value)


# -- what is read ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value",
    [None, True, 0, -5, 2**40, 1.5, float("inf"), "ä text", [], [1, [2]], (), (1,), (1, 2, 3, 4), {"a": 1}, {1: "b"}],
)
def test_plain_values_come_back(value: Any) -> None:
    assert read_value(value) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_python_are_read_whatever_their_protocol(protocol: int) -> None:
    value = {"a": [1, 300, 70000, -2], "b": ("x", None, True, 2.5), "same": ["x", "x"]}
    assert read(pickle.dumps(value, protocol)) == value


def test_objects_are_bags_of_attributes() -> None:
    found = read_value(Instance("a.b.Net", {"layer": Instance("L", {"n": 3})}))
    assert isinstance(found, Object) and found.class_name == "__torch__.a.b.Net"
    assert found.attributes["layer"].attributes == {"n": 3}


def test_tensors_are_views_of_their_storage() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = read_value({"w": array})["w"]
    assert isinstance(found, StoredTensor) and found.element.name == "float32"
    np.testing.assert_array_equal(found.array(), array)
    assert not found.array().flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int16", "uint8", "bool"])
def test_element_types_come_back(dtype: str) -> None:
    assert read_value(np.ones(3, dtype)).array().dtype == np.dtype(dtype)


def test_quantised_tensors_keep_scales_and_zero_points() -> None:
    found = read_value(QTensor(np.array([1, 2], np.uint8), 0.5, 3))
    assert found.quantiser == ("per_tensor_affine", 0.5, 3)
    found = read_value(QTensor(np.ones((2, 2), np.int8), np.array([0.5, 2.0]), np.zeros(2, np.int64), 0))
    assert found.quantiser[0] == "per_channel_affine" and found.quantiser[3] == 0
    np.testing.assert_array_equal(found.quantiser[1].array(), [0.5, 2.0])


def test_devices_and_tagged_lists_are_known() -> None:
    device = glob("torch", "device") + b"(" + Pickler().value("cpu") + b"tR"
    assert read(b"\x80\x02" + device + b".") == Device("cpu")
    tagged = glob("torch.jit._pickle", "build_intlist") + b"(" + Pickler().value([1, 2]) + b"tR"
    assert read(b"\x80\x02" + tagged + b".") == [1, 2]


def test_a_tensor_shared_by_two_attributes_is_one() -> None:
    tensor = Pickler()
    body = tensor.value(np.ones(2, np.float32))
    found = read(b"\x80\x02](" + body + b"q\x05h\x05e.", {"data/0": tensor.storages[0]})
    assert found[0] is found[1] and len(walk(found)) == 1


# -- what is refused ---------------------------------------------------------------------------------------------------
class Attack:
    """Pickles as a call, by Python's own pickler."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system|nt.system"), (eval, "eval"), (exec, "exec"), (open, "open"), (getattr, "getattr"),
     (subprocess.Popen, "Popen"), (__import__, "__import__")],
)  # fmt: skip
def test_calls_of_anything_else_are_refused_by_name_and_not_made(
    function: Any, name: str, protocol: int, tmp_path: Path
) -> None:
    witness = tmp_path / "ran"
    refused(pickle.dumps(Attack(function, f"touch {witness}"), protocol), name)
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["torch.load", "torch.hub.load", "torch._utils._import_dotted_name", "collections.defaultdict",
             "numpy.core.multiarray._reconstruct", "torch.jit._pickle.build_tensor_from_id", "builtins.list",
             "torch.FloatStorage.__init__"],
)  # fmt: skip
def test_globals_that_look_harmless_are_refused_too(name: str) -> None:
    module, _, last = name.rpartition(".")
    text = refused(b"\x80\x02" + glob(module, last) + b".", "names '")
    assert name in text and "not on the list" in text


def test_nested_calls_are_refused_at_the_innermost() -> None:
    inner = glob("os", "system") + b"(" + Pickler().value("id") + b"tR"
    refused(b"\x80\x02" + glob("collections", "OrderedDict") + b"(" + inner + b"tR.", "os.system")


def test_an_attack_in_a_constant_or_in_the_recorded_inputs_is_refused_too() -> None:
    for member in ("constants.pkl", "traced_inputs.pkl"):
        files = members(forward("return x"), {}) | {member: b"\x80\x02" + glob("os", "system") + b"."}
        from tests.torchscript_archives import load_bytes

        with pytest.raises(CompilerError, match=rf"{member}: names 'os\.system'"):
            load_bytes(zipped(files), {"x": (1,)})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (glob("collections", "OrderedDict") + b")\x81", "makes an object of 'collections.OrderedDict'"),
        (glob("__torch__", "M") + b")R", "cannot be called"),
        (glob("__torch__", "M") + b"K\x01\x85\x81", "makes an object"),
        (b"}}b", "adds to something that is no Object"),
        (glob("__torch__", "M") + b")\x81](K\x01eb](K\x01eb", "its state twice"),
        (glob("__torch__", "M") + b")\x81}K\x01Nsb", "has no name"),
        (b"}](e]s", "key that is neither"),
        (b"}(]Nu", "key that is neither"), (b"}(K\x01u", "key without a value"), (b"K\x01]e", "damaged|takes|adds"),
        (b"(", "where there is none"), (b"", "with 0 values"), (b"h\x07", "damaged"), (b"NN", "with 2 values"),
        (b"NQ", "persistent id"), (b"i" + b"os\nsystem\n", "opcode INST"), (b"\x82\x01", "opcode EXT1"),
        (b"P1\n", "opcode PERSID"), (b"2", "opcode DUP"), (b"\x97", "opcode NEXT_BUFFER"), (b"\xff", "byte"),
        (b"\x92", "opcode NEWOBJ_EX"), (b"o", "opcode OBJ"), (b"I1\n", "opcode INT"),
        (b"\x8a\xff" + b"\x01" * 255, "integer of 255 bytes"), (b"\x8b\xff\xff\xff\x7f", "opcode LONG4"),
        (b"B\xff\xff\xff\x7f", "opcode BINBYTES"), (b"X\xff\xff\xff\x7fabc", "ends too early"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc", "ends too early"), (b"X\x01\0\0\0\xff", "damaged"),
    ],
)  # fmt: skip
def test_malformed_pickles_are_refused(body: bytes, message: str) -> None:
    refused(b"\x80\x02" + body + b".", message)


def tensor(offset: int = 0, shape: Any = (2,), strides: Any = (1,), count: int = 2, kind: str = "FloatStorage",
           key: str = "0") -> bytes:  # fmt: skip
    p = Pickler()
    storage = b"((" + p.value("storage") + glob("torch", kind) + p.value(key) + p.value("cpu") + p.value(count) + b"tQ"
    layout = b"".join(p.value(v) for v in (offset, shape, strides))
    return b"\x80\x02" + glob("torch._utils", "_rebuild_tensor_v2") + storage + layout + b"\x89NtR."


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (tensor(count=1000), "has 8 bytes where 4000"), (tensor(offset=1), "past the end"),
        (tensor(shape=(2, 2), strides=(2, 1)), "past the end"), (tensor(shape=(1 << 40,), strides=(0,)), "too large"),
        (tensor(kind="ComplexFloatStorage"), "complex64"), (tensor(key="../0"), "has no 'data/../0'"),
    ],
)  # fmt: skip
def test_tensors_outside_of_their_storage_are_refused_when_they_are_read(pickled: bytes, message: str) -> None:
    found = read(pickled, {"data/0": bytes(8)})
    with pytest.raises(Exception, match=message):
        found.array()


@pytest.mark.parametrize(
    "pickled", [tensor(offset=-1), tensor(shape=(-2,)), tensor(strides=(-1,)), tensor(shape=(2, 2)), tensor(shape="a"),
                tensor(shape=(True,)), tensor(kind="QInt8Storage"), tensor(shape=(1,) * 40, strides=(1,) * 40),
                tensor(count=-1)],
)  # fmt: skip
def test_tensors_that_cannot_be_are_refused_at_once(pickled: bytes) -> None:
    refused(pickled, "tensor|storage", {"data/0": bytes(8)})


# -- bounds ------------------------------------------------------------------------------------------------------------
def test_nested_and_shared_structures_take_time_linear_in_their_bytes() -> None:
    """Ten thousand levels of lists, each twice in the next: the billion laughs, as a pickle."""
    def reading(count: int) -> Callable[[], list[Any]]:
        levels = b"".join(b"h" + bytes([k % 2]) + b"h" + bytes([k % 2]) + b"\x86q" + bytes([(k + 1) % 2]) + b"0"
                          for k in range(count))  # fmt: skip
        return lambda: walk(read(b"\x80\x02Nq\x000" + levels + b"h\x00."))

    assert len(reading(10_000)()) == 0
    assert exponent(reading, 2_500, 10_000) < LINEAR


def test_deep_nesting_is_no_recursion() -> None:
    deep = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    assert len(read(deep)) == 1
    nested: Any = read(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")
    assert walk(nested) == []


def test_a_memo_of_far_apart_numbers_takes_no_memory() -> None:
    far = b"".join(b"r" + struct.pack("<I", (1 << 32) - 1 - k) for k in range(1000))
    assert read(b"\x80\x02N" + far + b".") is None
