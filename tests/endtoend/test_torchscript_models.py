"""The trained TorchScript archives of the model folder: equal to torch, to their ONNX twins and to what was recorded
with them; compiled for the chip; read faster than they are told about.
"""

from __future__ import annotations

import itertools
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.driver import calibrate, compile_model, prepare
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from runtime.session import Session
from tests.endtoend.core_models import score_module

TWINS = {"mobilenet_v2_imagenet.pt": (1, 3, 224, 224), "resnet20_cifar10.pt": (1, 3, 32, 32),
         "vit_mnist.pt": (1, 1, 28, 28)}  # fmt: skip
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mobilenet_v2_int8_qnnpack.pt": {"x": (1, 3, 224, 224)}, "vit_mnist_int8dyn.ptl": {"img": (1, 1, 28, 28)},
    "silero_vad.jit": {"x": (1, 512)}, "resnet20_cifar10.pt": {"x": (1, 3, 32, 32)},
}  # fmt: skip
NAMES = [*TWINS, "mobilenet_v2_int8_qnnpack.pt", "vit_mnist_int8dyn.ptl", "silero_vad.jit"]


def module_of(models: Path, name: str) -> Module:
    bindings = {"sr": 16000} if name.startswith("silero") else {}
    return load(models / name, SHAPES.get(name), bindings)


def sound(data: Path) -> np.ndarray:
    with wave.open(str(data / "speech60s_16k.wav")) as recording:
        raw = recording.readframes(recording.getnframes())
    return (np.frombuffer(raw, np.int16).astype(np.float32) / 32768)[None]


def images(data: Path, name: str, count: int) -> list[np.ndarray]:
    score = score_module(data)
    if name.startswith("vit"):
        return [score.pre_mnist_vit(a) for a in score.mnist(str(data))[0][:count]]
    if name.startswith("resnet"):
        pixels = np.load(data / "cifar10_jpeg_test5k_calib1k.npz")["calib_x"][:count]
        return [score.pre_torch(a) for a in pixels]
    return [score.pre_torch(a) for a, _ in itertools.islice(score.imagenet(str(data), "calib"), count)]


def calls(module: Module, data: Path, count: int) -> list[list[np.ndarray]]:
    """Inputs of the voice detector's first calls, its state going round."""
    types = {a.name: a.type for a in module.main.arguments}
    first = module.attributes["first_state"]
    state = {n: np.full(types[n].shape, v, types[n].dtype.numpy) for n, v in first.items()}
    run, stream, found = Interpreter(module).run, sound(data), []
    for k in range(count):
        feed = {**state, "x": stream[:, k * 512 : (k + 1) * 512]}
        found.append([feed[n] for n in types])
        results = dict(zip(module.main.output_names, run(found[-1]), strict=True))
        state = {name: results[output] for output, name in module.attributes["state"].items()}
        found[-1].append(results["output"])
    return found


@pytest.mark.parametrize("name", TWINS)
def test_an_archive_gives_what_its_onnx_twin_gives(name: str, models: Path, data: Path) -> None:
    module = load(models / name, {"x": TWINS[name]})
    twin = load((models / name).with_suffix(".onnx"), {"input": TWINS[name]})
    for x in images(data, name, 3):
        found, wanted = (Interpreter(m).run([x])[0] for m in (module, twin))
        np.testing.assert_allclose(found, wanted, atol=5e-5)


@pytest.mark.parametrize("name", TWINS)
def test_an_archive_gives_what_torch_gives(name: str, models: Path, data: Path) -> None:
    torch = pytest.importorskip("torch")
    network = torch.jit.load(str(models / name)).eval()
    module = load(models / name, {"x": TWINS[name]})
    for x in images(data, name, 3):
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(Interpreter(module).run([x])[0], wanted, atol=5e-5)


def test_shapes_are_taken_from_traced_archives(models: Path) -> None:
    assert load(models / "vit_mnist.pt").main.arguments[0].type.shape == (1, 1, 28, 28)


# -- 8 bits ------------------------------------------------------------------------------------------------------------
def test_the_int8_archive_keeps_the_scales_and_zero_points_recorded_beside_it(models: Path) -> None:
    module = module_of(models, "mobilenet_v2_int8_qnnpack.pt")
    recorded = json.loads((models / "mobilenet_v2_int8_ref.json").read_text())
    stored = [op.results[0].type.quant for op in module.main.body if op.op_name == "quant.quantize"]
    wanted = {(np.float32(r["out_scale"]), r["out_zero_point"]) for r in recorded if r["out_scale"] is not None}
    assert wanted <= {(np.float32(q.real_step), q.zero_point) for q in stored}
    weights = [c.type.quant.real_step for c in module.constants.values() if c.type.quant is not None]
    expected = [r["weight_scale"] for r in recorded if r["weight_scale"] is not None]
    assert sorted(np.float32(weights)) == sorted(np.float32(expected))


