"""Debugging a real network from the command line: bisection to a broken pass and to a broken rewrite, and reduction, in
a time a person waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compiler.frontend.load import load
from compiler.ir.constants import read_module
from compiler.pass_manager import run_pipeline

from .core_models import CORE_MODELS

ROOT = Path(__file__).parents[2]
MODEL = "mobilenet_v2_imagenet.onnx"
HANGS = 1200
"""Seconds after which a command is taken to hang."""

PLUGIN = '''
from dataclasses import dataclass
from compiler.ops.math import Clip, Neg
from compiler.pass_manager import Pass
from compiler.rewrite import pattern


@dataclass(frozen=True, kw_only=True)
class Bound(Pass):
    """relu to clip(0, inf): harmless. The 17th becomes something else."""

    name = "bound"
    seen = []

    def run(self, module, ctx):
        self.seen.clear()
        ctx.rewrite(module, pattern("nn.relu"), self.clip)

    def clip(self, match, rewriter):
        self.seen.append(match.root)
        kind, bounds = (Neg, {}) if len(self.seen) == 17 else (Clip, {"low": 0.0})
        rewriter.replace(match.root, rewriter.create(kind, match.root.operands[0], **bounds).result)


@dataclass(frozen=True, kw_only=True)
class Spoil(Pass):
    """Zeroes a weight and counts no rewrite."""

    name = "spoil"

    def run(self, module, ctx):
        constant = max(module.constants.values(), key=lambda c: c.data.size)
        zero = module.add_constant("zero", constant.data * 0)
        constant.replace_all_uses_with(zero)


@dataclass(frozen=True, kw_only=True)
class Crash(Pass):
    """Does not get through a relu that follows a depthwise convolution of 192 channels."""

    name = "crash"

    def run(self, module, ctx):
        for op in module.ops():
            if op.op_name == "nn.conv2d" and op.groups == 192 and op.results[0].has_one_use:
                if op.results[0].users[0].op_name == "nn.relu":
                    raise RuntimeError("no more")
'''


@pytest.fixture(scope="module")
def bench(models: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network as IR, one real input of it, and the plugin."""
    (core,) = [m for m in CORE_MODELS if m.file == MODEL]
    folder = tmp_path_factory.mktemp("debugging")
    (folder / "plugin.py").write_text(PLUGIN)
    (array,) = core.inputs(data)
    np.savez(folder / "x.npz", input=array)
    (folder / "m.onnx").symlink_to((models / MODEL).resolve())
    return folder


def command(folder: Path, *words: object) -> tuple[subprocess.CompletedProcess[str], float]:
    """mluc in a process of its own, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "compiler.cli.main", *map(str, words)], cwd=folder, text=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=HANGS,
    )  # fmt: skip
    return done, time.perf_counter() - started


SHAPE = ("--shape", "input=1x3x224x224")


def judged(folder: Path) -> str:
    model = f"{sys.executable} -m compiler.cli.main compare {folder / 'm.onnx'} {{}} {' '.join(SHAPE)}"
    return f"{model} --data {folder / 'x.npz'} --images 1 --at-least 15"


@pytest.mark.slow
def test_bisection_finds_the_one_rewrite_of_many_that_broke_a_result(bench: Path, show: Callable[..., None]) -> None:
    done, seconds = command(
        bench, "debug", "bisect", "m.onnx", *SHAPE, "-p", "prepare,bound,simplify", "--load-pass", "plugin.py",
        "--check", judged(bench), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["pass_text"], found["rewrite"], found["rewrites"]) == ("bound", 17, 35)
    assert found["description"].startswith("clip at ")
    steps = done.stderr.count("good ") + done.stderr.count("bad  ")
    show(f"bisection to a rewrite: {seconds:.0f} s, {steps} steps")
    assert steps <= 16  # of passes and of rewrites, half of what is left each time


@pytest.mark.slow
def test_bisection_finds_the_pass_that_broke_a_result_without_a_rewrite(bench: Path, show: Callable[..., None]) -> None:
    done, seconds = command(
        bench, "debug", "bisect", "m.onnx", *SHAPE, "-p", "prepare,spoil,simplify", "--load-pass", "plugin.py",
        "--check", judged(bench),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "spoil, makes it bad" in done.stdout and "not by one of its 0 counted rewrites" in done.stdout
    show(f"bisection to a pass: {seconds:.0f} s")


@pytest.mark.slow
def test_reduction_leaves_at_most_three_ops_of_a_network_that_crashes_a_pass(
    bench: Path, show: Callable[..., None]
) -> None:
    run_pipeline(load(bench / "m.onnx", {"input": (1, 3, 224, 224)}), "prepare")
    check = f"{sys.executable} -m compiler.cli.main opt {{}} -p crash --load-pass {bench / 'plugin.py'} -o out.mlu"
    done, seconds = command(bench, "debug", "reduce", "m.onnx", *SHAPE, "--check", check, "-o", "small.mlu")
    assert done.returncode == 0, done.stderr
    kinds = [op.op_name for op in read_module(bench / "small.mlu").main.body]
    assert kinds == ["nn.conv2d", "nn.relu", "graph.return"]
    show(f"reduction: {seconds:.0f} s; {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.slow
def test_reduction_of_a_wrong_result_keeps_the_op_that_is_wrong(bench: Path, show: Callable[..., None]) -> None:
    """Each part comes with the values its inputs really have, so that a judge can compare results."""
    script = bench / "judge.sh"
    mluc = f"{sys.executable} -m compiler.cli.main"
    script.write_text(
        f'set -e\nexport PYTHONPATH={ROOT}\npart="$1"\n'
        f'{mluc} opt "$part" -p "spoil-relus" --load-pass {bench / "wrong.py"} -o /tmp/$$.mlu || exit 0\n'
        f'{mluc} compare "$part" /tmp/$$.mlu --data "${{part%.mlu}}.npz" --images 1 --at-least 40 > /dev/null\n'
    )
    (bench / "wrong.py").write_text(WRONG)
    done, seconds = command(
        bench, "debug", "reduce", "m.onnx", *SHAPE, "--check", f"bash {script}", "--data", "x.npz", "-o", "wrong.mlu",
        "--directory", "parts",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ops = [op for op in read_module(bench / "wrong.mlu").main.body if op.op_name != "graph.return"]
    assert len(ops) <= 3 and any(op.op_name == "nn.relu" and op.results[0].type.static_shape[1] == 384 for op in ops)
    show(f"reduction by results: {seconds:.0f} s; {done.stderr.strip().splitlines()[-1]}")


WRONG = '''
from dataclasses import dataclass
from compiler.ops.math import Clip
from compiler.pass_manager import Pass


@dataclass(frozen=True, kw_only=True)
class SpoilRelus(Pass):
    """Bounds what has 384 channels too low."""

    name = "spoil-relus"

    def run(self, module, ctx):
        for op in list(module.ops()):
            if op.op_name == "nn.relu" and op.results[0].type.static_shape[1] == 384:
                clip = Clip(op.operands[0], low=0.0, high=0.5, names=[op.name])
                op.block.insert_before(op, clip)
                op.replace_with(clip.result)
'''
