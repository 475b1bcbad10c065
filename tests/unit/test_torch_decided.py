"""Branches and loops that the network's data decide, scripted and exported, judged by torch whichever way they go."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes the networks and judges what was read")

from compiler.errors import CompilerError  # noqa: E402
from compiler.evaluate.interpreter import Interpreter  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from compiler.ir.core import Module  # noqa: E402
from compiler.ir.parser import parse_module  # noqa: E402
from compiler.ir.printer import print_module  # noqa: E402
from compiler.ir.verifier import verify  # noqa: E402
from tests import decided_networks as networks  # noqa: E402
from tests import torch_networks  # noqa: E402
from tests.torchscript_archives import load_bytes  # noqa: E402
from tests.unit.aten_graphs import as_array, flat  # noqa: E402


def op_names(module: Module) -> list[str]:
    return [op.op_name for op in module.main.body if op.op_name.startswith("graph.")][:-1]


def agree(module: Module, network: Any) -> None:
    """That a module gives what a network gives, and is what it prints as."""
    verify(module)
    assert print_module(parse_module(print_module(module))) == print_module(module)
    for inputs in networks.WAYS:
        with torch.no_grad():
            expected = flat(network(*(x.clone() for x in inputs)))
        found = Interpreter(module).run([as_array(x) for x in inputs])
        assert len(found) == len(expected)
        for ours, theirs in zip(found, map(as_array, expected), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def scripted(network: Any, how: str = "script") -> Module:
    return load_bytes(torch_networks.saved((network.eval(), ()), how), {"x": (2, 3)})


@pytest.mark.parametrize("how", ["script", "freeze"])
@pytest.mark.parametrize("name", networks.SCRIPTED)
def test_a_scripted_network_goes_the_way_its_data_decide(name: str, how: str) -> None:
    torch.manual_seed(0)
    network = networks.SCRIPTED[name]().eval()
    agree(scripted(network, how), torch.jit.script(network))


@pytest.mark.parametrize("dialect", ["training", "core"])
@pytest.mark.parametrize("name", networks.EXPORTED)
def test_an_exported_network_goes_the_way_its_data_decide(name: str, dialect: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = networks.EXPORTED[name]().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, networks.WAYS[0])
        torch.export.save(program if dialect == "training" else program.run_decompositions(), tmp_path / "m.pt2")
    agree(load(tmp_path / "m.pt2"), network)


def test_what_is_known_leaves_no_region(tmp_path: Path) -> None:
    for name in ("known", "scan", "map"):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(networks.EXPORTED[name](), networks.WAYS[0]), tmp_path / "m.pt2")
        assert op_names(load(tmp_path / "m.pt2")) == []


def test_a_branch_that_raises_is_taken_for_one_that_never_runs() -> None:
    assert op_names(scripted(networks.Checking())) == []


def test_branches_of_different_sizes_leave_one_open() -> None:
    assert scripted(networks.Sizes()).main.outputs[0].type.shape == (None, 3)


def test_an_attribute_that_a_branch_sets_is_carried_from_call_to_call() -> None:
    module, network = scripted(networks.Remembering()), torch.jit.script(networks.Remembering())
    seen = np.zeros(1, np.float32)
    for (x,) in networks.WAYS:
        found, seen = Interpreter(module).run([x.numpy(), seen])
        np.testing.assert_allclose(found, network(x).numpy())
        np.testing.assert_allclose(seen, network.seen.numpy())


def test_a_tensor_or_none_is_refused_by_the_variable_s_name() -> None:
    with pytest.raises(CompilerError, match="'y' is a tensor or None, as the network's data decide"):
        scripted(networks.Perhaps())
