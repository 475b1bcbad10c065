"""The smallest failing part of a module: which ops, inputs and outputs are left; what counts as the same failure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.constants import read_module
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ir.verifier import verify
from compiler.reduce import part_of, reduce

LENGTH = 40


def chain() -> Module:
    """%v1 = relu %x, %v2 = neg %v1, … with one exp that takes an earlier value too."""
    kinds = ["nn.relu", "math.neg"]
    body = [f"  %v{i + 1} = {kinds[i % 2]} %{f'v{i}' if i else 'x'} : tensor<2xf32>" for i in range(LENGTH)]
    body[29] = "  %v30 = math.exp %v29 : tensor<2xf32>"
    body[30] = "  %v31 = math.add %v30, %v3 : tensor<2xf32>"
    lines = ["// mluc ir 1", "func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {", *body, f"  return %v{LENGTH}", "}"]
    return parse_module("\n".join(lines))


def kinds_in(path: Path) -> list[str]:
    return [op.op_name for op in read_module(path).main.body]


def has(*kinds: str):
    """A judge: good unless all of these ops are there."""
    return lambda path: not set(kinds) <= set(kinds_in(path))


# -- parts -------------------------------------------------------------------------------------------------------------
def test_values_of_ops_left_out_become_inputs_of_their_name():
    part = part_of(chain(), [29, 30])
    verify(part)
    assert {a.name for a in part.main.arguments} == {"v3", "v29"}
    assert [v.name for v in part.main.outputs] == ["v31"]


def test_results_that_nothing_takes_become_outputs():
    assert [v.name for v in part_of(chain(), [0, 5, LENGTH - 1]).main.outputs] == ["v1", "v6", f"v{LENGTH}"]


def test_part_leaves_the_module_as_it_was():
    module = chain()
    before = str(module)
    part_of(module, [3])
    assert str(module) == before


def test_constants_and_functions_that_a_part_does_not_need_go():
    module = parse_module("""// mluc ir 1
const @w : tensor<2xf32> = dense<[1.0, 2.0]>
const @u : tensor<2xf32> = dense<[3.0, 4.0]>
func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %a = graph.call %x {callee = "outer"} : tensor<2xf32>
  %b = math.add %a, @w : tensor<2xf32>
  return %b
}
func @outer(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %y = graph.call %x {callee = "inner"} : tensor<2xf32>
  return %y
}
func @inner(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %y = math.mul %x, @u : tensor<2xf32>
  return %y
}""")
    calling, adding = part_of(module, [0]), part_of(module, [1])
    assert (list(calling.functions), list(calling.constants)) == (["main", "outer", "inner"], ["u"])
    assert (list(adding.functions), list(adding.constants)) == (["main"], ["w"])
    verify(calling), verify(adding)


# -- the search --------------------------------------------------------------------------------------------------------
def test_one_guilty_op_is_left_alone(tmp_path):
    found = reduce(chain(), has("math.exp"), directory=tmp_path)
    assert kinds_in(found.path) == ["math.exp", "graph.return"]
    assert (found.ops, found.ops_before) == (1, LENGTH)
    assert found.judgements < 20


def test_ops_that_fail_only_together_are_kept_together(tmp_path):
    def judge(path: Path) -> bool:
        names = {op.name for op in read_module(path).main.body}
        return not {"v2", "v35"} <= names

    found = reduce(chain(), judge, directory=tmp_path)
    assert [op.name for op in found.module.main.body][:-1] == ["v2", "v35"]


def test_only_the_output_that_fails_is_left(tmp_path):
    def judge(path: Path) -> bool:
        names = {op.name for op in read_module(path).main.body}
        outputs = read_module(path).main.output_names
        return not ({"v2", "v35"} <= names and ("v35" in outputs or "v40" in outputs))

    assert reduce(chain(), judge, directory=tmp_path).module.main.output_names == ("v35",)


def test_parts_get_the_values_their_inputs_really_have(tmp_path):
    module = chain()
    x = np.array([0.5, 2.0], np.float32)
    found = reduce(module, has("math.exp"), inputs=[x], directory=tmp_path)
    given = dict(np.load(found.path.with_suffix(".npz")))
    wanted = {}
    Interpreter(module).run([x], lambda value, array: wanted.setdefault(value.name, array))
    np.testing.assert_array_equal(given["v29"], wanted["v29"])
    np.testing.assert_array_equal(Interpreter(found.module).run(given)[0], wanted["v30"])


def test_the_search_goes_on_inside_the_function_that_is_called(tmp_path):
    body = chain().main
    text = str(chain()).replace("func @main", "func @subnet0")
    module = parse_module(text + """func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %n = math.neg %x : tensor<2xf32>
  %y = graph.call %n {callee = "subnet0"} : tensor<2xf32>
  return %y
}
""")
    x = np.array([-0.5, -2.0], np.float32)

    def judge(path: Path) -> bool:
        return all(op.op_name != "math.exp" for op in read_module(path).ops())

    found = reduce(module, judge, inputs=[x], directory=tmp_path)
    assert (found.ops, found.ops_before) == (1, len(body.body) - 1 + 2)
    assert [op.op_name for op in found.module.main.body] == ["graph.call", "graph.return"]
    assert [op.op_name for op in found.module.functions["subnet0"].body] == ["math.exp", "graph.return"]
    assert list(np.load(found.path.with_suffix(".npz"))) == ["v29"]


def test_another_failure_than_that_of_the_whole_does_not_count(tmp_path):
    """Without the exp the command ends with 5, which is another fault: only 3 is looked for."""
    script = tmp_path / "judge.py"
    script.write_text("import sys; text = open(sys.argv[1]).read(); sys.exit(3 if 'math.exp' in text else 5)")
    found = reduce(chain(), f"{sys.executable} {script}", directory=tmp_path / "r")
    assert kinds_in(found.path) == ["math.exp", "graph.return"]


def test_what_does_not_fail_cannot_be_reduced(tmp_path):
    with pytest.raises(CompilerError, match=r"E413.*nothing wrong with the module"):
        reduce(chain(), f"{sys.executable} -c 'import sys' {{}}", directory=tmp_path)


def test_each_step_is_told(tmp_path):
    told: list[str] = []
    reduce(chain(), has("math.exp"), directory=tmp_path, tell=told.append)
    assert told[0] == "good  20 ops, 1 outputs"
    assert told[-1].startswith("fails 1 ops")