def test_the_int8_archive_computes_torchs_integers(models: Path, data: Path) -> None:
    """The first twenty layers bit by bit; then one rounding of a float sum is another, and some steps differ."""
    torch = pytest.importorskip("torch")
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no engine qnnpack")
    torch.backends.quantized.engine = "qnnpack"
    network = torch.jit.load(str(models / "mobilenet_v2_int8_qnnpack.pt"))
    module = module_of(models, "mobilenet_v2_int8_qnnpack.pt")
    step = 0.15309934318065643
    for x in images(data, "mobilenet", 4):
        seen: dict[str, np.ndarray] = {}
        found = Interpreter(module).run([x], observe=lambda v, a, seen=seen: seen.update({v.name: a}))[0]  # type: ignore[misc]
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        assert np.abs(found - wanted).max() < 8 * step and np.abs(found - wanted).mean() < 1.5 * step
        assert found.argmax() == wanted.argmax()


def test_the_dynamically_quantised_archive_keeps_its_accuracy(models: Path, data: Path) -> None:
    module = module_of(models, "vit_mnist_int8dyn.ptl")
    run = Interpreter(module).run
    score = score_module(data)
    assert score.vit_mnist(lambda x: run([x]), str(data), 400)["top1"] >= 0.97
    assert sum(c.type.quant is not None and c.data.dtype == np.int8 for c in module.constants.values()) == 27


# -- the voice detector ------------------------------------------------------------------------------------------------
def test_the_voice_detector_gives_its_reference_over_the_whole_recording(models: Path, data: Path) -> None:
    reference = np.load(data / "speech60s_vad_ref.npz")["prob"]
    module = module_of(models, "silero_vad.jit")
    found = np.array([call[-1][0, 0] for call in calls(module, data, len(reference))])
    assert np.abs(found - reference).max() < 1e-5


def test_the_other_rate_is_the_other_network(models: Path) -> None:
    torch = pytest.importorskip("torch")
    module = load(models / "silero_vad.jit", {"x": (2, 256)}, {"sr": 8000})
    types = {a.name: a.type.shape for a in module.main.arguments}
    assert types == {"x": (2, 256), "_context": (2, 32), "_state": (2, 2, 128)}
    network = torch.jit.load(str(models / "silero_vad.jit"))
    context, state = np.zeros((2, 32), np.float32), np.zeros((2, 2, 128), np.float32)
    for x in torch.randn(3, 2, 256):
        found, context, state = Interpreter(module).run([x.numpy(), context, state])
        with torch.no_grad():
            np.testing.assert_allclose(found, network(x, 8000).numpy(), atol=1e-5)


@pytest.mark.parametrize(("shape", "rate", "words"), [((1, 600), 16000, "number of samples is 600"),
                                                      ((1, 512), 44100, "Supported sampling rates")])  # fmt: skip
def test_what_the_network_refuses_is_said_in_its_words(
    shape: tuple[int, ...], rate: int, words: str, models: Path
) -> None:
    from compiler.errors import CompilerError

    with pytest.raises(CompilerError, match=rf"E213[\s\S]*{words}"):
        load(models / "silero_vad.jit", {"x": shape}, {"sr": rate})


# -- on the chip -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in NAMES if n != "mobilenet_v2_imagenet.pt"])  # as its ONNX twin
def test_an_archive_runs_on_the_chip_alone(name: str, models: Path, data: Path) -> None:
    module = prepare(module_of(models, name))
    samples: list[Any] = [call[:-1] for call in calls(module, data, 200)[40::10]] if "vad" in name else []
    samples = samples or [[x] for x in images(data, name, 8 if "mobilenet" in name else 16)]
    model = compile_model(module, scheme=calibrate(module, samples, method="minmax"), cores=2)
    assert [f.name for f in model.functions] == ["subnet0"]
    found, wanted = Session(model).run(*samples[0]), Interpreter(module).run(samples[0])[0]
    first = np.asarray(found[0] if isinstance(found, list) else found)
    assert first.argmax() == wanted.argmax()
    assert np.abs(first - wanted).max() <= 0.1 * max(np.abs(wanted).max(), 1.0)


def test_the_voice_detector_keeps_its_state_on_the_chip(models: Path, data: Path) -> None:
    module = prepare(module_of(models, "silero_vad.jit"))
    samples = [call[:-1] for call in calls(module, data, 300)[40::6]]
    model = compile_model(module, scheme=calibrate(module, samples))
    session = Session(model, state=module.attributes["state"])
    reference = np.load(data / "speech60s_vad_ref.npz")["prob"][:400]
    stream = sound(data)
    found = np.array([np.ravel(session.run(stream[:, k * 512 : (k + 1) * 512]))[0] for k in range(400)])
    assert ((found > 0.5) == (reference > 0.5)).mean() >= 0.97
