"""Attributes that change from call to call: inputs and outputs with first values, or a fault that says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.lint import lint, state_notes
from compiler.ir.constants import read_module, write_module
from compiler.ir.core import Module
from tests.torchscript_archives import Instance, forward, imported, members, written

ZEROS = np.zeros((1, 2), np.float32)
STEPS = [np.float32([[k, 1 - k]]) for k in range(5)]


def looped(module: Module, steps: list[np.ndarray]) -> list[np.ndarray]:
    """The first output of each call, the state going round."""
    main = module.main
    types = {a.name: a.type for a in main.arguments}
    first = module.attributes["first_state"]
    state = {name: np.full(types[name].shape, value, types[name].dtype.numpy) for name, value in first.items()}
    outputs = []
    for x in steps:
        feed = {**state, main.arguments[0].name: x}
        found = dict(zip(main.output_names, Interpreter(module).run([feed[n] for n in types]), strict=True))
        outputs.append(next(iter(found.values())))
        state = {name: found[output] for output, name in module.attributes["state"].items()}
    return outputs


def load(body: str, root: Any, more: str = "", **options: Any) -> Module:
    return imported(forward(body, more=more), root, shapes={"x": (1, 2)}, **options)


def fault(body: str, root: Any, message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        load(body, root)


def test_an_attribute_that_is_set_becomes_an_input_and_an_output() -> None:
    module = load("self.h = torch.add(torch.mul(self.h, 0.5), x)\nreturn torch.neg(self.h)", {"h": ZEROS})
    assert [a.name for a in module.main.arguments] == ["x", "h"]
    assert module.main.output_names == ("output", "h.next")
    assert module.attributes["state"] == {"h.next": "h"} and module.attributes["first_state"] == {"h": 0.0}
    h, expected = ZEROS, []
    for x in STEPS:
        h = h * np.float32(0.5) + x
        expected.append(-h)
    np.testing.assert_array_equal(looped(module, STEPS), expected)


def test_a_buffer_written_in_place_is_state_too() -> None:
    module = load("_0 = torch.add_(torch.mul_(self.h, 0.5), x)\nreturn self.h", {"h": ZEROS})
    assert module.attributes["state"] == {"h.next": "h"}
    np.testing.assert_array_equal(looped(module, STEPS[:3])[2], STEPS[0] / 4 + STEPS[1] / 2 + STEPS[2])


def test_state_of_inner_modules_is_called_by_its_path() -> None:
    more = (
        "class Cell(Module):\n  def forward(self: __torch__.Cell, x: Tensor) -> Tensor:\n"
        "    self.h = torch.add(self.h, x)\n    return self.h\n"
    )
    cells = {"a": Instance("Cell", {"h": ZEROS}), "b": Instance("Cell", {"h": ZEROS})}
    module = load("a = self.a\nb = self.b\nreturn (b).forward((a).forward(x))", cells, more)
    assert module.attributes["state"] == {"a.h.next": "a.h", "b.h.next": "b.h"}
    np.testing.assert_array_equal(looped(module, STEPS[:2])[1], STEPS[0] + (STEPS[0] + STEPS[1]))


def test_first_values_that_are_not_zero_are_kept() -> None:
    first = np.float32([[3, 4]])
    module = load("self.h = torch.add(self.h, x)\nreturn self.h", {"h": first})
    assert module.attributes["first_state"] == {"h": [3.0, 4.0]}
    module = load("self.h = torch.add(self.h, x)\nreturn self.h", {"h": np.ones((1, 2), np.float32)})
    assert module.attributes["first_state"] == {"h": 1.0}


@pytest.mark.parametrize("empty", [None, np.zeros(0, np.float32)])
def test_state_that_is_empty_before_the_first_call_begins_with_what_that_call_takes_instead(empty: Any) -> None:
    test = "torch.__is__(h, None)" if empty is None else "torch.__not__(bool(torch.len(h)))"
    body = f"h = self.h\nif {test}:\n  h1 = torch.zeros([1, 2])\nelse:\n  h1 = unchecked_cast(Tensor, h)\n"
    module = load(body + "y = torch.add(torch.mul(h1, 2), x)\nself.h = y\nreturn y", {"h": empty})
    assert module.attributes["first_state"] == {"h": 0.0}
    np.testing.assert_array_equal(looped(module, STEPS[:2])[1], STEPS[0] * 2 + STEPS[1])


def test_a_constant_set_in_the_first_call_is_a_first_value_that_is_tried() -> None:
    body = (
        "h = self.h\nif torch.__not__(bool(torch.len(h))):\n  self.h = torch.full([1, 2], 5.)\nelse:\n  pass\n"
        "y = torch.add(self.h, x)\nself.h = y\nreturn y"
    )
    module = load(body, {"h": np.zeros(0, np.float32)})
    assert module.attributes["first_state"] == {"h": 5.0}
    np.testing.assert_array_equal(looped(module, STEPS[:1])[0], STEPS[0] + 5)


def test_numbers_and_flags_settle() -> None:
    body = (
        "if self.first:\n  self.h = torch.zeros([1, 2])\n  self.first = False\nelse:\n  pass\n"
        "self.h = torch.add(self.h, x)\nreturn self.h"
    )
    module = load(body, {"first": True, "h": np.zeros(0, np.float32)})
    assert module.attributes["state"] == {"h.next": "h"}
    np.testing.assert_array_equal(looped(module, STEPS[:2])[1], STEPS[0] + STEPS[1])


def test_a_counter_that_nothing_depends_on_is_no_state() -> None:
    module = load("self.n = torch.add(self.n, 1)\nreturn torch.relu(x)", {"n": 0})
    assert [a.name for a in module.main.arguments] == ["x"] and "state" not in module.attributes


def test_an_attribute_that_is_written_but_never_read_is_no_state() -> None:
    module = load("self.last = torch.relu(x)\nreturn self.last", {"last": ZEROS})
    assert module.main.output_names == ("output",) and "state" not in module.attributes


def test_a_table_made_in_the_first_call_is_a_constant() -> None:
    body = "if torch.__is__(self.t, None):\n  self.t = torch.arange(2)\nelse:\n  pass\nreturn torch.add(x, self.t)"
    module = load(body, {"t": None})
    assert "state" not in module.attributes
    np.testing.assert_array_equal(Interpreter(module).run([STEPS[0]])[0], STEPS[0] + [0, 1])


def test_a_first_call_that_computes_something_else_is_refused() -> None:
    body = (
        "if self.first:\n  y = torch.mul(x, 3)\n  self.first = False\nelse:\n  y = torch.add(self.h, x)\n"
        "self.h = y\nreturn y"
    )
    fault(body, {"first": True, "h": ZEROS}, "the first call computes something else")


def test_a_counter_that_the_network_depends_on_is_refused() -> None:
    fault("self.n = torch.add(self.n, 1)\nreturn torch.mul(x, self.n)", {"n": 0}, "never settles: 'n'")


def test_a_list_of_tensors_that_grows_is_refused() -> None:
    fault("_0 = torch.append(self.all, x)\nreturn torch.cat(self.all)", {"all": [ZEROS]}, "'all'")


def test_state_that_grows_is_refused() -> None:
    fault("self.h = torch.cat([self.h, x])\nreturn torch.sum(self.h)", {"h": ZEROS}, "never settles: 'h'")


def test_a_network_with_state_and_a_fault_reports_the_fault() -> None:
    fault("self.h = torch.nosuch(self.h, x)\nreturn self.h", {"h": ZEROS}, "nosuch")


def test_state_is_told_by_lint_and_survives_as_text(tmp_path: Any) -> None:
    files = members(forward("self.h = torch.add(self.h, x)\nreturn self.h"), {"h": ZEROS})
    report = lint(written(tmp_path, files), shapes={"x": (1, 2)})
    assert report.ok and report.notes == [
        "output 'h.next' is input 'h' of the next call, 0 everywhere at first"
    ] and report.notes[0] in report.render()  # fmt: skip
    module = load("self.h = torch.add(self.h, x)\nreturn self.h", {"h": np.float32([[3, 4]])})
    write_module(module, tmp_path / "m.mlu")
    again = read_module(tmp_path / "m.mlu")
    assert again.attributes["state"] == {"h.next": "h"} and state_notes(again) == state_notes(module)


# -- compiled ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network that remembers [3, 4] at first, compiled."""
    from compiler.driver import calibrate, compile_model, prepare

    first = np.float32([[3, 4]])
    module = prepare(load("self.h = torch.add(torch.mul(self.h, 0.5), x)\nreturn torch.neg(self.h)", {"h": first}))
    model = compile_model(module, scheme=calibrate(module, [[x, first] for x in STEPS]), cores=1)
    path = tmp_path_factory.mktemp("compiled") / "m.cambricon"
    model.save(path)
    return path


