"""Archives that torch itself writes, scripted, traced, frozen and quantised, judged by torch."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from tests.torchscript_archives import load_bytes

torch = pytest.importorskip("torch")

from tests import torch_networks as networks  # noqa: E402


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def compared(case: networks.Case, how: str, tolerance: float, **options: Any) -> None:
    """That the archive's module gives what torch gives."""
    net, inputs = case
    names = [a.name for a in (net.forward.schema if hasattr(net.forward, "schema") else torch.jit.script(
        net).forward.schema).arguments][1:] if how != "trace" else []  # fmt: skip
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    shapes = {n: tuple(x.shape) for n, x in zip(names, tensors, strict=False)}
    module = load_bytes(networks.saved(case, how), shapes, **options)
    found = Interpreter(module).run([x.numpy() for x in tensors])
    with torch.no_grad():
        expected = networks.flat(net(*inputs))
    assert len(expected) == len(found)
    for wanted, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("how", ["script", "trace", "freeze", "mobile"])
@pytest.mark.parametrize("name", networks.SCRIPTED)
def test_a_network_gives_what_torch_gives(name: str, how: str) -> None:
    compared(networks.SCRIPTED[name](), how, 1e-5)


def test_loops_lists_and_writing_in_place_give_what_torch_gives() -> None:
    compared((networks.Scripted().eval(), (torch.randn(2, 4),)), "script", 1e-6)


@pytest.mark.parametrize("engine", ["qnnpack", "fbgemm"])
@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_a_quantised_network_gives_what_torch_gives_to_within_a_step(engine: str, how: str) -> None:
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this torch has no engine {engine}")
    compared(networks.quantised(engine), how, 0.02)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_dynamically_quantised_layers_keep_their_integer_weights(how: str) -> None:
    case = networks.dynamic()
    compared(case, how, 0.05)
    module = load_bytes(networks.saved(case, how), {"input": (2, 6)})
    integers = [c for c in module.constants.values() if c.type.quant is not None]
    assert len(integers) == 2 and all(c.data.dtype == np.int8 for c in integers)


def test_tracing_records_the_shapes_of_inputs() -> None:
    module = load_bytes(networks.saved(networks.convnet(), "trace"))
    assert module.main.arguments[0].type.shape == (2, 3, 8, 8)


def test_a_state_that_is_empty_at_first_goes_round() -> None:
    net = networks.Memory().eval()
    module = load_bytes(networks.saved((net, ())), {"x": (1, 3)})
    assert module.attributes["state"] == {"h.next": "h"} and module.attributes["first_state"] == {"h": 0.0}
    h = np.zeros((1, 4), np.float32)
    for x in torch.randn(4, 1, 3):
        y, h = Interpreter(module).run([x.numpy(), h])
        with torch.no_grad():
            np.testing.assert_allclose(y, net(x).numpy(), atol=1e-6)


# -- networks in memory ------------------------------------------------------------------------------------------------
def test_a_network_in_memory_is_traced_with_an_example_or_zeros_and_left_as_it_was() -> None:
    net, inputs = networks.convnet()
    net.train()
    net[8].eval()
    modes = [m.training for m in net.modules()]
    for options in ({"example": inputs}, {"example": inputs[0]}, {"shapes": {"input": (2, 3, 8, 8)}}):
        module = load(net, **options)
        (found,) = Interpreter(module).run([inputs[0].numpy()])
        assert [m.training for m in net.modules()] == modes
        with torch.no_grad():
            np.testing.assert_allclose(found, net.eval()(*inputs).numpy(), atol=1e-5)
        for m, training in zip(net.modules(), modes, strict=True):
            m.training = training
    assert "9.weight" in module.constants


def test_a_scripted_network_in_memory_needs_shapes_only() -> None:
    scripted = torch.jit.script(networks.Scripted().eval())
    module = load(scripted, shapes={"x": (2, 4)}, bindings={"twice": False})
    assert module.main.output_names[0] == "output.0"


def test_a_network_that_torch_cannot_save_is_refused_with_torchs_words() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.no_such_method()

    with pytest.raises(CompilerError, match=r"E221.*no_such_method[\s\S]*example="):
        load(Odd(), example=torch.zeros(1))
    with pytest.raises(CompilerError, match="int is no model"):
        load(3)


# -- files torch writes that are no networks ---------------------------------------------------------------------------
def test_weights_and_pickled_modules_are_refused_with_what_to_do(tmp_path: Any) -> None:
    net = networks.convnet()[0]
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    torch.save(net, tmp_path / "module.pth")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("weights.pt", "module.pth", "old.pt"):
        with pytest.raises(CompilerError, match=r"E220[\s\S]*torch\.jit\.save"):
            load(tmp_path / name)


def test_reading_an_archive_does_not_import_torch(tmp_path: Any) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(networks.saved(networks.convnet(), "trace"))
    code = f"import sys, compiler; compiler.load({str(path)!r}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
