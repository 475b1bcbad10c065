"""Weights are read from where they lie, once, and from nowhere a model has no business to read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import CompilerError
from compiler.frontend.load import load
from compiler.frontend.onnx.storage import slim_model

from .onnx_graphs import agree, model, node, random, write

SHAPE = (64, 64)


def product(weights: np.ndarray) -> onnx.ModelProto:
    return model(node("MatMul", ["x", "w"], ["y"]), {"x": (1, 64)}, constants={"w": weights})


def outside(location: str, **entries: str) -> onnx.ModelProto:
    """A model whose weight is said to be in another file."""
    proto = product(random(*SHAPE))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return proto


def refusal(proto: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(CompilerError) as caught:
        load(write(proto, folder))
    assert {d.code for d in caught.value.diagnostics} <= {"E202", "E216"}
    return str(caught.value)


# -- weights of the model file -----------------------------------------------------------------------------------------
def test_a_slim_model_is_small_and_says_where_its_weights_are(tmp_path: Path) -> None:
    path = write(product(random(*SHAPE)), tmp_path)
    slim = slim_model(path)
    assert len(slim) < 500
    tensor = onnx.ModelProto.FromString(slim).graph.initializer[0]
    entries = {e.key: e.value for e in tensor.external_data}
    assert entries["location"] == "model.onnx"
    raw = path.read_bytes()[int(entries["offset"]) :][: int(entries["length"])]
    np.testing.assert_array_equal(np.frombuffer(raw, np.float32).reshape(SHAPE), random(*SHAPE))


def test_a_small_model_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(product(random(4, 4)), tmp_path)
    assert slim_model(path) == path.read_bytes()


def test_weights_in_constant_nodes_are_found_too(tmp_path: Path) -> None:
    constant = node("Constant", [], ["w"], value=numpy_helper.from_array(random(*SHAPE)))
    proto = model([constant, node("MatMul", ["x", "w"], ["y"])], {"x": (1, 64)})
    assert len(slim_model(write(proto, tmp_path))) < 500
    agree(proto, [random(1, 64)], tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint16, np.int64, np.bool_])
def test_every_type_of_weight_is_read_to_the_bit(dtype: type, tmp_path: Path) -> None:
    array = (random(100, 100) * 100).astype(dtype)
    proto = model(node("Identity", ["w"], ["y"]), {}, constants={"w": array})
    module = load(write(proto, tmp_path))
    (output,) = module.main.outputs
    np.testing.assert_array_equal(output.data, array.astype(np.float32) if dtype is np.float16 else array)


def test_halves_of_brains_are_read_as_f32(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, SHAPE, random(*SHAPE).astype(np.float32).reshape(-1))
    raw = onnx.TensorProto()
    raw.CopyFrom(tensor)
    proto = product(random(*SHAPE))
    proto.graph.initializer[0].CopyFrom(raw)
    module = load(write(proto, tmp_path))
    np.testing.assert_allclose(module.constants["w"].data, random(*SHAPE), rtol=2**-8)


def test_a_model_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    write(product(random(*SHAPE)), tmp_path / "blobs", "8a7f")
    (tmp_path / "model.onnx").symlink_to(tmp_path / "blobs" / "8a7f")
    np.testing.assert_array_equal(load(tmp_path / "model.onnx").constants["w"].data, random(*SHAPE))


def test_weights_given_twice_are_left_to_the_parser(tmp_path: Path) -> None:
    path = write(product(random(*SHAPE)), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content + content)  # messages one after the other are merged
    assert slim_model(path)
    with pytest.raises(CompilerError):
        load(path)


@pytest.mark.parametrize("cut", [1, 100, 9000, 16000])
def test_a_truncated_model_is_refused(cut: int, tmp_path: Path) -> None:
    path = write(product(random(*SHAPE)), tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CompilerError, match="E201"):
        load(path)


def test_a_weight_of_more_bytes_than_its_shape_has_is_damaged(tmp_path: Path) -> None:
    proto = product(random(*SHAPE))
    proto.graph.initializer[0].dims[0] -= 1
    with pytest.raises(CompilerError, match="E216"):
        load(write(proto, tmp_path))


# -- weights of other files --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("location", [
    "../secret.bin", "/etc/passwd", "../../etc/passwd", "a/../../secret.bin", "", ".", "..", "..\\secret.bin", "a\0b",
])  # fmt: skip
def test_files_outside_the_model_s_folder_are_not_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64 * 64 * 4))
    folder = tmp_path / "models"
    folder.mkdir()
    assert "external data of tensor 'w'" in refusal(outside(location), folder)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64 * 64 * 4))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "sub").symlink_to(tmp_path)
    assert "link" in refusal(outside("w.bin"), folder)
    assert "link" in refusal(outside("sub/secret.bin"), folder)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    assert "no ordinary file" in refusal(outside("w.bin"), tmp_path)


def test_a_folder_below_the_model_s_is_fine(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"xxxx" + random(*SHAPE).tobytes())
    module = load(write(outside("weights/w.bin", offset="4"), tmp_path))
    np.testing.assert_array_equal(module.constants["w"].data, random(*SHAPE))


@pytest.mark.parametrize("entries", [
    {"offset": "1"}, {"offset": "-4"}, {"length": "12"}, {"length": "99999"}, {"offset": "many"}, {"length": "-1"},
    {"offset": str(2**62)},
], ids=str)  # fmt: skip
def test_places_that_do_not_hold_the_weight_are_refused(entries: dict, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(random(*SHAPE).tobytes())
    refusal(outside("w.bin", **entries), tmp_path)


def test_a_weight_declared_larger_than_its_file_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    proto = outside("w.bin")
    proto.graph.initializer[0].dims[:] = [2**31, 2**31]
    assert "are needed" in refusal(proto, tmp_path)