def test_a_session_loops_the_state_the_file_names_from_its_first_values(compiled: Any) -> None:
    from runtime.session import Session

    session = Session(compiled, state=True)
    assert [r.name for r in session.inputs] == ["x"] and [r.name for r in session.outputs] == ["output"]
    for _ in range(2):
        h = np.float32([[3, 4]])
        for x in STEPS:
            h = h * np.float32(0.5) + x
            np.testing.assert_allclose(session.run(x), -h, rtol=1e-2, atol=1e-2)
        session.reset()


def test_mluc_run_takes_samples_as_calls_in_a_row(compiled: Any, tmp_path: Any) -> None:
    from compiler.cli.main import main

    np.savez(tmp_path / "x.npz", x=np.concatenate(STEPS))
    output = str(tmp_path / "y.npz")
    main(["run", str(compiled), "--inputs", str(tmp_path / "x.npz"), "--state", "--output", output])
    found = np.load(output)["output"].reshape(-1, 2)
    np.testing.assert_allclose(found[0], -(np.float32([3, 4]) / 2 + STEPS[0][0]), rtol=1e-2)
    assert len(found) == len(STEPS)


def test_state_that_a_file_names_wrongly_is_refused(compiled: Any) -> None:
    from runtime.session import Session
    from targets.mlu220.container import OfflineModel

    model = OfflineModel.load(compiled)
    state = {"h.next": "h"}
    for metadata in ({"state": 3}, {"state": {"h.next": "nobody"}}, {"state": state, "first_state": {"h": [1]}},
                     {"state": state, "first_state": {"h": "text"}}):  # fmt: skip
        model.metadata = metadata
        with pytest.raises(CompilerError, match="E726"):
            Session(model, state=True)


