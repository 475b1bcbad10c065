"""Networks made with onnx.helper go through the whole compiler and give what onnxruntime gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compiler import driver
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from runtime.session import Session
from tests.command import Command
from tests.journeys import Journey, assert_one_meaning, journey
from tests.onnx_models import Graph, detector, places, refined, regions_of_interest, save, shapes_from_data

ort = pytest.importorskip("onnxruntime")


def images(count: int, *shape: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(1)
    return [[random.normal(size=shape).astype(np.float32)] for _ in range(count)]


def reference(path: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})


def compiled(proto: onnx.ModelProto, samples: list[list[np.ndarray]], folder: Path, **options: object) -> Journey:
    return journey(driver.prepare(load(save(proto, folder))), samples, **options)


# -- a detector --------------------------------------------------------------------------------------------------------
def test_a_detector_finds_in_float_what_onnxruntime_finds(tmp_path: Path) -> None:
    path = save(detector(), tmp_path)
    run = Interpreter(load(path)).run
    counts = set()
    for sample in images(6, 1, 3, 32, 32):
        (ours,), (theirs,) = run(sample), reference(path, sample)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        counts.add(len(ours))
    assert len(counts) > 1


def test_a_detector_runs_on_the_chip_up_to_its_selection(tmp_path: Path) -> None:
    samples = images(8, 1, 3, 32, 32)
    made = compiled(detector(), samples, tmp_path, cores=2)
    names = [f.name for f in made.model.functions]
    assert names == ["subnet0", "host0"]
    assert "nn.non_max_suppression" in made.model.host_functions[0].text
    assert [r.shape for r in made.model.outputs] == [(-1, 6)]
    assert_one_meaning(made, samples[0], threads=(1,))


def test_a_saved_detector_gives_as_many_rows_as_it_finds(tmp_path: Path) -> None:
    samples = images(8, 1, 3, 32, 32)
    compiled(detector(), samples, tmp_path).model.save(tmp_path / "detector.cambricon")
    session = Session(tmp_path / "detector.cambricon")
    for sample in samples[:4]:
        ours, (theirs,) = session.run(*sample), reference(tmp_path / "model.onnx", sample)
        assert isinstance(ours, np.ndarray)
        assert ours.shape[1] == 6
        best = theirs[np.argmax(theirs[:, 1])]
        same = ours[(ours[:, 0] == best[0]) & (np.abs(ours[:, 2:] - best[2:]).max(axis=1) < 1.0)]
        assert len(same) and np.abs(same[:, 1] - best[1]).min() < 0.05


def test_an_image_without_objects_gives_no_rows(tmp_path: Path) -> None:
    proto = detector()
    for tensor in proto.graph.initializer:
        if onnx.numpy_helper.to_array(tensor).tolist() == pytest.approx(0.55):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.999999), tensor.name))
    samples = images(4, 1, 3, 32, 32)
    found = Session(compiled(proto, samples, tmp_path).model).run(*samples[0])
    assert isinstance(found, np.ndarray)
    assert found.shape == (0, 6)


# -- what the data decide ----------------------------------------------------------------------------------------------
DECIDED = {"places": places, "regions of interest": regions_of_interest, "shapes": shapes_from_data, "loop": refined}


@pytest.mark.parametrize("name", DECIDED)
def test_what_the_data_decide_is_decided_as_onnxruntime_does(name: str, tmp_path: Path) -> None:
    path = save(DECIDED[name](), tmp_path)
    run = Interpreter(load(path)).run
    for sample in images(3, 1, 3, 8, 8):
        for ours, theirs in zip(run(sample), reference(path, sample), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", DECIDED)
def test_what_the_data_decide_runs_on_the_host_and_the_rest_on_the_chip(name: str, tmp_path: Path) -> None:
    samples = images(4, 1, 3, 8, 8)
    made = compiled(DECIDED[name](), samples, tmp_path)
    assert [f.name for f in made.model.functions][:2] == ["subnet0", "host0"]
    assert any(r.is_open for r in made.model.outputs)
    assert_one_meaning(made, samples[0])
    made.model.save(tmp_path / "model.cambricon")
    session = Session(tmp_path / "model.cambricon")
    for sample in samples:
        found = session.run(*sample)
        assert isinstance(found, list) or name == "regions of interest"


def test_a_loop_that_stays_one_is_written_into_the_host_function(tmp_path: Path) -> None:
    made = compiled(refined(), images(4, 1, 3, 8, 8), tmp_path)
    text = "".join(f.text for f in made.model.host_functions)
    assert "graph.loop" in text and "graph.if" in text


# -- models that come quantised ----------------------------------------------------------------------------------------
def classifier() -> onnx.ModelProto:
    """Convolutions, a residual, pooling and a dense layer."""
    g = Graph()
    y = g.conv(g.conv("image", 3, 16), 16, 24, stride=2)
    y = g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    pooled = g.op("Flatten", g.op("GlobalAveragePool", g.op("Add", y, g.conv(y, 24, 24))))
    g.op("Gemm", pooled, g.weight(10, 24), g.constant(np.zeros(10), np.float32), transB=1, name="logits")
    return g.model({"image": (1, 3, 16, 16)}, {"logits": (1, 10)})


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("types", ["QUInt8 QInt8", "QInt8 QInt8", "QUInt8 QUInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_model_quantised_by_onnxruntime_keeps_its_integers(
    form: str, types: str, per_channel: bool, tmp_path: Path
) -> None:
    if per_channel and types.endswith("QUInt8"):
        pytest.skip("onnxruntime's quantiser makes no zero points per channel")
    tool = pytest.importorskip("onnxruntime.quantization")
    samples = images(8, 1, 3, 16, 16)

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter({"image": image} for (image,) in samples)

        def get_next(self) -> dict | None:
            return next(self.left, None)

    source, path = save(classifier(), tmp_path, "float.onnx"), tmp_path / "model.onnx"
    activation, weight = (getattr(tool.QuantType, t) for t in types.split())
    tool.quantize_static(
        str(source), str(path), Reader(), quant_format=getattr(tool.QuantFormat, form), activation_type=activation,
        weight_type=weight, per_channel=per_channel,
    )  # fmt: skip
    module = load(path)
    assert any(v.type.quant is not None and v.type.quant.step is not None for op in module.ops() for v in op.results)
    for sample in samples[:3]:
        (ours,), (theirs,) = Interpreter(module).run(sample), reference(path, sample)
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(theirs))
    made = journey(driver.prepare(module), samples)
    assert made.device.name == "subnet0"
    found = assert_one_meaning(made, samples[0])
    np.testing.assert_allclose(found[0], reference(path, samples[0])[0], atol=0.05 * np.ptp(found[0]))


# -- layers that are large in their own way ----------------------------------------------------------------------------
@pytest.mark.parametrize(("channels", "groups"), [(384, 2), (256, 4)])
def test_groups_whose_filters_do_not_fit_the_chip_together(channels: int, groups: int, tmp_path: Path) -> None:
    g = Graph()
    y = g.conv("image", 3, channels, kernel=1)
    kernel = 3 if groups == 2 else 7
    w = g.weight(channels, channels // groups, kernel, kernel)
    y = g.op("Conv", y, w, g.constant(g.random.normal(size=channels), np.float32), group=groups, pads=[1] * 4)
    g.op("Relu", y, name="y")
    side = 8 + 2 - kernel + 1
    proto = g.model({"image": (1, 3, 8, 8)}, {"y": (1, channels, side, side)})
    samples = images(2, 1, 3, 8, 8)
    made = compiled(proto, samples, tmp_path)
    assert [f.name for f in made.model.functions] == ["subnet0"]
    (found,) = assert_one_meaning(made, samples[0])
    (wanted,) = reference(tmp_path / "model.onnx", samples[0])
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_network_that_takes_and_gives_channels_last(tmp_path: Path) -> None:
    g = Graph()
    y = g.conv(g.op("Transpose", "image", perm=[0, 3, 1, 2]), 3, 8)
    g.op("Transpose", g.conv(y, 8, 4, stride=2), perm=[0, 2, 3, 1], name="y")
    proto = g.model({"image": (1, 8, 8, 3)}, {"y": (1, 4, 4, 4)})
    samples = images(4, 1, 8, 8, 3)
    made = compiled(proto, samples, tmp_path)
    assert not any(op.op_name in ("tensor.transpose", "mlu.transpose") for op in made.legal.ops())
    (found,) = assert_one_meaning(made, samples[0])
    (wanted,) = reference(tmp_path / "model.onnx", samples[0])
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


# -- what the command line does with them ------------------------------------------------------------------------------
@pytest.mark.parametrize(("made", "side"), [(detector, 32), (refined, 8)])
def test_the_verbs_take_models_whose_outputs_have_open_shapes(
    made: Callable[[], onnx.ModelProto], side: int, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    command = Command(capsys)
    save(made(), tmp_path, "m.onnx")
    np.savez("data.npz", image=np.concatenate([sample for (sample,) in images(6, 1, 3, side, side)]))
    np.savez("one.npz", image=images(1, 1, 3, side, side)[0][0])
    for words in (
        "compile m.onnx -o m.cambricon --calibrate data.npz", "run m.cambricon --inputs one.npz --against m.onnx",
        "compare m.onnx m.cambricon --data data.npz", "inspect m.cambricon", "profile m.cambricon", "lint m.onnx",
        "disasm m.cambricon -o m.mluasm", "asm m.mluasm -o again.cambricon",
    ):  # fmt: skip
        found = command(*words.split())
        assert found.code == 0, (words, found.err)
    assert Path("again.cambricon").read_bytes() == Path("m.cambricon").read_bytes()
