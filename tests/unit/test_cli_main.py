"""The command as such: finding verbs, usage errors, exit codes, what is loaded when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compiler.cli.inspect as inspect_verb
from compiler.cli import main as command_line
from compiler.cli.main import VERBS, main
from compiler.errors import InternalError
from tests.command import Command

ROOT = Path(__file__).parents[2]
HEAVY = ("numba", "onnx", "networkx", "torch", "lark", "onnxruntime", "safetensors", "rich", "jinja2", "numpy")


def subprocess_of(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """mluc, or Python code, in a process of its own, started outside the project."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "compiler.cli.main"]), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_every_verb_and_the_exit_codes(command: Command):
    result = command("--help")
    assert result.code == 0
    assert all(verb in result.out for verb in VERBS)
    assert "not on a card" in result.out
    assert "70 a mistake of mluc" in result.out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from compiler.cli.main import main; main(['--help']);"
        f"print('loaded', [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess_of(code=code)
    assert found.stderr.strip() == "loaded []"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_loading_anything_heavy(verb):
    code = (
        f"import sys; from compiler.cli.main import main; code = main([{verb!r}, '--help']);"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess_of(code=code)
    assert found.stderr.strip() == "0 []"
    assert f"usage: mluc {verb}" in found.stdout


def test_the_version_is_the_package_s(command: Command):
    import compiler

    result = command("--version")
    assert (result.code, result.out) == (0, f"mluc {compiler.__version__}\n")


def test_without_a_verb_the_help_is_shown_and_it_is_a_usage_error(command: Command):
    result = command()
    assert result.code == 2
    assert "usage: mluc" in result.out


def test_a_misspelt_verb_is_a_usage_error_with_a_suggestion(command: Command):
    result = command("comple", "x.onnx")
    assert result.code == 2
    assert "did you mean 'compile'" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("--quiet",), ("compile", "x.onnx"), ("compile", "x.onnx", "-o", "y", "--calibrat", "z"), ("list", "pases"),
        ("run", "x.cambricon"), ("debug",), ("profile",), ("demo", "now"), ("compile", "x", "-o", "y", "--cores", "f"),
        ("run", "x.cambricon", "--inputs", "a.npz", "--images", "-1"), ("compile", "x", "-o", "y", "--shape", "8x8"),
        ("run", "x.cambricon", "--inputs", "a.npz", "--against", "y", "--tolerance", "nan"),
        ("compile", "x", "-o", "y", "--bind", "n=many"), ("run", "x.cambricon", "--inputs", "a", "--threads", "0"),
    ],
)  # fmt: skip
def test_what_the_command_line_does_not_know_is_a_usage_error(command: Command, words):
    result = command(*words)
    assert result.code == 2
    assert "error:" in result.err
    assert result.out == ""


def test_options_are_not_abbreviated_because_an_abbreviation_may_come_to_mean_another(command: Command):
    result = command("compile", "x.onnx", "-o", "y", "--calib", "z.npz")
    assert result.code == 2
    assert "--calib" in result.err


def test_a_user_s_mistake_is_exit_code_1_and_no_traceback(command: Command):
    result = command("inspect", "nothing.onnx")
    assert result.code == 1
    assert result.err.startswith("error[E201] no such file\n  nothing.onnx")


def test_with_json_a_user_s_mistake_is_json_too(command: Command):
    result = command("inspect", "nothing.onnx", "--json")
    assert result.code == 1
    told = json.loads(result.out)
    assert told["ok"] is False
    assert told["faults"][0]["code"] == "E201"


def test_traceback_shows_the_traceback():
    found = subprocess_of("inspect", "--traceback", "nothing.onnx")
    assert found.returncode == 1
    assert "Traceback" in found.stderr


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        (ValueError("nonsense"), 70, "internal error: ValueError: nonsense"),
        (InternalError("pass 'x' crashed", "crash-x.mlu"), 70, "pass 'x' crashed"),
        (MemoryError(), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_mistake_of_mluc_is_exit_code_70_in_two_lines(command: Command, monkeypatch, fault, code, text):
    def broken(args):
        raise fault

    monkeypatch.setattr(inspect_verb, "run", broken)
    result = command("inspect", "x.onnx")
    assert result.code == code
    assert text in result.err


def test_a_crash_of_a_pass_names_the_reproducer_it_wrote(command: Command, model_file: Path):
    Path("crash_pass.py").write_text(
        "from dataclasses import dataclass\n"
        "from compiler.pass_manager import Pass\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Crash(Pass):\n"
        "    name = 'always-crashes'\n\n"
        "    def run(self, module, ctx):\n"
        "        raise RuntimeError('on purpose')\n"
    )
    result = command("opt", model_file, "-p", "simplify,always-crashes", "--load-pass", "crash_pass.py")
    assert result.code == 70
    assert "mluc debug replay crash-always-crashes.mlu" in result.err
    assert Path("crash-always-crashes.mlu").is_file()


def test_a_closed_pipe_is_no_fault(offline: Path):
    command = f"{sys.executable} -m compiler.cli.main disasm {offline} | head -1"
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0
    assert "Traceback" not in found.stderr and "BrokenPipe" not in found.stderr


def test_the_installed_command_is_this_main():
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mluc": "compiler.cli.main:main"}
    assert command_line.main is main
