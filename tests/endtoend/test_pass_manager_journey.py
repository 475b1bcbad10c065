"""What someone who writes or debugs a pass does on the command line, with real networks: find passes and misspell them,
watch them, load one, crash and replay, break the IR, and look for the rewrite that spoilt a result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler import driver
from compiler.errors import CompilerError
from compiler.frontend.load import load
from compiler.ir.constants import read_module
from compiler.ir.printer import print_module
from compiler.pass_manager import PASSES, parse_pipeline, print_pipeline
from targets.mlu220.target import Mlu220
from tests.command import Command
from tests.endtoend.core_models import CORE_MODELS

ROOT = Path(__file__).parents[2]
SHAPE = ("--shape", "input=1x3x32x32")
TIDY = "simplify,fuse-batchnorm,simplify"
MLUC = f"{sys.executable} -m compiler.cli.main"


@pytest.fixture
def command(capsys, tmp_path, monkeypatch) -> Command:
    """mluc in an empty folder; passes it loads from files are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    known = dict(PASSES)
    yield Command(capsys)
    PASSES.clear()
    PASSES.update(known)


@pytest.fixture
def resnet(models: Path) -> Path:
    return models / "resnet20_cifar10.onnx"


@pytest.fixture(scope="module")
def prepared(models: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two images for ResNet-20 and a scheme made with them."""
    folder = tmp_path_factory.mktemp("calibration")
    (core,) = [m for m in CORE_MODELS if m.file == "resnet20_cifar10.onnx"]
    (image,) = core.inputs(data)
    np.savez(folder / "x.npz", input=np.concatenate([image, image[..., ::-1]]))
    module = driver.prepare(load(models / core.file, {"input": (1, 3, 32, 32)}), crash_directory=None)
    driver.calibrate(module, [[image]], "minmax").save(folder / "q.toml")
    return folder / "x.npz", folder / "q.toml"


def pass_file(name: str, body: str, imports: str = "") -> Path:
    """A file of one pass in the working folder."""
    path = Path(f"{name}.py")
    path.write_text(f"""from dataclasses import dataclass
from compiler.pass_manager import Pass
from compiler.rewrite import pattern
{imports}

@dataclass(frozen=True, kw_only=True)
class OfThisFile(Pass):
    \"\"\"For a test.\"\"\"
    name = "{name}"
    strength: int = 1

    def run(self, module, ctx):
        {body.strip().replace(chr(10), chr(10) + "        ")}
""")
    return path


# -- text and options --------------------------------------------------------------------------------------------------
def test_the_pipelines_that_are_listed_are_text_that_runs(command: Command, models: Path):
    listed = dict(line.split(maxsplit=1) for line in command("list", "pipelines").out.splitlines())
    assert print_pipeline(parse_pipeline("prepare")) == listed["prepare"]
    result = command("opt", models / "mnist_8.onnx", "-p", listed["prepare"])
    assert result.out == command("opt", models / "mnist_8.onnx", "-p", "prepare").out


def test_options_survive_text_both_ways():
    text = driver.pipeline_text("f32", keep_float=["/conv1/*", "odd name"], i16=["last"])
    assert print_pipeline(parse_pipeline(text)) == text
    assert 'keep-float=["/conv1/*","odd name"]' in text or 'keep-float=[/conv1/*,"odd name"]' in text


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("simplfy", "did you mean 'simplify'"),
        ("fuse-batchnorm{max-weight-grwth=2}", "did you mean 'max-weight-growth'"),
        ("fuse-batchnorm{max-weight-growth=lots}", "must be a number, not lots"),
        ("prune-channels{ratio=0.5", "expected '}'"),
        ("prepare{x=1}", "it stands for drop-asymmetric,"),
        ("simplify,,simplify", "expected a pass name"),
    ],
)
def test_what_is_misspelt_is_refused_with_what_may_be_meant(command: Command, models: Path, pipeline, told):
    result = command("opt", models / "mnist_8.onnx", "-p", pipeline)
    assert result.code == 1 and told in result.err


def test_all_mistakes_of_a_pipeline_are_told_at_once(command: Command, models: Path):
    result = command("opt", models / "mnist_8.onnx", "-p", "simplfy,quantise,fuse-batchnorm{a=1,b=2}")
    assert result.err.count("error[") == 4


# -- watching ----------------------------------------------------------------------------------------------------------
def test_dumps_of_a_compilation_are_numbered_through_and_can_be_read(command: Command, resnet: Path, prepared):
    _, scheme = prepared
    result = command("compile", resnet, *SHAPE, "-o", "m.cambricon", "--scheme", scheme, "--dump-dir", "d")
    assert result.code == 0
    dumps = sorted(Path("d").glob("*.mlu"))
    numbers = [int(p.name[:2]) for p in dumps]
    assert numbers == sorted(set(numbers)) and dumps[0].name == "00-input.mlu"
    passes = [*parse_pipeline("prepare"), *parse_pipeline(driver.pipeline_text())]
    assert all(p.stem[3:] == passes[n - 1].name for n, p in zip(numbers[1:], dumps[1:], strict=True))
    for path in dumps:
        assert print_module(read_module(path)) == path.read_text()


def test_a_dump_around_one_pass_of_a_compilation_shows_just_that(command: Command, resnet: Path, prepared):
    words = (resnet, *SHAPE, "-o", "m.cambricon", "--scheme", prepared[1], "--dump-dir", "d")
    assert command("compile", *words, "--dump-ir", "before:quantize,legalize").code == 0
    assert [p.stem[3:] for p in sorted(Path("d").glob("*.mlu"))] == ["before-quantize", "before-legalize"]


def test_a_dump_to_the_terminal_shows_only_passes_that_changed_something(command: Command, models: Path):
    result = command("opt", models / "mnist_8.onnx", "-p", f"{TIDY},{TIDY}", "--dump-ir", "changed", "-o", "o.mlu")
    titles = re.findall(r"// ---- (.*) ----", result.out)
    assert titles[0] == "00-input" and "02-fuse-batchnorm" in titles
    assert not any(title.startswith(("04", "05", "06")) for title in titles)


def test_a_dump_around_a_pass_that_did_not_run_is_told(command: Command, models: Path):
    result = command("opt", models / "mnist_8.onnx", "-p", "simplify", "--dump-ir", "after:quantize", "-o", "o.mlu")
    assert "no pass 'quantize' was run" in result.err


def test_times_counts_and_stopping(command: Command, resnet: Path):
    words = ("opt", resnet, *SHAPE, "-p", f"{TIDY},prune-channels{{ratio=0.3,multiple=8}}", "-o", "o.mlu")
    result = command(*words, "--time-passes", "--pass-stats")
    assert result.err.count("simplify") >= 2 and "total" in result.err
    assert "channels removed" in result.err
    stopped = command(*words, "--stop-after", "fuse-batchnorm", "--time-passes")
    assert "prune-channels" not in stopped.err and stopped.err.count("%") == 2
    assert "runs 'simplify' 2 times" in command(*words, "--stop-after", "simplify#3").err


# -- a pass of one's own -----------------------------------------------------------------------------------------------
def test_the_example_pass_is_loaded_run_and_says_what_it_left_alone(command: Command, models: Path):
    words = ("opt", models / "deeplab_v3_mnv2_257.onnx", "--load-pass", ROOT / "examples/my_pass.py", "-o", "o.mlu")
    done = command(*words, "-p", "simplify,relu6-to-relu", "--pass-stats")
    assert re.search(r"34\s+replace", done.err) and "math.clip" not in Path("o.mlu").read_text()
    left = command(*words, "-p", "simplify,relu6-to-relu{least-bound=7}", "--pass-stats")
    assert "left alone by replace: 34 the bound is too small" in left.err


def test_a_crash_after_quantisation_can_be_sent_replayed_and_mended(command: Command, resnet: Path, prepared):
    crash = pass_file("crashing", "raise LookupError(f'on {ctx.target.board.name}')")
    pipeline = "quantize,convert-layout,crashing{strength=3},partition,legalize"
    words = ("compile", resnet, *SHAPE, "-o", "m.cambricon", "--scheme", prepared[1], "--board", "edge", "--cores", "2")
    result = command(*words, "--pipeline", pipeline, "--load-pass", crash)
    assert result.code == 70
    assert "LookupError: on edge (crashing.py, line" in result.err
    (hint,) = re.findall(r"replay it with: mluc (.*)", result.err)
    assert hint.startswith("debug replay crash-crashing.mlu --load-pass ")
    Path("sent").mkdir()
    for path in Path.cwd().glob("crash-crashing.*"):
        path.rename(Path("sent") / path.name)
    replay = ("debug", "replay", "sent/crash-crashing.mlu", "--load-pass", crash)
    again = command(*replay)
    assert again.code == 70 and "on edge" in again.err
    pass_file("crashing", "assert ctx.target.cores == 2")
    mended = command(*replay, "--time-passes")
    assert mended.code == 0 and "runs through" in mended.out
    assert [line.split()[-1] for line in mended.err.splitlines()[:-1]] == ["crashing", "partition", "legalize"]


@pytest.mark.parametrize("crashing", ["quantize", "schedule", "emit"])
def test_a_crash_of_a_pass_that_comes_with_mluc_replays_with_its_scheme(
    command: Command, resnet: Path, prepared, crashing: str, monkeypatch
):
    def crash(*_):
        raise KeyError("inside")

    kind = Mlu220 if crashing == "emit" else type(parse_pipeline(crashing)[0])
    words = (resnet, *SHAPE, "-o", "m.cambricon", "--scheme", prepared[1], "--board", "edge", "--cores", "1")
    with monkeypatch.context() as broken:
        broken.setattr(kind, "emit" if crashing == "emit" else "run", crash)
        result = command("compile", *words)
        assert result.code == 70 and f"mluc debug replay crash-{crashing}.mlu" in result.err
        assert command("debug", "replay", f"crash-{crashing}.mlu").code == 70
    assert command("debug", "replay", f"crash-{crashing}.mlu").code == 0


def test_broken_ir_is_told_at_the_op_with_the_pass_that_did_it(command: Command, resnet: Path):
    broken = pass_file("breaks", "ops = list(module.main.body)\nops[0].set_operand(0, ops[3].results[0])")
    result = command("opt", resnet, *SHAPE, "-p", "simplify,breaks", "--load-pass", broken, "-o", "o.mlu")
    assert result.code == 1 and not Path("o.mlu").exists()
    assert "error[E306] nn.conv2d: takes '/layer1/layer1.0/Relu_output_0' before it is defined" in result.err
    assert "node '/conv1/Conv'  after pass 'breaks'" in result.err and "^^^^" in result.err
    assert result.err.count("mluc debug replay crash-breaks.mlu --load-pass") == 1
    assert command("debug", "replay", "crash-breaks.mlu", "--load-pass", broken).code == 1


# -- what spoilt the result --------------------------------------------------------------------------------------------
SPOILS_ONE = """
done = set()
def anew(match, rewriter):
    op = match.root
    done.add(op.name)
    wrong = op.w.type.shape[0] == 64 and op.strides == (2, 2)
    operands = (op.x, op.w, None if wrong else op.bias)
    made = rewriter.create(type(op), *operands, types=[op.result.type], names=[op.name], **op.attributes)
    rewriter.replace(op, made.result)
ctx.rewrite(module, pattern("nn.conv2d", where=lambda op: op.name not in done), anew)
"""


def test_bisection_finds_the_one_convolution_in_19_that_a_pass_spoils(command: Command, resnet: Path, prepared):
    data, scheme = prepared
    spoils = pass_file("anew", SPOILS_ONE)
    check = f"{MLUC} compare {resnet} {{}} --shape input=1x3x32x32 --data {data} --images 1 --at-least 15"
    pipeline = "prepare,quantize,anew,convert-layout,partition,legalize"
    words = ("debug", "bisect", resnet, *SHAPE, "-p", pipeline, "--scheme", scheme, "--load-pass", spoils)
    result = command(*words, "--check", check)
    assert result.code == 0
    assert ", anew, makes it bad\nrewrite 14 of its 19: anew at" in result.out
    assert "anew at /layer3/layer3.0/conv1/Conv_output_0" in result.out
    changed = [line for line in result.out.splitlines() if line.startswith(("-  %", "+  %"))]
    assert len(changed) == 2 and '@"onnx::Conv_324"' in changed[0] and '@"onnx::Conv_324"' not in changed[1]
    assert len(result.err.splitlines()) < 20


def test_a_judge_may_compile_and_run_what_it_is_given(command: Command, models: Path, data: Path):
    """The guilty rewrite only shows once the file runs: it makes the pooling of one layer an average."""
    model = models / "mnist_8.onnx"
    (core,) = [m for m in CORE_MODELS if m.file == model.name]
    np.savez("x.npz", Input3=core.inputs(data)[0])
    module = driver.prepare(load(model), crash_directory=None)
    driver.calibrate(module, [core.inputs(data)], "minmax").save("q.toml")
    spoils = pass_file("averages", """
def average(match, rewriter):
    op = match.root
    kind = AvgPool2d if op.kernel == (3, 3) else type(op)
    done.add(op.name)
    made = rewriter.create(kind, op.x, kernel=op.kernel, strides=op.strides, pads=op.pads)
    rewriter.replace(op, made.result)
done = set()
ctx.rewrite(module, pattern("nn.max_pool2d", where=lambda op: op.name not in done), average)
""", "from compiler.ops.nn import AvgPool2d")  # fmt: skip
    Path("judge.sh").write_text(f"""set -e
{MLUC} compile $1 -o judged.cambricon --pipeline quantize,mlu220 --scheme q.toml
{MLUC} run judged.cambricon --inputs x.npz --against {model} --tolerance 0.1
""")
    assert command("opt", model, "-p", "prepare", "-o", "start.mlu").code == 0
    words = ("debug", "bisect", "start.mlu", "-p", "averages,simplify", "--load-pass", spoils)
    result = command(*words, "--check", "sh judge.sh {}")
    assert "pass 1, averages, makes it bad\nrewrite 2 of its 2: average at Pooling160_Output_0" in result.out


def test_a_judge_that_cannot_work_is_shown_with_what_it_said(command: Command, models: Path):
    check = f"{sys.executable} no_such_judge.py"
    result = command("debug", "bisect", models / "mnist_8.onnx", "-p", "prepare", "--check", check)
    assert result.code == 1
    assert "fails on the input already" in result.err and "no_such_judge.py" in result.err


def test_reduction_leaves_the_op_whose_lowering_is_wrong(command: Command, models: Path, data: Path):
    """The judge computes a part before and after a wrong pass, on the values the part's inputs really have."""
    (core,) = [m for m in CORE_MODELS if m.file == "squeezenet_imagenet.onnx"]
    np.savez("x.npz", data=core.inputs(data)[0])
    Path("judge.py").write_text("""
import sys
from pathlib import Path
import numpy as np
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.constants import read_module
whole = read_module(sys.argv[1])
wrong = whole.clone()
for op in wrong.main.body:
    if op.op_name == "tensor.concat" and op.name.startswith("fire5"):
        op.set_operands(list(op.operands)[::-1])
inputs = dict(np.load(Path(sys.argv[1]).with_suffix(".npz")))
pairs = zip(Interpreter(whole).run(inputs), Interpreter(wrong).run(inputs))
sys.exit(int(any(np.abs(a - b).max() > 1e-4 for a, b in pairs)))
""")
    words = ("debug", "reduce", models / core.file, "--data", "x.npz", "--check", f"{sys.executable} judge.py {{}}")
    result = command(*words, "-o", "least.mlu")
    assert result.code == 0 and "1 of 65 ops still fail" in result.err
    assert [op.op_name for op in read_module("least.mlu").main.body] == ["tensor.concat", "graph.return"]
    assert '%"fire5/concat_1" = tensor.concat' in result.out


def test_python_gives_the_same_faults_as_the_command_line(models: Path):
    import compiler

    with pytest.raises(CompilerError, match="did you mean 'simplify'"):
        compiler.run_pipeline(compiler.load(models / "mnist_8.onnx"), "simplfy")
