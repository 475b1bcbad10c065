"""Dumps, the verifier between passes, times and counts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.instruments import DumpIR, Instrument, TimePasses, VerifyEach, count_ops
from compiler.ir.constants import load_blobs, read_module
from compiler.ir.core import Module, hash_of_array
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ops.math import Exp
from compiler.pass_manager import PassContext, PassManager, function_pass, run_pipeline
from compiler.rewrite import pattern

RELU = """// mluc ir 1
func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %y = nn.relu %x : tensor<2xf32>
  return %y
}
"""


ARRAY = np.arange(99, dtype=np.float32)
ADD = f"""// mluc ir 1
const @w : tensor<99xf32> = blob<sha256:{hash_of_array(ARRAY)[:16]}, 396 B>
func @main(%x: tensor<99xf32>) -> (tensor<99xf32>) {{
  %y = math.add %x, @w : tensor<99xf32>
  return %y
}}
"""


def to_exp(module: Module, ctx: PassContext) -> None:
    ctx.rewrite(module, pattern("nn.relu"), lambda m, r: r.replace(m.root, r.create(Exp, m.root.operands[0]).result))


def nothing(module: Module, ctx: PassContext) -> None:
    pass


def touch(module: Module, ctx: PassContext) -> None:
    """Tick the counter without changing what prints."""
    module.version += 1


def rebuild_weights(module: Module, ctx: PassContext) -> None:
    old = module.constants["w"]
    new = module.add_constant("w", old.data + 1)
    old.replace_all_uses_with(new)
    module.drop_unused_constants()


TO_EXP = function_pass("to-exp", to_exp)
NOTHING = function_pass("nothing", nothing)
TOUCH = function_pass("touch", touch)


@pytest.fixture
def module() -> Module:
    return parse_module(RELU)


def titles(stream: io.StringIO) -> list[str]:
    return [line[8:-5] for line in stream.getvalue().splitlines() if line.startswith("// ----")]


# -- dumps -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("changed", ["00-input", "03-to-exp"]),
        ("after", ["01-nothing", "02-touch", "03-to-exp", "04-nothing"]),
        ("before", ["01-before-nothing", "02-before-touch", "03-before-to-exp", "04-before-nothing"]),
        ("after:to-exp,touch", ["02-touch", "03-to-exp"]),
        ("changed:nothing", ["00-input"]),
    ],
)
def test_dump_moments_and_names(module, text, expected):
    stream = io.StringIO()
    PassManager([NOTHING, TOUCH, TO_EXP, NOTHING], [DumpIR.parse(text, stream=stream)]).run(module)
    assert titles(stream) == expected


def test_dump_shows_the_ir(module):
    stream = io.StringIO()
    PassManager([TO_EXP], [DumpIR("after", stream=stream)]).run(module)
    assert stream.getvalue() == f"// ---- 01-to-exp ----\n{RELU.replace('nn.relu', 'math.exp')}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [("chnged", "did you mean 'changed'"), ("after:to-xp", "did you mean 'to-exp'"), ("after:zzz", "no such pass in")],
)
def test_misspelt_dump_requests_are_refused(module, text, message):
    with pytest.raises(CompilerError, match=message):
        PassManager([TO_EXP], [DumpIR.parse(text)]).run(module)


def test_dump_directory_shares_each_constant_once(tmp_path):
    module = parse_module(ADD, blobs={hash_of_array(ARRAY): ARRAY})
    rebuild = function_pass("rebuild", rebuild_weights)
    result = run_pipeline(module, [NOTHING, rebuild, NOTHING], dump="after", dump_dir=tmp_path / "dumps")
    files = sorted(p.name for p in (tmp_path / "dumps").iterdir())
    assert files == ["01-nothing.mlu", "02-rebuild.mlu", "03-nothing.mlu", "constants.safetensors"]
    assert len(load_blobs(tmp_path / "dumps/constants.safetensors", check=True)) == 2
    assert print_module(read_module(tmp_path / "dumps/03-nothing.mlu")) == print_module(result)
    assert read_module(tmp_path / "dumps/01-nothing.mlu").constants["w"].data.tolist() == ARRAY.tolist()


def test_dumps_are_complete_when_a_pass_fails(tmp_path, module):
    def fail(module, ctx):
        raise ZeroDivisionError

    with pytest.raises(RuntimeError):
        run_pipeline(module, [TO_EXP, function_pass("fail", fail)], dump_dir=tmp_path, crash_directory=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00-input.mlu", "01-to-exp.mlu"]


# -- the verifier ----------------------------------------------------------------------------------------------------
def test_verifier_checks_the_input_first():
    module = parse_module(RELU)
    module.main.body.terminator.set_operand(0, Exp(module.main.arguments[0]).result)
    with pytest.raises(CompilerError) as caught:
        PassManager([NOTHING], [VerifyEach()]).run(module)
    assert "pass" not in caught.value.diagnostics[0].where


def test_verifier_raises_the_level_with_the_passes_that_define_it(module):
    instrument = VerifyEach()
    PassManager([function_pass("other", nothing)], [instrument]).run(module)
    assert instrument.level is None
    with pytest.raises(CompilerError, match="after pass 'legalize'"):
        PassManager([function_pass("legalize", nothing)], [instrument], crash_directory=None).run(module)
    assert instrument.level == "legalize"


def test_verify_each_can_be_off(module):
    def break_it(module, ctx):
        module.main.body.terminator.set_operand(0, Exp(module.main.arguments[0]).result)

    run_pipeline(module, [function_pass("break", break_it)], verify_each=False)


# -- times and counts ------------------------------------------------------------------------------------------------
def test_times_are_per_pass(module):
    ticks = iter([0.0, 1.0, 5.0, 8.0])
    instrument = TimePasses(clock=lambda: next(ticks))
    PassManager([NOTHING, TO_EXP], [instrument]).run(module)
    assert instrument.as_dict() == [{"pass": "nothing", "seconds": 1.0}, {"pass": "to-exp", "seconds": 3.0}]
    assert str(instrument).splitlines() == [
        "    1000.0 ms   25.0%  nothing",
        "    3000.0 ms   75.0%  to-exp",
        "    4000.0 ms  total",
    ]


def test_ops_are_counted_by_kind(module):
    assert count_ops(module) == {"nn.relu": 1}
    PassManager([TO_EXP]).run(module)
    assert count_ops(module) == {"math.exp": 1}


def test_instruments_see_every_pass_with_its_number_and_whether_it_changed(module):
    calls: list[object] = []

    class Recorder(Instrument):
        def pipeline_begins(self, module, passes):
            calls.append([p.name for p in passes])

        def before(self, pass_, index, module):
            calls.append(("before", pass_.name, index))

        def after(self, pass_, index, module, changed):
            calls.append(("after", pass_.name, index, changed))

        def pipeline_ends(self, module):
            calls.append("end")

    PassManager([TO_EXP, NOTHING], [Recorder()]).run(module)
    assert calls == [
        ["to-exp", "nothing"], ("before", "to-exp", 1), ("after", "to-exp", 1, True),
        ("before", "nothing", 2), ("after", "nothing", 2, False), "end",
    ]  # fmt: skip


def test_base_instrument_does_nothing(module):
    PassManager([TO_EXP], [Instrument()]).run(module)
    assert Path("01-to-exp.mlu").exists() is False