def test_mluc_compile_makes_the_states_that_calibration_data_lack(tmp_path: Any, capsys: Any) -> None:
    from compiler.cli.main import main

    files = members(forward("self.h = torch.add(torch.mul(self.h, 0.5), x)\nreturn torch.matmul(self.h, self.w)"),
                    {"h": ZEROS, "w": np.eye(2, dtype=np.float32)})  # fmt: skip
    path, output = str(written(tmp_path, files)), str(tmp_path / "m.cambricon")
    np.savez(tmp_path / "x.npz", x=np.stack(STEPS))
    arguments = ["--shape", "x=1x2", "--calibrate", str(tmp_path / "x.npz"), "-o", output]
    assert main(["compile", path, *arguments]) == 0
    assert main(["inspect", output]) == 0
    assert "state: {'h.next': 'h'}" in capsys.readouterr().out


def test_a_network_with_state_and_a_bound_number_is_compared_with_its_archive(tmp_path: Any, capsys: Any) -> None:
    from compiler.cli.main import main

    body = "self.h = torch.add(torch.mul(self.h, k), x)\nreturn torch.matmul(self.h, self.w)"
    files = members(forward(body, "x: Tensor,\n    k: int"), {"h": ZEROS, "w": np.eye(2, dtype=np.float32)})
    path, output = str(written(tmp_path, files)), str(tmp_path / "m.cambricon")
    calls, single = str(tmp_path / "x.npz"), str(tmp_path / "one.npz")
    np.savez(calls, x=np.stack(STEPS))
    np.savez(single, x=STEPS[0], h=np.float32([[3, 4]]))
    bound = ["--bind", "k=2"]
    assert main(["compile", path, "--shape", "x=1x2", *bound, "--calibrate", calls, "-o", output]) == 0
    assert main(["compare", path, output, *bound, "--data", calls]) == 0
    assert f"the twin's bytes from {output}" in capsys.readouterr().out
    run = ["run", output, "--inputs"]
    assert main([*run, single, "--against", path, *bound, "--tolerance", "0.1"]) == 0
    assert main([*run, single, "--against", path]) == 1
    assert "--bind k=" in capsys.readouterr().err
    assert main([*run, calls]) == 1
    assert "help: --state feeds back" in capsys.readouterr().err


def test_calls_in_a_row_carry_their_state() -> None:
    from compiler.samples import Calls, Input, Samples, _Stack

    module = load("self.h = torch.add(self.h, x)\nreturn self.h", {"h": np.float32([[3, 4]])})
    samples = Samples([_Stack(Input("x", (1, 2), np.dtype(np.float32)), np.stack(STEPS))])
    found = list(Calls(module, samples))
    assert len(found) == len(Calls(module, samples)) == len(STEPS)
    np.testing.assert_array_equal(found[2]["h"], np.float32([[3, 4]]) + STEPS[0] + STEPS[1])
