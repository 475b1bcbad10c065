"""A network that takes uint8 pixels answers as the float network does on preprocessed images, on the chip as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.ir.types import DType, TensorType
from compiler.pass_manager import PassContext, run_pipeline
from compiler.preprocess import Preprocess
from passes.quantization.calibrate import calibrate
from passes.quantization.scheme import Scheme
from runtime import cnrt
from runtime.session import Session
from targets.mlu220.container import OfflineModel
from tests.command import Command
from tests.journeys import Journey, assert_one_meaning, emitted, legalised, placed
from tests.networks import Network, run

TORCH = "scale=0.00392156862745098,mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225]"
RECIPES = ["scale=1", TORCH, f"{TORCH},order=bgr", "mean=[104,117,123],order=bgr", "mean=127,std=128", "scale=0.01"]


def network(recipe: str, pads: tuple[int, ...] = (1, 1, 1, 1), channels: int = 3) -> Module:
    net = Network((1, channels, 12, 10))
    first = net.op("nn.conv2d", net.x, net.constant("w", 8, channels, 3, 3), net.constant("b", 8), name="first",
                   strides=(2, 2), pads=pads)  # fmt: skip
    net.done(net.conv(net.relu(first, "r"), 4, "y"))
    net.x.attributes["preprocessing"] = Preprocess.parse(recipe).as_dict()
    return net.module


def picture(seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 12, 10, channels)).astype(np.uint8)


def as_input(recipe: str, pixels: np.ndarray) -> np.ndarray:
    return Preprocess.parse(recipe)(pixels[0])


def scheme_of(module: Module, recipe: str, **options: Any) -> Scheme:
    return calibrate(module, [as_input(recipe, picture(seed)) for seed in range(8)], "minmax", **options)


def taking_pixels(
    module: Module, scheme: Scheme | None = None, options: str = "", text: str = ""
) -> tuple[Module, PassContext]:
    ctx = PassContext(options={} if scheme is None else {"scheme": scheme})
    return run_pipeline(module, f"take-pixels{options}{text}", ctx=ctx, crash_directory=None), ctx


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 0, 1)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_layer_takes_pixels_and_gives_what_it_gave(recipe: str, pads: tuple[int, ...]) -> None:
    module = network(recipe, pads)
    made, _ = taking_pixels(module)
    assert made.main.arguments[0].type == TensorType((1, 12, 10, 3), DType.U8)
    wanted = run(module, as_input(recipe, picture()))[0]
    assert relative(run(made, picture())[0], wanted) < 0.02


def test_the_conversion_of_pixels_is_exact() -> None:
    """With weights that i8 holds, nothing is lost, the border included where the mean is a whole pixel."""
    net = Network((1, 1, 6, 6))
    weights = net.module.add_constant("w", np.arange(-4, 5, dtype=np.float32).reshape(1, 1, 3, 3) * 127 / 4)
    net.done(net.op("nn.conv2d", net.x, weights, name="y", pads=(1, 1, 1, 1)))
    net.x.attributes["preprocessing"] = Preprocess.parse("mean=100,order=gray").as_dict()
    pixels = np.random.default_rng(3).integers(0, 256, (1, 6, 6, 1)).astype(np.uint8)
    made, ctx = taking_pixels(net.module)
    wanted = run(net.module, pixels.transpose(0, 3, 1, 2).astype(np.float32) - 100.0)[0]
    scale = np.float32(127 / 4)
    np.testing.assert_allclose(run(made, pixels)[0] / scale, wanted / scale, rtol=0.02, atol=12)
    assert not ctx.diagnostics


def test_a_mean_that_is_no_whole_pixel_is_said() -> None:
    _, ctx = taking_pixels(network(TORCH))
    assert [d.code for d in ctx.diagnostics] == ["E532"]
    assert "off by up to 0.47 of 255" in ctx.diagnostics[0].message
    _, ctx = taking_pixels(network(TORCH, pads=(0, 0, 0, 0)))
    assert not ctx.diagnostics


def test_a_border_that_no_pixel_stands_for_makes_the_conversion_explicit() -> None:
    recipe = "mean=-50"
    module = network(recipe)
    made, ctx = taking_pixels(module)
    assert "the first layer is padded with what no pixel stands for" in str(ctx.statistics)
    wanted = run(module, as_input(recipe, picture()))[0]
    np.testing.assert_allclose(run(made, picture())[0], wanted, rtol=1e-4, atol=1e-2)


def test_where_other_ops_take_the_image_pixels_become_floats_first() -> None:
    net = Network((1, 3, 12, 10))
    net.done(net.add(net.conv(net.x, 3, "c"), net.x, "y"))
    net.x.attributes["preprocessing"] = Preprocess.parse(TORCH).as_dict()
    made, ctx = taking_pixels(net.module)
    assert "something else than convolutions takes the input" in str(ctx.statistics)
    wanted = run(net.module, as_input(TORCH, picture()))[0]
    np.testing.assert_allclose(run(made, picture())[0], wanted, rtol=1e-4, atol=1e-4)


def test_an_image_of_channels_last_that_is_transposed_first_folds_too() -> None:
    net = Network((1, 12, 10, 3))
    turned = net.op("tensor.transpose", net.x, name="turned", perm=(0, 3, 1, 2))
    net.done(net.conv(turned, 4, "y", kernel=3))
    net.x.attributes["preprocessing"] = Preprocess.parse(TORCH).as_dict()
    scheme = calibrate(net.module, [as_input(TORCH, picture()).transpose(0, 2, 3, 1)], "minmax")
    made, ctx = taking_pixels(net.module, scheme, text=",quantize")
    assert "layers that take pixels" in str(ctx.statistics)
    wanted = run(net.module, as_input(TORCH, picture()).transpose(0, 2, 3, 1))[0]
    assert relative(run(made, picture())[0], wanted) < 0.02


@pytest.mark.parametrize("bits", [8, 16])
def test_the_scheme_that_calibration_made_still_fits(bits: int) -> None:
    module = network(TORCH)
    made, ctx = taking_pixels(module, scheme_of(module, TORCH, bits=bits), text=",quantize")
    assert "E529" not in [d.code for d in ctx.diagnostics]
    wanted = run(module, as_input(TORCH, picture()))[0]
    assert relative(run(made, picture())[0], wanted) < (0.05 if bits == 8 else 0.01)


def test_a_first_layer_that_stays_float_gets_floats() -> None:
    module = network(TORCH)
    made, ctx = taking_pixels(module, options="{keep-float=first}")
    assert "the first layer stays float" in str(ctx.statistics)
    assert relative(run(made, picture())[0], run(module, as_input(TORCH, picture()))[0]) < 1e-4


def test_what_is_no_image_is_refused() -> None:
    net = Network((1, 16))
    net.done(net.matmul(net.x, 4, "y"))
    with pytest.raises(CompilerError, match=r"E531.*one image input"):
        taking_pixels(net.module)
    with pytest.raises(CompilerError, match=r"E531.*2 channels"):
        taking_pixels(network(TORCH, channels=2))


# -- on the chip -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("recipe", [TORCH, "mean=-50", "mean=[104,117,123],order=bgr"])
def test_pixels_have_one_meaning_on_the_chip(recipe: str, cores: int) -> None:
    module = network(recipe)
    scheme = scheme_of(module, recipe)
    prepared, legal = legalised(module, quantize="take-pixels,quantize", scheme=scheme, cores=cores)
    assert [name for name in legal.functions if name != "main"] == ["subnet0"]
    final = placed(legal, cores=cores)
    made = Journey(prepared, legal, final, emitted(final, cores))
    (found,) = assert_one_meaning(made, [picture()], threads=(1, 2))
    (record,) = made.model.inputs
    assert (record.dtype, record.shape, record.device_shape) == ("u8", (1, 12, 10, 3), (1, 12, 10, 3))
    assert relative(found, run(module, as_input(recipe, picture()))[0]) < 0.05


def test_every_byte_becomes_its_number_on_the_chip() -> None:
    net = Network((1, 1, 16, 16))
    net.done(net.relu(net.x, "y"))
    net.x.attributes["preprocessing"] = Preprocess.parse("order=gray").as_dict()
    scheme = calibrate(net.module, [np.ones((1, 1, 16, 16), np.float32)], "minmax")
    _, legal = legalised(net.module, quantize="take-pixels,quantize", scheme=scheme)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(Interpreter(legal).run([pixels])[0].ravel(), np.arange(256, dtype=np.float32))


# -- for users ---------------------------------------------------------------------------------------------------------
def test_the_command_compiles_for_pixels_and_runs_on_images(command: Command, model_file: Path, tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        image_module.fromarray(pixels).save(folder / f"{number}.png")
    recipe = ("--preprocess", f"size=8,crop=8,{TORCH},order=bgr")
    for name, more in (("float", ()), ("uint8", ("--input-type", "uint8"))):
        words = ("compile", model_file, "-o", f"{name}.cambricon", "--calibrate", folder, *recipe, *more)
        assert command(*words).code == 0
    model = OfflineModel.load("uint8.cambricon")
    assert (model.inputs[0].dtype, model.inputs[0].shape) == ("u8", (1, 8, 8, 3))
    assert "order" in model.inputs[0].preprocessing and "folded" in model.inputs[0].preprocessing
    for name in ("float", "uint8"):
        assert command("run", f"{name}.cambricon", "--inputs", folder, "--output", f"{name}.npz").code == 0
    a, b = (dict(np.load(f"{name}.npz")) for name in ("float", "uint8"))
    assert a.keys() == b.keys()
    for key in a:
        assert relative(b[key], a[key]) < 0.05
    for words in (("run", "uint8.cambricon", "--inputs", folder, "--against", model_file, "--tolerance", "0.1"),
                  ("compare", model_file, "uint8.cambricon", "--data", folder, "--at-least", "20")):  # fmt: skip
        result = command(*words)
        assert result.code == 0, result.err


def test_pixels_that_nothing_normalises_are_warned_of(command: Command, model_file: Path, calibration: Path) -> None:
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--input-type", "uint8")
    assert "pixels are taken as they are" in command(*words).err
    assert "pixels are taken as they are" not in command(*words, "--preprocess", "scale=1").err


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_pixels_and_inputs_say_the_same(recipe: str, layout: str) -> None:
    given = Preprocess.parse(recipe)
    taken = Preprocess.of(given.on_chip("rgb", layout))
    x = taken.to_network(picture())
    np.testing.assert_allclose(x, given(picture()[0], layout), rtol=1e-6, atol=1e-6)
    assert np.array_equal(taken.to_pixels(x), picture())
    assert taken.whole == given


def test_the_host_api_takes_bytes(tmp_path: Path) -> None:
    module = network(TORCH)
    _, legal = legalised(module, quantize="take-pixels,quantize", scheme=scheme_of(module, TORCH))
    model = emitted(placed(legal))
    model.save(tmp_path / "m.cambricon")
    cnrt.cnrtInit(0)
    _, device = cnrt.cnrtGetDeviceHandle(0)
    cnrt.cnrtSetCurrentDevice(device)
    _, loaded = cnrt.cnrtLoadModel(tmp_path / "m.cambricon")
    _, function = cnrt.cnrtCreateFunction()
    cnrt.cnrtExtractFunction(function, loaded, "subnet0")
    status, types, count = cnrt.cnrtGetInputDataType(function)
    cnrt.cnrtDestroy()
    assert (status, count, list(types)) == (cnrt.CNRT_RET_SUCCESS, 1, [cnrt.CNRT_UINT8])
    assert Session(model).run(picture()).dtype == np.float32
