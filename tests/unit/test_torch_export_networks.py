"""Networks exported by torch are read without it and compute what torch computes, in both dialects."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes the archives and judges what was read")

from compiler.errors import CompilerError  # noqa: E402
from compiler.evaluate.interpreter import Interpreter  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from compiler.ir.core import Module  # noqa: E402
from tests.exported_networks import networks  # noqa: E402
from tests.exported_zoo import zoo  # noqa: E402
from tests.unit.aten_graphs import as_array, assert_close, flat  # noqa: E402

DIALECTS = ("training", "core")


def save(module: Any, inputs: tuple[Any, ...], path: Path, dialect: str = "training", **options: Any) -> Any:
    """Export and save; gives the exported program."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, inputs, **options)
        program = program if dialect == "training" else program.run_decompositions()
        torch.export.save(program, path)
    return program


def run(module: Module, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    function = module.functions["main"]
    results = Interpreter(module).run([as_array(inputs[a.name]) for a in function.arguments])
    return dict(zip(function.attributes["outputs"], results, strict=True))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return {**networks(), **zoo()}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", [n for n in (*networks(), *zoo()) if n != "counter"])
def test_a_network_computes_what_torch_computes(name: str, dialect: str, made: dict, tmp_path: Path) -> None:
    network, inputs = made[name]
    save(network, inputs, tmp_path / "m.pt2", dialect)
    module = load(tmp_path / "m.pt2")
    with torch.no_grad():
        expected = flat(network(*(i.clone() for i in inputs)))
    names = [a.name for a in module.functions["main"].arguments]
    assert_close(list(run(module, dict(zip(names, inputs, strict=True))).values()), expected, atol=1e-4)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_buffer_that_is_written_is_an_input_and_an_output(dialect: str, made: dict, tmp_path: Path) -> None:
    network, (x,) = made["counter"]
    save(network, (x,), tmp_path / "m.pt2", dialect)
    module = load(tmp_path / "m.pt2")
    assert module.attributes["state"] == {"mean.next": "mean"}
    assert module.attributes["first_state"] == {"mean": 0.5}
    state = np.full((1, 4), 0.5, np.float32)
    with torch.no_grad():
        network.mean.fill_(0.5)
        for _ in range(3):
            results = run(module, {"x": x, "mean": state})
            state = results.pop("mean.next")
            assert_close(list(results.values()), [network(x)])
            np.testing.assert_allclose(state, network.mean.numpy(), rtol=1e-5)
        network.mean.fill_(0.5)


@pytest.mark.parametrize("name", ["mobilenet", "gru"])
def test_the_layout_before_torch_2_8_is_read_too(name: str, made: dict, tmp_path: Path) -> None:
    from torch._export.serde.serialize import serialize

    network, inputs = made[name]
    artifact = serialize(save(network, inputs, tmp_path / "new.pt2"))
    (tmp_path / "old").mkdir()
    with zipfile.ZipFile(tmp_path / "old" / "new.pt2", "w") as file:
        file.writestr("version", "8.2")
        file.writestr("serialized_exported_program.json", artifact.exported_program)
        for member in ("state_dict", "constants", "example_inputs"):
            file.writestr(f"serialized_{member}.pt", getattr(artifact, member))
    new, old = load(tmp_path / "new.pt2"), load(tmp_path / "old" / "new.pt2")
    assert str(old) == str(new)


def test_open_dimensions_take_their_size_from_the_user(made: dict, tmp_path: Path) -> None:
    network = made["unet"][0]
    size = torch.export.Dim.AUTO
    save(network, (torch.randn(2, 3, 16, 16),), tmp_path / "m.pt2", dynamic_shapes={"x": {0: size, 2: size, 3: size}})
    with pytest.raises(CompilerError, match="some dimensions have no size"):
        load(tmp_path / "m.pt2")
    x = torch.randn(1, 3, 8, 24)
    module = load(tmp_path / "m.pt2", shapes={"x": (1, 3, 8, 24)})
    with torch.no_grad():
        assert_close(list(run(module, {"x": x}).values()), [network(x)], atol=1e-4)


class Gradless(torch.nn.Module):
    """Part of it under no_grad, which exports as a graph in a node; a known choice; a number as input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: Any, times: int) -> Any:
        with torch.no_grad():
            y = self.linear(x) * times
        return {"a": y + 1, "b": [y.sum(), x.shape[0] * 2]}


def test_graphs_in_nodes_are_inlined_and_numbers_are_results(tmp_path: Path) -> None:
    network, x = Gradless().eval(), torch.randn(2, 4)
    save(network, (x, 3), tmp_path / "m.pt2")
    with torch.no_grad():
        expected = flat(network(x, 3))
    assert_close(list(run(load(tmp_path / "m.pt2"), {"x": x}).values()), expected)


class Halves(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4).to(torch.bfloat16)

    def forward(self, x: Any) -> Any:
        return self.linear(x)


def test_half_precision_networks_are_computed_in_f32_between_their_own_types(tmp_path: Path) -> None:
    network, x = Halves().eval(), torch.randn(2, 4).to(torch.bfloat16)
    save(network, (x,), tmp_path / "m.pt2")
    module = load(tmp_path / "m.pt2")
    function = module.functions["main"]
    assert str(function.arguments[0].type.dtype) == "bf16"
    import ml_dtypes

    found = Interpreter(module).run([x.float().numpy().astype(ml_dtypes.bfloat16)])[0]
    with torch.no_grad():
        np.testing.assert_allclose(found.astype(np.float32), network(x).float().numpy(), rtol=2e-2, atol=2e-2)


class Strange(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.fft.fft(torch.special.bessel_j0(x)).real + torch.linalg.inv(x @ x.mT)[..., :1]


def test_all_operators_without_converter_are_reported_at_once(tmp_path: Path) -> None:
    save(Strange(), (torch.randn(3, 4),), tmp_path / "m.pt2", "core")
    with pytest.raises(CompilerError) as caught:
        load(tmp_path / "m.pt2")
    told = {d.op for d in caught.value.diagnostics}
    assert any("bessel" in op for op in told) and any("inv" in op for op in told)
