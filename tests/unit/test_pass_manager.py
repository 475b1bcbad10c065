"""Pipeline text, finding passes, options, running, faults that name the pass; plugins."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler import pipelines
from compiler.errors import CompilerError, InternalError, error
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ops.math import Exp
from compiler.pass_manager import (
    PASSES,
    PIPELINES,
    Pass,
    PassContext,
    PassManager,
    find_pass,
    function_pass,
    load_pass_file,
    make_pass,
    option_fields,
    parse_pipeline,
    pass_names,
    print_pipeline,
    run_pipeline,
)
from compiler.reproducer import read_reproducer
from compiler.rewrite import pattern

PLUGIN = Path(__file__).parent.parent / "plugin_example"
RELU = """// mluc ir 1
func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %y = nn.relu %x : tensor<2xf32>
  return %y
}
"""


@dataclass(frozen=True, kw_only=True)
class Everything(Pass):
    """A pass with an option of every kind.

    It does nothing.
    """

    name: ClassVar[str] = "everything"
    count: int = 1
    max_ratio: float = 0.5
    fast: bool = False
    word: str = ""
    mode: Literal["near", "far"] = "near"
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1,)
    limit: int | None = None
    path: Path | None = None
    mixed: float | str = "auto"
    table: dict[str, int] = field(default_factory=dict, metadata={"text": False})

    def run(self, module: Module, ctx: PassContext) -> None:
        ctx.statistics.count("runs", self.count)


@dataclass(frozen=True, kw_only=True)
class Needy(Pass):
    """A pass that must be told something."""

    name: ClassVar[str] = "needy"
    ratio: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"ratio must be in 0..1, not {self.ratio}")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for kind in (Everything, Needy):
        monkeypatch.setitem(PASSES, kind.name, kind)


@pytest.fixture
def module() -> Module:
    return parse_module(RELU)


def faults(text: str) -> list[str]:
    with pytest.raises(CompilerError) as caught:
        parse_pipeline(text)
    return [f"{d.code} {d.message}" for d in caught.value.diagnostics]


def to_exp(module: Module, ctx: PassContext) -> None:
    ctx.rewrite(module, pattern("nn.relu"), lambda m, r: r.replace(m.root, r.create(Exp, m.root.operands[0]).result))


# -- text ------------------------------------------------------------------------------------------------------------
def test_options_are_parsed_by_the_fields_types():
    text = 'everything{count=3, max-ratio=2, fast, word="a, b", mode=far, names=[x, "y z"], sizes=[1,2], limit=none}'
    assert parse_pipeline(text) == [
        Everything(count=3, max_ratio=2.0, fast=True, word="a, b", mode="far", names=("x", "y z"), sizes=(1, 2))
    ]


def test_single_value_is_a_list_of_one():
    assert parse_pipeline("everything{names=conv1.w,sizes=7}") == [Everything(names=("conv1.w",), sizes=(7,))]


def test_union_takes_the_first_kind_that_fits():
    assert [p.mixed for p in parse_pipeline("everything{mixed=2},everything{mixed=auto},everything{mixed=0.5}")] == [
        2.0, "auto", 0.5,
    ]  # fmt: skip


def test_paths_need_no_quotes():
    assert parse_pipeline("everything{path=../a/b-c.toml}")[0].path == Path("../a/b-c.toml")


def test_underscores_in_option_names_are_understood():
    assert parse_pipeline("everything{max_ratio=0.25}") == [Everything(max_ratio=0.25)]


def test_defaults_are_left_out_of_printed_text():
    assert print_pipeline([Everything(), Everything(count=2)]) == "everything,everything{count=2}"
    assert str(Everything(fast=True)) == "everything{fast=true}"


words = st.text(max_size=8)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        Everything, count=st.integers(), max_ratio=st.floats(allow_nan=False), fast=st.booleans(), word=words,
        mode=st.sampled_from(["near", "far"]), names=st.lists(words).map(tuple),
        sizes=st.lists(st.integers()).map(tuple),
        limit=st.none() | st.integers(), mixed=st.floats(allow_nan=False) | words,
    ).filter(lambda p: type(p.mixed) is float or p.mixed not in ("none",))
)  # fmt: skip
def test_printed_pipelines_parse_back(pass_):
    assert parse_pipeline(print_pipeline([pass_, pass_])) == [pass_, pass_]


def test_named_pipelines_expand(monkeypatch):
    monkeypatch.setitem(PIPELINES, "inner", "everything{count=2},everything")
    monkeypatch.setitem(PIPELINES, "outer", "inner,everything,inner")
    assert print_pipeline(parse_pipeline("outer")) == (
        "everything{count=2},everything,everything,everything{count=2},everything"
    )


def test_prepare_is_text_of_passes_that_exist():
    names = [p.name for p in parse_pipeline("prepare")]
    assert names == ["drop-asymmetric", "simplify", "expand-recurrent", "fuse-batchnorm", "simplify"]


def test_pipeline_that_contains_itself_is_refused(monkeypatch):
    monkeypatch.setitem(PIPELINES, "a", "b")
    monkeypatch.setitem(PIPELINES, "b", "everything,a")
    assert faults("a") == ["E402 pipeline 'a' contains itself: a -> b -> a"]


def test_pipelines_take_no_options():
    assert faults("prepare{x=1}") == ["E402 pipeline 'prepare' takes no options"]


def test_empty_text_is_no_passes():
    assert parse_pipeline("  ") == []


# -- faults of text --------------------------------------------------------------------------------------------------
def test_every_unknown_name_and_option_is_reported_with_the_nearest():
    with pytest.raises(CompilerError) as caught:
        parse_pipeline("simplfy,everything{cuont=1,fast=3,mode=middle},needy")
    assert str(caught.value) == (
        "error[E401] no pass or pipeline is called 'simplfy'\n"
        "  help: did you mean 'simplify'?\n"
        "error[E403] everything: has no option 'cuont'\n"
        "  help: did you mean 'count'?\n"
        "error[E404] everything: option 'fast' must be true or false, not 3\n"
        "error[E404] everything: option 'mode' must be one of near, far, not middle\n"
        "error[E404] needy: needs option 'ratio'"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("everything{count=1.5}", "option 'count' must be an integer, not 1.5"),
        ("everything{count=true}", "option 'count' must be an integer, not true"),
        ("everything{sizes=[1,x]}", "option 'sizes' must be a list, each an integer, not [1,x]"),
        ("everything{limit=x}", "option 'limit' must be an integer or none, not x"),
        ("everything{table=1}", "has no option 'table'"),
        ("needy{ratio=2}", "ratio must be in 0..1, not 2.0"),
    ],
)
def test_wrong_values_say_what_is_wanted(text, message):
    assert faults(text)[0].partition(" ")[2] == message


@pytest.mark.parametrize(
    ("text", "wanted", "column"),
    [
        ("a,,b", "a pass name", 2),
        ("everything{count=}", "a value", 17),
        ("everything{1=2}", "an option name or '}'", 11),
        ("everything{count=1", "'}'", 18),
        ('everything{word="x}', "a closing quote", 17),
        ("everything everything", "',' or the end", 11),
        ("everything{sizes=[1 2]}", "']'", 20),
    ],
)
def test_syntax_faults_point_at_the_place(text, wanted, column):
    with pytest.raises(CompilerError) as caught:
        parse_pipeline(text)
    (fault,) = [d for d in caught.value.diagnostics if d.code == "E402"]
    assert fault.message == f"pipeline text: expected {wanted}"
    assert fault.excerpt == f"{text}\n{' ' * column}^"


def test_option_given_twice_is_refused():
    with pytest.raises(CompilerError, match="'count' is given twice"):
        parse_pipeline("everything{count=1,count=2}")


# -- finding passes --------------------------------------------------------------------------------------------------
def test_names_are_listed_without_importing_passes():
    code = (
        "import sys, compiler.pass_manager as pm; pm.pass_names();"
        "print([m for m in sys.modules if m.split('.')[0] in ('passes', 'targets', 'networkx', 'numba', 'onnx')])"
    )
    root = PLUGIN.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
    assert {"simplify", "everything"} <= set(pass_names())


def test_own_passes_are_called_what_the_table_says_and_have_a_summary():
    for name in ("simplify", "fold-constants", "fuse-batchnorm", "convert-layout"):
        assert find_pass(name).name == name and find_pass(name).summary()


def test_option_fields_are_in_kebab_case_and_hide_what_text_cannot_say():
    assert list(option_fields(Everything))[:2] == ["count", "max-ratio"]
    assert "table" not in option_fields(Everything)


FILE = '''
from dataclasses import dataclass
from typing import ClassVar
from compiler.pass_manager import Pass

@dataclass(frozen=True, kw_only=True)
class Shout(Pass):
    """Say something."""
    name: ClassVar[str] = "{name}"
    loud: bool = True
    def run(self, module, ctx):
        ctx.diagnose("W001", "HEY" if self.loud else "hey")
'''


def test_pass_file_makes_its_passes_known(tmp_path, monkeypatch, module):
    monkeypatch.setattr(pipelines, "PASSES", dict(PASSES))
    path = tmp_path / "shout.py"
    path.write_text(FILE.format(name="shout"))
    assert [kind.name for kind in load_pass_file(path)] == ["shout"]
    ctx = PassContext()
    run_pipeline(module, "shout{loud=false}", ctx=ctx)
    assert [d.message for d in ctx.diagnostics] == ["hey"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no pass"), ("raise ValueError('no')", "does not load: ValueError: no"),
        (FILE.format(name="simplify"), "defines 'simplify', which exists already"),
        ("from compiler.pass_manager import Pass\nclass A(Pass):\n    name = 'a-pass'", "is not a dataclass"),
    ],
)  # fmt: skip
def test_pass_file_faults_name_the_file(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(pipelines, "PASSES", dict(PASSES))
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(CompilerError, match=message):
        load_pass_file(path)


def test_missing_pass_file_is_a_users_error(tmp_path):
    with pytest.raises(CompilerError, match="no such file"):
        load_pass_file(tmp_path / "none.py")


# -- plugins ---------------------------------------------------------------------------------------------------------
HARD_SWISH = """// mluc ir 1
const @three : tensor<f32> = dense<[3.0]>
const @six : tensor<f32> = dense<[6.0]>
func @main(%x: tensor<2xf32>) -> (tensor<2xf32>) {
  %a = math.add %x, @three : tensor<2xf32>
  %c = math.clip %a {low = 0.0, high = 6.0} : tensor<2xf32>
  %m = math.mul %c, %x : tensor<2xf32>
  %y = math.div %m, @six : tensor<2xf32>
  return %y
}
"""


def entry_point(monkeypatch, name: str, value: str) -> None:
    point = importlib.metadata.EntryPoint(name, value, pipelines.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])


def test_plugin_is_found_by_its_entry_point(monkeypatch):
    monkeypatch.syspath_prepend(str(PLUGIN))
    entry_point(monkeypatch, "find-hard-swish", "mluc_hard_swish:FindHardSwish")
    assert "find-hard-swish" in pass_names()
    assert "%y = nn.hard_swish %x" in print_module(run_pipeline(parse_module(HARD_SWISH), "find-hard-swish"))
    assert "math.div" in print_module(run_pipeline(parse_module(HARD_SWISH), "find-hard-swish{only=[z]}"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("broken", "no_such_module_of_anyone:Pass", "does not load: ModuleNotFoundError"),
        ("other-name", "mluc_hard_swish:FindHardSwish", "registers 'other-name' but the class calls itself"),
        ("number", "math:pi", "derive the class from"),
    ],
)
def test_plugins_that_break_the_rules_are_named(monkeypatch, name, value, message):
    monkeypatch.syspath_prepend(str(PLUGIN))
    entry_point(monkeypatch, name, value)
    with pytest.raises(CompilerError, match=message):
        find_pass(name)


@pytest.mark.slow
def test_plugin_can_be_installed(tmp_path):
    options = ["-q", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(PLUGIN)], check=True)
    code = (
        "from compiler.pass_manager import *; from compiler.ir.parser import parse_module; import sys;"
        "print(run_pipeline(parse_module(sys.stdin.read()), 'find-hard-swish'))"
    )
    root = PLUGIN.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], input=HARD_SWISH, capture_output=True, text=True, check=True, cwd=root,
        env={"PYTHONPATH": f"{tmp_path}:{root}"},
    )  # fmt: skip
    assert "nn.hard_swish" in done.stdout


# -- running ---------------------------------------------------------------------------------------------------------
def test_run_pipeline_leaves_the_module_alone(module):
    result = run_pipeline(module, [function_pass("to-exp", to_exp)])
    assert print_module(module) == RELU
    assert "%y = math.exp %x" in print_module(result)


def test_stop_after_names_a_pass_or_its_second_run(module):
    ctx = PassContext()
    run_pipeline(module, "everything,simplify,everything{count=10},simplify", ctx=ctx, stop_after="everything#2")
    assert ctx.statistics.of("everything")["runs"] == 11
    with pytest.raises(CompilerError, match="no such pass"):
        run_pipeline(module, "everything", stop_after="everything#2")
    with pytest.raises(CompilerError, match="did you mean 'everything'"):
        run_pipeline(module, "everything", stop_after="evrything")
    with pytest.raises(CompilerError, match="the pipeline runs 'everything' once"):
        run_pipeline(module, "everything", stop_after="everything#first")


def test_passes_that_need_a_target_say_so_before_anything_runs(module):
    @dataclass(frozen=True, kw_only=True)
    class Lower(Pass):
        name: ClassVar[str] = "lower"
        requires_target: ClassVar[bool] = True

    with pytest.raises(CompilerError, match="these passes need a target: lower"):
        PassManager([Lower()])
    PassManager([Lower()], ctx=PassContext(target=object()))


def test_statistics_count_rewrites_and_declines(module):
    ctx = PassContext()
    run_pipeline(module, [function_pass("to-exp", to_exp)], ctx=ctx)
    assert ctx.counter.count == 1
    assert str(ctx.statistics) == "to-exp\n       1  <lambda>"


def test_statistics_say_what_was_left_alone_and_why():
    statistics = PassContext().statistics
    statistics.current = "fuse-batchnorm"
    for reason, amount in (("fold", 7), ("fold declined: shared", 1), ("fold declined: scale too large", 2)):
        statistics.count(reason, amount)
    assert statistics.left_alone("fuse-batchnorm") == {"fold": {"scale too large": 2, "shared": 1}}
    assert str(statistics).splitlines()[1:] == [
        "       7  fold",
        "       3  left alone by fold: 2 scale too large, 1 shared",
    ]


def test_faults_of_a_pass_say_in_which_pass(module):
    def refuse(module, ctx):
        raise error("E500", "cannot", where="node 'A'")

    with pytest.raises(CompilerError) as caught:
        run_pipeline(module, [function_pass("refuse", refuse)])
    assert caught.value.diagnostics[0].where == "node 'A'  in pass 'refuse'"


# -- crashes ---------------------------------------------------------------------------------------------------------
def crash(module: Module, ctx: PassContext) -> None:
    """Change the module, then fail."""
    to_exp(module, ctx)
    raise ZeroDivisionError("by zero")


def test_crash_writes_a_reproducer_of_the_ir_before_the_pass_and_the_rest(tmp_path, module, monkeypatch):
    class Crash(Pass):
        """Fails."""

        name = "crash"

        def run(self, module, ctx):
            crash(module, ctx)

    monkeypatch.setitem(PASSES, "crash", dataclass(frozen=True, kw_only=True)(Crash))
    with pytest.raises(InternalError) as caught:
        run_pipeline(
            module, "everything,crash,everything{count=2}", options={"cores": 4}, crash_directory=tmp_path / "crashes"
        )
    path = tmp_path / "crashes" / "crash-crash.mlu"
    assert caught.value.reproducer == str(path)
    assert str(caught.value) == (
        f"pass 'crash' crashed: ZeroDivisionError: by zero (test_pass_manager.py, line 425)"
        f"; replay it with: mluc debug replay {path}"
    )
    found = read_reproducer(path)
    assert print_module(found.module) == RELU
    assert (found.pipeline, found.options) == ("crash,everything{count=2}", {"cores": 4})
    assert found.message == "ZeroDivisionError: by zero"
    assert path.read_text().splitlines()[1] == f"// reproducer pipeline: {json.dumps(found.pipeline)}"


def test_option_that_is_a_scheme_goes_into_a_file_beside_the_reproducer(tmp_path, module):
    class Scheme:
        def to_toml(self):
            return "x = 1\n"

    with pytest.raises(InternalError):
        run_pipeline(module, [function_pass("c", crash)], options={"scheme": Scheme()}, crash_directory=tmp_path)
    found = read_reproducer(tmp_path / "crash-c.mlu")
    assert found.options == {"scheme": str(tmp_path / "crash-c.scheme.toml")}
    assert Path(found.options["scheme"]).read_text() == "x = 1\n"


def test_crash_without_a_directory_writes_nothing(module):
    with pytest.raises(InternalError) as caught:
        run_pipeline(module, [function_pass("crash", crash)], crash_directory=None)
    assert caught.value.reproducer is None


def test_a_crash_is_told_where_no_reproducer_can_be_written(tmp_path, module):
    (tmp_path / "file").write_text("")
    with pytest.raises(InternalError, match="by zero") as caught:
        run_pipeline(module, [function_pass("crash", crash)], crash_directory=tmp_path / "file")
    assert caught.value.reproducer is None and "replay" not in str(caught.value)


def test_broken_module_is_blamed_on_the_pass(tmp_path, module):
    def forget(module, ctx):
        module.main.body.terminator.set_operand(0, Exp(module.main.arguments[0]).result)

    with pytest.raises(CompilerError) as caught:
        run_pipeline(module, [function_pass("forget", forget)], crash_directory=tmp_path)
    fault = caught.value.diagnostics[-1]
    assert "after pass 'forget'" in fault.where
    replay = f"mluc debug replay {tmp_path / 'crash-forget.mlu'}"
    assert fault.help.splitlines()[-1] == f"this is a mistake of the pass: {replay}"


def test_file_that_is_no_reproducer_is_refused(tmp_path):
    path = tmp_path / "plain.mlu"
    path.write_text(RELU)
    with pytest.raises(CompilerError, match="names no pipeline"):
        read_reproducer(path)


def test_make_pass_takes_plain_values():
    assert make_pass("everything", {"count": 4, "names": ["a"]}) == Everything(count=4, names=("a",))
