"""Replay of reproducers; bisection to the pass and the rewrite, with functions and commands as judges."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compiler.bisect import TIMED_OUT, Command, Culprit, bisect, remade_target, replay
from compiler.errors import CompilerError, InternalError
from compiler.ir.constants import read_module
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ops.activation import Sigmoid
from compiler.ops.math import Exp, Neg
from compiler.pass_manager import PASSES, PassContext, function_pass, run_pipeline
from compiler.rewrite import Match, Rewriter, pattern

LENGTH = 6


def chain() -> Module:
    """%v1 = relu %x, … %v6 = relu %v5."""
    body = [f"  %v{i + 1} = nn.relu %{f'v{i}' if i else 'x'} : tensor<2xf32>" for i in range(LENGTH)]
    lines = ["// mluc ir 1", "func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {", *body, f"  return %v{LENGTH}", "}"]
    return parse_module("\n".join(lines))


def replaced(match: Match, rewriter: Rewriter) -> None:
    """relu -> sigmoid, but wrongly exp at v4."""
    kind = Exp if match.root.name == "v4" else Sigmoid
    rewriter.replace(match.root, rewriter.create(kind, match.root.operands[0]).result)


def rewrite_relus(module: Module, ctx: PassContext) -> None:
    ctx.rewrite(module, pattern("nn.relu"), replaced)


def nothing(module: Module, ctx: PassContext) -> None:
    pass


def add_exp(module: Module, ctx: PassContext) -> None:
    """A change that is not counted."""
    last = module.main.body.terminator
    module.main.body.insert_before(last, Exp(module.main.arguments[0], names=["extra"]))


def negate_counted(module: Module, ctx: PassContext) -> None:
    """A pass that counts its changes without rules."""
    for op in list(module.main.body):
        if op.op_name == "nn.relu" and ctx.may_rewrite(f"negate at {op.name}"):
            op.block.insert_before(op, Exp(op.operands[0]) if op.name == "v3" else Neg(op.operands[0]))


FIRST, BAD, LAST = function_pass("first", nothing), function_pass("bad", rewrite_relus), function_pass("last", nothing)


def has_no_exp(path: Path) -> bool:
    return all(op.op_name != "math.exp" for op in read_module(path).ops())


# -- bisection -------------------------------------------------------------------------------------------------------
def test_bisection_finds_the_pass_and_the_rewrite(tmp_path):
    told: list[str] = []
    module = chain()
    before = str(module)
    culprit = bisect(module, [FIRST, BAD, LAST], has_no_exp, directory=tmp_path, tell=told.append)
    assert culprit == Culprit(
        2, "bad", 4, LENGTH, "replaced at v4", tmp_path / "02-bad-3.mlu", tmp_path / "02-bad-4.mlu"
    )
    assert str(culprit).splitlines()[:2] == ["pass 2, bad, makes it bad", "rewrite 4 of its 6: replaced at v4"]
    assert has_no_exp(culprit.good) and not has_no_exp(culprit.bad)
    assert told[0] == "good  the input" and "bad   first,bad,last" in told
    assert str(module) == before


def test_bisection_needs_few_judgements(tmp_path):
    judged: list[Path] = []

    def judge(path: Path) -> bool:
        judged.append(path)
        return has_no_exp(path)

    passes = [function_pass(f"p{i}", nothing) for i in range(30)]
    assert bisect(chain(), [*passes, BAD, *passes], judge, directory=tmp_path).pass_number == 31
    assert len(judged) < 20


def test_change_that_no_rewrite_made_is_blamed_on_the_pass(tmp_path):
    culprit = bisect(chain(), [FIRST, function_pass("adder", add_exp)], has_no_exp, directory=tmp_path)
    assert (culprit.pass_number, culprit.rewrite, culprit.rewrites) == (2, 0, 0)
    assert "not by one of its 0 counted rewrites" in str(culprit)
    assert culprit.good == tmp_path / "01-first.mlu" and culprit.bad == tmp_path / "02-adder.mlu"


def test_counted_changes_without_rules_are_bisected_too(tmp_path):
    culprit = bisect(chain(), [function_pass("negate", negate_counted)], has_no_exp, directory=tmp_path)
    assert (culprit.rewrite, culprit.description) == (3, "negate at v3")


def test_pass_that_fails_is_bad(tmp_path):
    def fail(module, ctx):
        raise ZeroDivisionError

    culprit = bisect(chain(), [FIRST, function_pass("fail", fail), LAST], has_no_exp, directory=tmp_path)
    assert (culprit.pass_number, culprit.pass_text) == (2, "fail")


def test_bisection_works_on_the_layout_pass(tmp_path):
    text = """// mluc ir 1
