"""`mluc compile`: what it writes, what it prints, and every mistake one can make with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compiler.pass_manager import PIPELINES
from targets.mlu220.container import OfflineModel
from tests.command import Command, convolution, images, write_model


def test_a_model_and_calibration_data_give_an_offline_model_and_its_twins(command: Command, model_file, calibration):
    result = command("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration)
    assert result.code == 0
    assert result.out.startswith("m.cambricon: ")
    assert "subnet0" in result.out
    assert OfflineModel.load("m.cambricon").inputs[0].name == "image"
    assert Path("m.cambricon_twins").is_file()


def test_the_same_input_gives_the_same_bytes(command: Command, model_file, calibration):
    for name in ("a.cambricon", "b.cambricon"):
        assert command("compile", model_file, "-o", name, "--calibrate", calibration).code == 0
    assert Path("a.cambricon").read_bytes() == Path("b.cambricon").read_bytes()


def test_a_saved_scheme_gives_the_same_file_as_calibrating(command: Command, model_file, calibration):
    command("compile", model_file, "-o", "a.cambricon", "--calibrate", calibration, "--save-scheme", "q.toml")
    assert command("compile", model_file, "-o", "b.cambricon", "--scheme", "q.toml").code == 0
    assert Path("a.cambricon").read_bytes() == Path("b.cambricon").read_bytes()


def test_a_batch_is_given_as_a_shape(command: Command, tmp_path, calibration):
    model = convolution(tmp_path / "free.onnx", ("n", 3, 8, 8))
    words = ("compile", model, "-o", "m.cambricon", "--calibrate", calibration)
    assert command(*words, "--shape", "image=3x3x8x8").code == 0
    assert OfflineModel.load("m.cambricon").inputs[0].shape == (3, 3, 8, 8)


def test_a_batch_that_does_not_divide_the_samples_is_filled_up(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration)
    assert command(*words, "--shape", "image=4x3x8x8").code == 0


def test_options_reach_the_file(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration)
    assert command(*words, "--cores", "2", "--board", "edge", "--float", "f32").code == 0
    model = OfflineModel.load("m.cambricon")
    assert (model.board, model.cores) == ("edge", 2)


def test_a_layer_kept_in_float_runs_on_the_host(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration)
    result = command(*words, "--keep-float", "conv")
    assert result.code == 0
    assert "on the host" in result.out


def test_passes_run_before_calibration(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--pass-stats")
    result = command(*words, "-p", "prune-channels{ratio=0.5,multiple=1}")
    assert result.code == 0
    assert "prune-channels" in result.err


def test_a_dump_is_resumed_with_the_passes_that_remain(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "a.cambricon", "--calibrate", calibration, "--save-scheme", "q.toml")
    assert command(*words).code == 0
    first, _, rest = PIPELINES["mlu220"].partition("partition,")
    passes = f"prepare,quantize,{first}partition"
    assert command("opt", model_file, "-p", passes, "--scheme", "q.toml", "-o", "half.mlu").code == 0
    assert command("compile", "half.mlu", "-o", "b.cambricon", "--pipeline", rest).code == 0
    one, other = OfflineModel.load("a.cambricon"), OfflineModel.load("b.cambricon")
    assert np.array_equal(one.constants, other.constants)
    for left, right in zip(one.device_functions, other.device_functions, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(left.programs, right.programs, strict=True))


def test_json_says_what_the_text_says(command: Command, model_file, calibration):
    result = command("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--json")
    told = json.loads(result.out)
    assert told["output"] == "m.cambricon"
    assert told["bytes"] == Path("m.cambricon").stat().st_size
    assert told["functions"][0]["name"] == "subnet0"


def test_dumps_go_to_numbered_files(command: Command, model_file, calibration):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--dump-dir", "dumps")
    assert command(*words).code == 0
    names = sorted(p.name for p in Path("dumps").iterdir() if p.suffix == ".mlu")
    assert any("fuse-batchnorm" in n for n in names)
    assert any("schedule" in n for n in names)


def test_images_need_preprocessing_and_it_travels_in_the_file(command: Command, model_file, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        pillow.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", "photos")
    refused = command(*words)
    assert refused.code == 1
    assert "the image becomes 1x3x20x30, input 'image' takes 1x3x8x8 float32" in refused.err
    assert command(*words, "--preprocess", "size=10,crop=8,scale=0.01,mean=[1,1,1],order=bgr").code == 0
    assert OfflineModel.load("m.cambricon").inputs[0].preprocessing["crop"] == 8
    assert command("run", "m.cambricon", "--inputs", "photos").out.startswith("3 samples")


MISTAKES = [
    ((), "E520", "--calibrate DIR"),
    (("--calibrate", "none.npz"), "E114", "no such file"),
    (("--calibrate", "."), "E113", "no images"),
    (("--calibrate", "small.onnx"), "E114", "is a model to be compiled, not"),
    (("--calibrate", "names.npz"), "E113", "no array for input 'image'"),
    (("--calibrate", "shapes.npz"), "E113", "shape 2x3x9x9, the input takes 1x3x8x8 float32"),
    (("--calibrate", "text.npz"), "E113", "holds <U1"),
    (("--calibrate", "objects.npz"), "E114", "objects"),
    (("--calibrate", "empty.npz"), "E526", "no calibration data"),
    (("--calibrate", "nan.npz"), "E526", "NaN"),
    (("--calibrate", "images.npz", "--method", "mses"), "E527", "did you mean 'mse'"),
    (("--calibrate", "images.npz", "--board", "m3"), "E690", "did you mean 'm2'"),
    (("--calibrate", "images.npz", "--cores", "5"), "E605", "5 cores"),
    (("--calibrate", "images.npz", "--cores", "0"), "E605", "0 cores"),
    (("--calibrate", "images.npz", "-p", "simplfy"), "E401", "did you mean 'simplify'"),
    (("--calibrate", "images.npz", "-p", "prune-channels{ratios=0.2}"), "E403", "did you mean 'ratio'"),
    (("--calibrate", "images.npz", "-p", "prune-channels{ratio=7}"), "E404", "below 1"),
    (("--calibrate", "images.npz", "-p", "simplify,,"), "E402", "expected a pass name"),
    (("--calibrate", "images.npz", "--keep-float", "nothere"), "E524", "nothere"),
    (("--calibrate", "images.npz", "--i16", "nothere"), "E524", "nothere"),
    (("--calibrate", "images.npz", "--shape", "imag=1x3x8x8"), "E204", "image"),
    (("--calibrate", "images.npz", "--bind", "image=3"), "E204", "float input"),
    (("--calibrate", "images.npz", "--scheme", "given.toml"), "E102", "exclude each other"),
    (("--scheme", "none.toml"), "E521", "none.toml"),
    (("--save-scheme", "q.toml"), "E102", "needs --calibrate"),
    (("--images", "3"), "E102", "needs --calibrate"),
    (("--scheme", "given.toml", "--method", "minmax"), "E102", "needs --calibrate"),
    (("--calibrate", "images.npz", "--save-scheme", "no/q.toml"), "E101", "mkdir -p no"),
    (("--calibrate", "images.npz", "--pipeline", "quantize"), "E102", "--save-scheme"),
    (("--calibrate", "images.npz", "--preprocess", "siz=3"), "E110", "did you mean 'size'"),
    (("--calibrate", "images.npz", "--preprocess", "mean=[1,2]"), "E110", "one number or three"),
    (("--calibrate", "images.npz", "--preprocess", "std=0"), "E110", "none zero"),
    (("--calibrate", "images.npz", "--dump-ir", "sometimes"), "E408", "changed"),
    (("--calibrate", "images.npz", "--load-pass", "none.py"), "E406", "none.py"),
]


@pytest.fixture
def faulty_data(calibration: Path) -> None:
    folder = calibration.parent
    zeros = np.zeros((2, 3, 8, 8), np.float32)
    np.savez(folder / "names.npz", a=zeros, b=zeros)
    np.savez(folder / "shapes.npz", image=np.zeros((2, 3, 9, 9), np.float32))
    np.savez(folder / "text.npz", image=np.array(["x"]))
    np.savez(folder / "objects.npz", image=np.array([{}], dtype=object))
    np.savez(folder / "empty.npz", image=zeros[:0])
    np.savez(folder / "nan.npz", image=zeros + np.nan)
    (folder / "given.toml").write_text("[layers]\n")


@pytest.mark.parametrize(("words", "code", "text"), MISTAKES, ids=[" ".join(w) or "nothing" for w, _, _ in MISTAKES])
def test_a_mistake_is_told_and_leaves_nothing_behind(command: Command, model_file, faulty_data, words, code, text):
    before = {p.name for p in Path().iterdir()}
    result = command("compile", model_file, "-o", "m.cambricon", *words)
    assert result.code == 1
    assert f"error[{code}]" in result.err
    assert text in result.err
    assert {p.name for p in Path().iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content", "code", "text"),
    [
        ("none.onnx", None, "E201", "no such file"),
        ("damaged.onnx", b"not a model", "E201", "damaged"),
        ("empty.onnx", b"", "E201", "empty"),
        ("notes.txt", b"hello", "E220", "known: .onnx"),
        ("broken.mlu", b"func @main(", "E3", "broken.mlu"),
        ("network.pt", b"", "E2", "network.pt"),
    ],
)
def test_a_file_that_is_no_model_is_refused(command: Command, calibration, name, content, code, text):
    if content is not None:
        Path(name).write_bytes(content)
    result = command("compile", name, "-o", "m.cambricon", "--calibrate", calibration)
    assert result.code == 1
    assert f"error[{code}" in result.err
    assert text in result.err


@pytest.mark.parametrize(
    ("output", "text"),
    [("small.onnx", "would replace an input"), ("no/m.cambricon", "mkdir -p no"), (".", "is a folder")],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(command: Command, model_file, calibration, output, text):
    before = model_file.read_bytes()
    result = command("compile", model_file, "-o", output, "--calibrate", calibration)
    assert (result.code, model_file.read_bytes()) == (1, before)
    assert "E101" in result.err and text in result.err


def test_every_unsupported_operator_is_listed_at_once(command: Command, tmp_path, calibration):
    nodes = [
        helper.make_node("RandomNormalLike", ["image"], ["a"], name="first"),
        helper.make_node("Multinomial", ["image"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["scores"], name="sum"),
    ]
    model = write_model(tmp_path / "odd.onnx", nodes, {}, (1, 3))
    result = command("compile", model, "-o", "m.cambricon", "--calibrate", calibration)
    assert result.code == 1
    assert "'first'" in result.err and "'second'" in result.err


def test_symbolic_dimensions_must_be_given(command: Command, tmp_path, calibration):
    model = convolution(tmp_path / "free.onnx", (1, 3, "h", "w"))
    result = command("compile", model, "-o", "m.cambricon", "--calibrate", calibration)
    assert result.code == 1
    assert "--shape image=" in result.err


def test_a_failed_write_leaves_the_earlier_file(command: Command, model_file, calibration, monkeypatch, tmp_path):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration)
    assert command(*words).code == 0
    before = Path("m.cambricon").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = command(*words, "--cores", "1")
    assert result.code == 1
    assert "No space left" in result.err
    assert Path("m.cambricon").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp*"))


def test_fewer_images_are_taken_on_request(command: Command, model_file, tmp_path):
    many = images(tmp_path / "many.npz", 50)
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate")
    assert command(*words, many, "--images", "6", "--save-scheme", "few.toml").code == 0
    few = np.load(many)["image"][:6]
    np.savez("few.npz", image=few)
    assert command(*words, "few.npz", "--save-scheme", "same.toml").code == 0
    assert Path("few.toml").read_text() == Path("same.toml").read_text()


def test_a_scheme_serves_every_batch(command: Command, offline: Path):
    model, scheme, data = (offline.with_name(name) for name in ("small.onnx", "q.toml", "images.npz"))
    for words in (("--scheme", scheme), ("--calibrate", data, "--save-scheme", "q4.toml")):
        result = command("compile", model, "-o", "x.cambricon", "--batch", "4", *words)
        assert (result.code, result.err) == (0, "")
    assert command("compile", model, "-o", "x.cambricon", "--scheme", "q4.toml").err == ""


def test_dumps_into_a_file_are_refused(command: Command, model_file: Path):
    result = command("opt", model_file, "-p", "prepare", "--dump-dir", model_file)
    assert result.code == 1 and result.err.startswith("error[E101] is a file, give a folder")


def test_a_timeout_is_some_time(command: Command, model_file: Path):
    result = command("debug", "reduce", model_file, "--check", "false", "--timeout", "0")
    assert result.code == 2 and "'0' is not a number of seconds" in result.err


def test_a_file_for_a_board_of_one_s_own_runs_and_is_profiled_without_the_board_s_file(
    command: Command, model_file, calibration
):
    for name in ("mine", "m2"):  # the second takes the name of one of mluc's boards
        number = 'clock_hz = {value = 123e6, unit = "Hz", tag = "I", source = "measured"}'
        Path(f"{name}.toml").write_text(f'extends = "som"\ntitle = "A board of mine"\n{number}\n')
        words = ("compile", model_file, "-o", "x.cambricon", "--calibrate", calibration, "--board", f"{name}.toml")
        assert command(*words).code == 0
        Path(f"{name}.toml").unlink()
        assert command("run", "x.cambricon", "--inputs", calibration).code == 0
        assert command("profile", "x.cambricon").out.startswith("A board of mine, 123 MHz")
        compared = command("compare", model_file, "x.cambricon", "--data", calibration)
        assert compared.code == 0 and "the twin's bytes" in compared.out
        assert command("disasm", "x.cambricon", "-o", "x.asm").code == command("asm", "x.asm", "-o", "y.cambricon").code
        assert Path("x.cambricon").read_bytes() == Path("y.cambricon").read_bytes()


def test_a_file_for_a_board_of_mluc_s_names_it_only(offline: Path):
    assert "board_numbers" not in OfflineModel.load(offline).metadata
