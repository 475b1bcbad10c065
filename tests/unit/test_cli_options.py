"""No option is ignored in silence: in every combination it has an effect, or is refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.profile import Profile
from targets.mlu220.container import OfflineModel
from tests.command import Command


@pytest.fixture
def files(command: Command, offline: Path) -> Path:
    """small.onnx, images.npz, q.toml and small.cambricon in the folder the command runs in; two.mlu, quantised."""
    for name in ("small.onnx", "images.npz", "q.toml", "small.cambricon"):
        shutil.copy(offline.with_name(name), name)
    assert command("opt", "small.onnx", "-p", "prepare,quantize", "--scheme", "q.toml", "-o", "two.mlu").code == 0
    Path("photos").mkdir()
    return Path.cwd()


IGNORED = [
    ("profile small.onnx --sweep cores=1,2 --top 3", "--top is of one compilation"),
    ("profile small.onnx --sweep cores=1,2 --trace t.json", "--trace is of one compilation"),
    ("profile small.onnx --sweep cores=1,2 --cores 4", "--sweep cores says all values of --cores"),
    ("profile small.cambricon --board m2", "--board: says how to compile"),
    ("profile small.cambricon --cores 4 --float f16", "--float, --cores: says how to compile"),
    ("profile small.cambricon --shape image=1x3x8x8", "--shape: says how to compile"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --images 3", "--images needs --calibrate"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --pipeline quantize,mlu220 --asymmetric i8", "drop-asym"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --pipeline quantize,mlu220 --float f16", "legalize{float"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --pipeline quantize,mlu220 --input-type uint8", "take-pixels"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --pipeline quantize,mlu220 --batch 1", "replicate{batch=…}"),
    ("compile small.onnx -o x.cambricon --scheme q.toml --pipeline mlu220", "--pipeline does not name it"),
    ("compile two.mlu -o x.cambricon --asymmetric i16", "--asymmetric would come before that"),
    ("compile two.mlu -o x.cambricon --input-type uint8", "--input-type would come before that"),
    ("compile two.mlu -o x.cambricon --scheme q.toml", "--scheme would come before that"),
    ("run small.cambricon --inputs images.npz --preprocess size=3", "--preprocess is for images"),
    ("run small.cambricon --inputs images.npz --threads 2 --engine oracle", "--threads is for the simulator"),
    ("run small.cambricon --inputs images.npz --tolerance 0.1", "--tolerance needs --against"),
    ("run small.cambricon --inputs images.npz --state --against small.onnx", "--state does not go with --against"),
    ("opt small.onnx -p simplify --scheme q.toml", "-p does not name it"),
    ("opt small.onnx --scheme q.toml", "-p does not name it"),
    ("export small.onnx -o x.onnx -p prepare --scheme q.toml", "-p does not name it"),
    ("debug bisect small.onnx -p prepare --check true --scheme q.toml", "-p does not name it"),
    ("inspect small.cambricon --shape image=1x3x8x8", "an offline model has its shapes"),
    ("inspect small.cambricon --bind n=3", "an offline model has its shapes"),
    ("inspect small.onnx --scheme", "this is none"),
    ("profile small.onnx --preprocess scale=0.1", "--preprocess has an effect with --input-type uint8"),
    ("compare small.onnx two.mlu --data images.npz --scheme q.toml", "--scheme: says how the twin is made"),
    ("compare small.onnx two.mlu --data images.npz -p prune-channels", "--passes: says how the twin is made"),
    ("compare small.onnx two.mlu --data images.npz --after quantize --float f16", "--after, --float: says how"),
    ("compare small.onnx --data images.npz --preprocess crop=8", "--preprocess is for images"),
    ("compare small.onnx --data images.npz --pipeline quantize --float f32", "legalize{float=…}"),
]


@pytest.mark.parametrize(("words", "reason"), IGNORED, ids=[words for words, _ in IGNORED])
def test_an_option_that_would_have_no_effect_is_refused(command: Command, files: Path, words: str, reason: str):
    before = sorted(p.name for p in files.iterdir())
    result = command(*words.split())
    assert result.code == 1
    assert result.err.startswith("error[E102]") and reason in result.err
    assert sorted(p.name for p in files.iterdir()) == before


def test_the_longest_kernels_are_shown_as_json_too(command: Command, files: Path, monkeypatch):
    def three_kernels(profile: Profile) -> dict[str, object]:
        return {"functions": [{"kernels": [{"cycles": 1}, {"cycles": 3}, {"cycles": 2}]}]}

    monkeypatch.setattr(Profile, "as_dict", three_kernels)
    shown = [command("profile", "small.cambricon", "--json", *more).out for more in ((), ("--top", "2"))]
    cycles = [[k["cycles"] for k in json.loads(text)["functions"][0]["kernels"]] for text in shown]
    assert cycles == [[1, 3, 2], [3, 2]]


def test_compare_sorts_and_cuts_its_json_as_its_text(command: Command, files: Path):
    words = ("compare", "small.onnx", "--data", "images.npz", "--json")
    everything = json.loads(command(*words).out)["values"]
    worst = json.loads(command(*words, "--sort", "alone", "--most", "2").out)["values"]
    by_alone = sorted(everything, key=lambda v: v["alone"]["sqnr"] if v["alone"]["sqnr"] is not None else np.inf)
    assert [v["name"] for v in worst] == [v["name"] for v in by_alone[:2]]


def test_the_scheme_of_a_file_is_printed_as_json_too(command: Command, files: Path):
    told = json.loads(command("inspect", "small.cambricon", "--scheme", "--json").out)
    assert told == {"scheme": command("inspect", "small.cambricon", "--scheme").out}


def test_dumps_leave_the_output_to_json(command: Command, files: Path):
    result = command(
        "compile", "small.onnx", "-o", "x.cambricon", "--scheme", "q.toml", "--json", "--dump-ir", "after:quantize"
    )
    assert json.loads(result.out)["output"] == "x.cambricon"
    assert "// ----" in result.err


def test_preprocessing_of_a_quantised_module_travels_in_the_file(command: Command, files: Path):
    assert command("compile", "two.mlu", "-o", "x.cambricon", "--preprocess", "crop=8,scale=0.1").code == 0
    assert OfflineModel.load("x.cambricon").inputs[0].preprocessing["scale"] == 0.1


def test_a_file_for_pixels_lets_only_size_and_crop_be_said(command: Command, files: Path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((20, 30, 3), 7, np.uint8)).save("photos/a.png")
    words = ("--scheme", "q.toml", "--input-type", "uint8", "--preprocess", "crop=8,scale=0.1,mean=1")
    assert command("compile", "small.onnx", "-o", "x.cambricon", *words).code == 0
    run = ("run", "x.cambricon", "--inputs", "photos", "--preprocess")
    assert command(*run, "size=9,crop=8").code == 0
    refused = command(*run, "crop=8,scale=0.1")
    assert refused.code == 1 and "--preprocess may say size and crop" in refused.err


def test_a_folder_of_images_warns_unless_the_network_takes_pixels_by_itself(command: Command, files: Path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save("photos/a.png")
    result = command("run", "small.cambricon", "--inputs", "photos")
    assert result.code == 0 and result.err.count("images are taken as they are") == 1


@pytest.mark.parametrize(("top", "warned"), [(1, False), (255, True)])
def test_integers_for_reals_are_warned_of_where_they_may_be_pixels(command: Command, files: Path, top, warned):
    np.savez("bytes.npz", image=np.random.default_rng(0).integers(0, top + 1, (2, 3, 8, 8), dtype=np.uint8))
    result = command("run", "small.cambricon", "--inputs", "bytes.npz")
    assert result.code == 0 and ("holds uint8" in result.err) == warned


@pytest.mark.parametrize(("words", "verified"), [((), True), (("--no-verify-each",), False)])
def test_passes_before_calibration_are_verified_unless_that_is_declined(
    command: Command, files: Path, monkeypatch, words, verified
):
    from compiler.instruments import VerifyEach

    begun: list[object] = []
    monkeypatch.setattr(VerifyEach, "pipeline_begins", lambda self, module, passes: begun.append(passes))
    assert command("compile", "small.onnx", "-o", "x.cambricon", "--scheme", "q.toml", *words).code == 0
    assert bool(begun) == verified