const @w : tensor<1x1x1x1xf32> = dense<[2.0]>
func @main(%x: tensor<1x1x2x2xf32>) -> (tensor<1x1x1x1xf32>) {
  %a = nn.conv2d %x, @w : tensor<1x1x2x2xf32>
  %b = nn.max_pool2d %a {kernel = [2, 2]} : tensor<1x1x1x1xf32>
  %c = nn.conv2d %b, @w : tensor<1x1x1x1xf32>
  return %c
}"""

    def pool_is_nchw(path: Path) -> bool:
        return all(
            op.op_name != "nn.max_pool2d" or op.attributes.get("layout") != "NHWC" for op in read_module(path).ops()
        )

    culprit = bisect(parse_module(text), "convert-layout", pool_is_nchw, directory=tmp_path)
    assert culprit.description == "nn.max_pool2d to NHWC at b"


@pytest.mark.parametrize(("answer", "message"), [(False, "fails on the input"), (True, "passes after")])
def test_bisection_needs_a_good_start_and_a_bad_end(tmp_path, answer, message):
    with pytest.raises(CompilerError, match=message):
        bisect(chain(), [BAD], lambda path: answer, directory=tmp_path)


# -- judges ----------------------------------------------------------------------------------------------------------
def test_any_command_is_a_judge(tmp_path):
    script = tmp_path / "judge.py"
    script.write_text("import sys; sys.exit('math.exp' in open(sys.argv[1]).read())")
    for command in (f"{sys.executable} {script}", f"{sys.executable} {script} {{}}"):
        culprit = bisect(chain(), [FIRST, BAD], command, directory=tmp_path / "b")
        assert (culprit.pass_number, culprit.rewrite) == (2, 4)


def test_command_that_takes_too_long_judges_bad(tmp_path):
    judge = Command(f"{sys.executable} -c 'import time; time.sleep(9)' {{}}", timeout=0.2)
    assert judge(tmp_path) is False
    assert judge.code == TIMED_OUT


@pytest.mark.parametrize("command", ["", "no-such-command-anywhere {}"])
def test_command_that_cannot_run_is_a_users_error(tmp_path, command):
    with pytest.raises(CompilerError, match="check command"):
        bisect(chain(), [BAD], command, directory=tmp_path)


# -- replay ----------------------------------------------------------------------------------------------------------
def test_replay_runs_what_was_left_on_the_ir_before(tmp_path, monkeypatch):
    fails = [True]

    def fragile(module, ctx):
        rewrite_relus(module, ctx)
        if fails[0]:
            raise ZeroDivisionError("once")

    named = function_pass("fragile", fragile)
    monkeypatch.setitem(PASSES, "fragile", type(named))
    with pytest.raises(InternalError) as caught:
        run_pipeline(chain(), "simplify,fragile,fold-constants", crash_directory=tmp_path)
    path = caught.value.reproducer
    with pytest.raises(InternalError, match="crashed: ZeroDivisionError: once"):
        replay(path)
    fails[0] = False
    assert [op.op_name for op in replay(path).main.body] == ["nn.sigmoid", "graph.return"]


def test_replay_remakes_the_target(tmp_path, monkeypatch):
    class Board:
        name = "m2"

    class Chip:
        name, board, cores = "mlu220", Board(), 2

    def fail_on_chip(module, ctx):
        if isinstance(ctx.target, Chip):
            raise ZeroDivisionError

    named = function_pass("chippy", fail_on_chip)
    monkeypatch.setitem(PASSES, "chippy", type(named))
    with pytest.raises(InternalError):
        run_pipeline(chain(), "chippy", target=Chip(), crash_directory=tmp_path)
    seen: list[dict] = []
    replay(tmp_path / "crash-chippy.mlu", make_target=seen.append)
    assert seen == [{"target": "mlu220", "board": "m2", "cores": 2}]


def test_reproducer_without_a_target_is_replayed_without_one():
    assert remade_target({"cores": 4}) is None
