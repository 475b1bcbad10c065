"""The side file of large constants, and modules written and read whole."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import strategies  # noqa: F401 - declares the test ops

from compiler.errors import CompilerError
from compiler.ir.constants import blobs_of, load_blobs, read_module, save_blobs, side_file, write_module
from compiler.ir.core import Module, hash_of_array
from compiler.ir.equality import first_difference
from compiler.ir.types import DType, QuantType

DTYPES = [d.numpy for d in DType]


def random_array(dtype: np.dtype, shape: tuple[int, ...] = (5, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, shape).astype(dtype)


def module_of(*arrays: np.ndarray) -> Module:
    module = Module({"source": "net.onnx"})
    for array in arrays:
        module.add_constant("w", array)
    return module


def message_of(call: object, *arguments: object) -> str:
    with pytest.raises(CompilerError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value)


def test_every_element_type_is_read_back_with_its_shape_and_bits(tmp_path: Path) -> None:
    module = module_of(*(random_array(d) for d in DTYPES))
    assert save_blobs(module, tmp_path / "m.safetensors") == len(DTYPES)
    blobs = load_blobs(tmp_path / "m.safetensors", check=True)
    assert blobs.keys() == blobs_of(module).keys()
    for key, array in blobs.items():
        assert hash_of_array(array) == key


def test_what_is_read_is_mapped_aligned_and_read_only(tmp_path: Path) -> None:
    module = module_of(random_array(np.dtype(np.int8), (33,)), random_array(np.dtype(np.float64)))
    save_blobs(module, tmp_path / "m.safetensors")
    for array in load_blobs(tmp_path / "m.safetensors").values():
        assert not array.flags.writeable and array.flags.aligned and not array.flags.owndata


def test_the_file_is_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    module = module_of(random_array(np.dtype(np.float32)), random_array(np.dtype(np.int16)))
    save_blobs(module, tmp_path / "m.safetensors")
    read = safetensors.load_file(tmp_path / "m.safetensors")
    assert {key: array.tolist() for key, array in read.items()} == {k: v.tolist() for k, v in blobs_of(module).items()}


def test_the_same_constants_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    arrays = [random_array(d) for d in DTYPES]
    save_blobs(module_of(*arrays), tmp_path / "a")
    save_blobs(module_of(*reversed(arrays)), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_equal_contents_are_stored_once_and_small_ones_not_at_all(tmp_path: Path) -> None:
    module = module_of(np.arange(100, dtype=np.float32), np.zeros(3, np.float32))
    module.add_constant("again", np.arange(100, dtype=np.float32))
    assert save_blobs(module, tmp_path / "m") == 1


def test_an_array_that_is_not_contiguous_is_stored_in_row_major_order(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(6, 10)[::2, ::-1].T
    save_blobs(module_of(array), tmp_path / "m")
    (read,) = load_blobs(tmp_path / "m", check=True).values()
    np.testing.assert_array_equal(read, array)


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_blobs(module_of(np.arange(100.0)), path)
    mapped = load_blobs(path)
    save_blobs(module_of(np.arange(200.0)), path)
    assert [len(a) for a in mapped.values()] == [100]
    assert os.listdir(tmp_path) == ["m.safetensors"]
    assert path.stat().st_mode & 0o400


def test_a_module_is_written_as_text_and_side_file(tmp_path: Path) -> None:
    module = module_of(random_array(np.dtype(ml_dtypes.bfloat16)))
    module.add_constant("s", np.ones(5, np.float32))
    module.add_constant("q", random_array(np.dtype(np.int8)), QuantType(DType.I8, -3, axis=0, params="s"))
    write_module(module, tmp_path / "m.mlu")
    assert sorted(os.listdir(tmp_path)) == ["m.mlu", "m.safetensors"]
    assert first_difference(module, read_module(tmp_path / "m.mlu")) is None


def test_an_inline_module_needs_no_side_file(tmp_path: Path) -> None:
    module = module_of(random_array(np.dtype(np.float32), (40, 40)))
    write_module(module, tmp_path / "m.mlu", inline=True)
    assert os.listdir(tmp_path) == ["m.mlu"]
    assert first_difference(module, read_module(tmp_path / "m.mlu")) is None


# -- faults ------------------------------------------------------------------------------------------------------------
def test_a_missing_side_file_says_where_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "m.mlu"
    write_module(module_of(np.arange(100.0)), path)
    side_file(path).unlink()
    message = message_of(read_module, path)
    assert "E320" in message and str(side_file(path)) in message and "--inline-constants" in message


def test_a_side_file_of_another_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.mlu"
    write_module(module_of(np.arange(100.0)), path)
    save_blobs(module_of(np.arange(101.0)), side_file(path))
    assert "not of one module" in message_of(read_module, path)


def test_a_changed_byte_of_the_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.mlu"
    write_module(module_of(np.arange(100.0)), path)
    raw = bytearray(side_file(path).read_bytes())
    raw[-5] ^= 1
    side_file(path).write_bytes(raw)
    assert "E321" in message_of(read_module, path)
    with pytest.raises(CompilerError, match="E321"):
        load_blobs(side_file(path), check=True)


@pytest.mark.parametrize("length", [0, 7, 60, -1])
def test_a_truncated_side_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.mlu"
    write_module(module_of(np.arange(100.0)), path)
    side_file(path).write_bytes(side_file(path).read_bytes()[:length])
    assert "not a whole safetensors file" in message_of(read_module, path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"{", b"\xff\xff", b'{"a": 1}', b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "not a whole safetensors file" in message_of(load_blobs, path)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    assert "E322" in message_of(read_module, tmp_path / "none.mlu")
    (tmp_path / "binary.mlu").write_bytes(b"\xff\xfe\x00")
    assert "is not IR text" in message_of(read_module, tmp_path / "binary.mlu")
    assert "E322" in message_of(write_module, Module(), tmp_path / "no folder" / "m.mlu")
    assert "name it .mlu" in message_of(write_module, Module(), tmp_path / "m.safetensors")


def test_faults_of_the_text_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.mlu").write_text("func @f() {\n  return %x\n}\n")
    assert f"{tmp_path / 'm.mlu'}:2:10" in message_of(read_module, tmp_path / "m.mlu")
