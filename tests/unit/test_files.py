"""Files given by name: missing ones with their neighbours, ones of another kind with what they are good for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import compiler
from compiler.errors import CompilerError
from compiler.files import (
    BOARD,
    DATA,
    FORMATS,
    IR,
    LISTING,
    MODEL,
    OFFLINE,
    PASS_FILE,
    SCHEME,
    Wanted,
    check_file,
    fault_of,
    format_of,
    written_whole,
)
from compiler.frontend.load import FRONTENDS, IR_TEXT
from targets.mlu220.container import MAGIC

ALL = (MODEL, IR, OFFLINE, LISTING, DATA, SCHEME, BOARD, PASS_FILE)


def made(folder: Path, name: str, content: bytes = b"something else") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def told(path: Path, wanted: Wanted) -> tuple[str, str, str]:
    fault = fault_of(path, wanted)
    assert fault is not None and fault.where == str(path)
    return fault.code, fault.message, fault.help


def test_every_suffix_of_a_model_has_a_reader() -> None:
    assert set(MODEL.suffixes) == {*FRONTENDS, IR_TEXT}


def test_the_beginning_of_an_offline_model_is_known() -> None:
    found = format_of(MAGIC + bytes(100))
    assert found is not None and ".cambricon" in found.suffixes


def test_every_suffix_belongs_to_one_format() -> None:
    suffixes = [s for f in FORMATS for s in f.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("wanted", ALL, ids=lambda w: w.what)
def test_a_missing_file_is_told_with_its_neighbours(tmp_path: Path, wanted: Wanted) -> None:
    suffix = wanted.suffixes[0]
    made(tmp_path, "squeezenet" + suffix)
    made(tmp_path, "squeezenet.txt")
    code, message, help = told(tmp_path / f"sqeezenet{suffix}", wanted)
    assert (code, message) == (wanted.code, "no such file")
    assert help == f"did you mean '{tmp_path / 'squeezenet'}{suffix}'?"


def test_a_neighbour_of_another_kind_is_named_where_none_fits(tmp_path: Path) -> None:
    made(tmp_path, "network.tflite")
    assert "network.tflite" in told(tmp_path / "network.onnx", MODEL)[2]


def test_a_few_files_that_fit_are_named_though_none_is_similar(tmp_path: Path) -> None:
    made(tmp_path, "abc.onnx")
    assert told(tmp_path / "resnet.onnx", MODEL)[2] == "the folder holds abc.onnx"


def test_a_folder_that_is_missing_is_what_is_told(tmp_path: Path) -> None:
    assert told(tmp_path / "models" / "a.onnx", MODEL)[1] == f"no such file: there is no folder '{tmp_path / 'models'}'"


@pytest.mark.parametrize(
    ("name", "content", "what", "remedy"),
    [
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer", "git lfs pull"),
        ("m.onnx", b"\n\n<!DOCTYPE html><html>", "web page", "fetch the file itself"),
        ("m.pt", b"<html>", "web page", "fetch"),
        ("m.onnx", b"\x1c\0\0\0TFL3", "TensorFlow Lite", "tf2onnx.convert --tflite"),
        ("m.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite", "tf2onnx.convert --tflite"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "Keras", "tf2onnx"),
        ("m.pb", b"graph", "TensorFlow graph", "--saved-model"),
        ("m.jpg", b"\xff\xd8\xff\xe0", "image", "--calibrate"),
        ("m.npz", b"PK\x03\x04", "file of arrays", "--inputs"),
        ("m.cambricon", MAGIC, "offline model", "run, profile"),
        ("m.onnx", MAGIC, "offline model", "the one it was made of"),
        ("m.safetensors", b"\0" * 8, "weights", "torch.onnx.export"),
        ("m.txt", b"hello", ".txt", "known: .onnx"),
        ("model", b"hello", "no suffix", "known: .onnx"),
        ("m.onnx.gz", b"\x1f\x8b\x08", "packed", "unpack"),
    ],
)
def test_another_kind_of_file_says_what_it_is_and_what_to_do(tmp_path, name, content, what, remedy) -> None:
    code, message, help = told(made(tmp_path, name, content), MODEL)
    assert code == "E220" and what in message and remedy in help
    with pytest.raises(CompilerError, match="E220"):
        compiler.load(tmp_path / name)


@pytest.mark.parametrize("wanted", ALL, ids=lambda w: w.what)
def test_an_empty_file_is_empty_whatever_is_asked_for(tmp_path: Path, wanted: Wanted) -> None:
    assert told(made(tmp_path, "x" + wanted.suffixes[0], b""), wanted)[:2] == (wanted.code, "the file is empty")


def test_a_folder_names_what_it_holds_that_fits(tmp_path: Path) -> None:
    made(tmp_path, "a.onnx")
    made(tmp_path, "b.txt")
    code, message, help = told(tmp_path, MODEL)
    assert (code, message, help) == ("E201", "is a folder, not a model", f"give a file of it: {tmp_path / 'a.onnx'}")
    assert fault_of(tmp_path, DATA) is None


def test_a_saved_model_of_tensorflow_is_told_how_it_is_converted(tmp_path: Path) -> None:
    made(tmp_path, "saved_model.pb")
    code, message, help = told(tmp_path, MODEL)
    assert code == "E220" and "SavedModel" in message and f"--saved-model {tmp_path} " in help


def test_a_file_whose_content_is_not_known_is_left_to_its_reader(tmp_path: Path) -> None:
    for name, wanted in (("a.onnx", MODEL), ("a.npz", DATA), ("a.txt", SCHEME), ("a", OFFLINE), ("a.dump", IR)):
        assert fault_of(made(tmp_path, name), wanted) is None


def test_what_is_to_be_compiled_is_neither_ir_nor_data(tmp_path: Path) -> None:
    path = made(tmp_path, "a.onnx")
    for wanted in (IR, DATA, SCHEME, LISTING):
        assert told(path, wanted)[1] == f"is a model to be compiled, not {wanted.what}"


def test_a_pipe_is_not_read_from(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert fault_of(tmp_path / "pipe.toml", SCHEME) is None


def test_a_name_that_no_file_can_have_is_a_fault_too() -> None:
    with pytest.raises(CompilerError, match="E201"):
        check_file("a\0b.onnx", MODEL)
    with pytest.raises(CompilerError, match="E201"):
        check_file("a" * 5000 + ".onnx", MODEL)


# -- writing ---------------------------------------------------------------------------------------------------------
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = made(tmp_path, "x.bin", b"before")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"] and path.read_bytes() == b"before"
    with written_whole(path) as file:
        file.write(b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"] and path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == made(tmp_path, "y").stat().st_mode & 0o777


def test_what_cannot_be_written_is_told_with_its_code(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "x", tmp_path, made(tmp_path, "file") / "x"):
        with pytest.raises(CompilerError, match="E700"), written_whole(path, "E700") as file:
            file.write(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
