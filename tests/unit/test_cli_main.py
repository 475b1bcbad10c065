"""The command as such: finding verbs, usage errors, exit codes, what is loaded when."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import compiler.cli.inspect as inspect_verb
from compiler.cli import main as command_line
from compiler.cli.arguments import FILES
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
    assert "70 a crash, of mluc or of a pass" in result.out


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
def test_a_mistake_of_mluc_is_exit_code_70_in_two_lines(command: Command, model_file, monkeypatch, fault, code, text):
    def broken(args):
        raise fault

    monkeypatch.setattr(inspect_verb, "run", broken)
    result = command("inspect", model_file)
    assert result.code == code
    assert text in result.err


def test_a_folder_that_turns_out_to_be_read_only_is_no_mistake_of_mluc(command: Command, model_file, monkeypatch):
    def refused(args):
        raise PermissionError(13, "Permission denied", "dumps/00-input.mlu")

    monkeypatch.setattr(inspect_verb, "run", refused)
    result = command("inspect", model_file)
    assert (result.code, result.err) == (1, "mluc: cannot write dumps/00-input.mlu: Permission denied\n")


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
    assert "RuntimeError: on purpose (crash_pass.py, line 10)" in result.err
    assert "this is a mistake of the pass 'always-crashes' of" in result.err and "mistake of mluc" not in result.err
    assert "mluc debug replay crash-always-crashes.mlu" in result.err
    assert Path("crash-always-crashes.mlu").is_file()


def test_with_traceback_a_mistake_of_mluc_still_is_exit_code_70(model_file, monkeypatch, capsys):
    def broken(args):
        raise ValueError("nonsense")

    monkeypatch.setattr(inspect_verb, "run", broken)
    code = main(["inspect", "--traceback", str(model_file)])
    told = capsys.readouterr().err
    assert code == 70 and "Traceback" in told and "internal error: ValueError: nonsense" in told


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("compile", "x.onnx", "-o", "y", "--calibrat", "z"), "--calibrate"),
        (("profile", "x.cambricon", "--jsn"), "--json"),
        (("run", "x.cambricon", "--inputs", "a.npz", "--tolerence=0.1"), "--tolerance"),
        (("debug", "reduce", "x.mlu", "--check", "c", "--tiemout", "3"), "--timeout"),
    ],
)
def test_a_misspelt_option_is_a_usage_error_with_a_suggestion(command: Command, words, option):
    result = command(*words)
    assert result.code == 2
    assert f"did you mean {option}?" in result.err


def test_an_option_like_no_other_gets_no_suggestion(command: Command):
    result = command("inspect", "x.onnx", "--zzz")
    assert result.code == 2 and "unrecognized arguments: --zzz" in result.err and "did you mean" not in result.err


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from arguments_of(inner)
        else:
            yield action


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_argument_says_what_it_does_and_its_default(verb):
    parser = argparse.ArgumentParser()
    importlib.import_module(VERBS[verb][0]).add_arguments(parser)
    for action in arguments_of(parser):
        if action.help is argparse.SUPPRESS or action.dest in ("help", "what"):
            continue
        assert action.help and action.help[0] == action.help[0].lower() and not action.help.endswith("."), action
        if action.default not in (None, False, [], "", argparse.SUPPRESS) or action.choices:
            assert "default: " in action.help, action
        if isinstance(action, argparse._AppendAction) and action.dest != "sweep":
            assert "may be repeated" in action.help, action


WRITTEN = {"output", "save_scheme", "trace", "html", "directory", "dump_dir"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_that_names_a_file_is_written_or_is_said_to_be_of_a_kind(verb):
    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    paths = {a.dest for a in arguments_of(parser) if a.type is Path}
    assert paths <= WRITTEN | set(FILES) | set(getattr(module, "FILES", {}))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("lint", "smal.onnx"), "small.onnx"), (("run", "smal.cambricon", "--inputs", "images.npz"), "small.cambricon"),
        (("run", "small.cambricon", "--inputs", "imges.npz"), "images.npz"), (("disasm", "smol.cambricon"), "small"),
        (("run", "small.cambricon", "--inputs", "images.npz", "--against", "smal.onnx"), "small.onnx"),
        (("profile", "smal.cambricon"), "small.cambricon"), (("inspect", "smal.onnx"), "small.onnx"),
        (("compile", "small.onnx", "-o", "x.cambricon", "--calibrate", "image.npz"), "images.npz"),
        (("compile", "small.onnx", "-o", "x.cambricon", "--scheme", "scheem.toml"), "scheme.toml"),
        (("compile", "small.onnx", "-o", "x.cambricon", "--board", "scheem.toml"), "scheme.toml"),
        (("opt", "small.onnx", "--load-pass", "my_pas.py"), "my_pass.py"),
        (("export", "smal.onnx", "-o", "x.onnx"), "small.onnx"),
        (("compare", "small.onnx", "smal.cambricon", "--data", "images.npz"), "small.cambricon"),
        (("compare", "small.onnx", "--data", "imagse.npz"), "images.npz"),
        (("asm", "smal.asm", "-o", "x.cambricon"), "small.asm"), (("debug", "replay", "crush.mlu"), "crash.mlu"),
        (("debug", "reduce", "crash.mlu", "--check", "true", "--data", "imags.npz"), "images.npz"),
    ],
    ids=lambda w: " ".join(w) if isinstance(w, tuple) else w,
)  # fmt: skip
def test_a_file_that_is_missing_is_told_with_the_one_that_was_meant(command: Command, offline: Path, words, meant):
    for name in ("scheme.toml", "my_pass.py", "small.asm", "crash.mlu"):
        Path(name).write_text("x")
    for name in ("small.onnx", "images.npz", "small.cambricon"):
        Path(name).write_bytes(offline.with_name(name).read_bytes())
    result = command(*words)
    assert result.code == 1
    assert "no such file" in result.err and f"did you mean '{meant}" in result.err


def test_all_files_that_are_missing_are_told_at_once(command: Command, model_file: Path):
    result = command("compile", "a.onnx", "-o", "x", "--calibrate", "b.npz", "--load-pass", "c.py")
    assert result.code == 1 and result.err.count("no such file") == 3


@pytest.mark.parametrize("words", [("run", "--inputs", "x.npz"), ("disasm",)], ids=lambda w: w[0])
def test_a_model_where_an_offline_model_is_asked_for_is_told_how_to_compile_it(command: Command, model_file, words):
    result = command(words[0], model_file, *words[1:])
    assert result.code == 1
    assert result.err.startswith("error[E103] is a model to be compiled")
    assert f"mluc compile {model_file} -o {model_file.stem}.cambricon --calibrate DATA" in result.err


def test_what_a_run_takes_for_granted_about_its_data_is_said(command: Command, offline: Path):
    np.savez("pixels.npz", pictures=np.full((2, 3, 8, 8), 9, np.uint8))
    result = command("run", offline, "--inputs", "pixels.npz")
    assert result.code == 0
    assert "array 'pictures' is taken for input 'image'" in result.err
    assert "holds uint8, from 9 to 9; the input takes float32" in result.err


def test_the_help_says_all_that_preprocessing_can_be_told(command: Command):
    told = " ".join(command("compile", "--help").out.split())
    assert "(pixel * scale - mean) / std" in told
    assert all(f"{key}:" in told or f"{key}," in told for key in ("size", "crop", "scale", "mean", "std", "order"))


def test_lint_of_a_sound_model_lists_its_operators(command: Command, model_file: Path):
    result = command("lint", model_file)
    assert result.code == 0
    assert "can be compiled" in result.out and "Conv 1" in result.out and "GlobalAveragePool 1" in result.out


def test_a_pass_before_those_it_needs_says_which_must_come_first(command: Command, model_file: Path):
    result = command("opt", model_file, "-p", "prepare,schedule")
    assert result.code == 1
    assert "pass 'schedule' comes after 'fuse-layers'; pass 'partition' has not been run yet" in result.err
    assert "'prepare,quantize,mlu220'" in result.err


def shell(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """mluc in a shell, with what stands behind the words: pipes, redirections."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m compiler.cli.main {words}"], check=False, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("words", ["disasm {} | head -1", "list ops | true", "list boards | true", "--help | true"])
def test_a_closed_pipe_is_no_fault(offline: Path, words: str):
    found = shell(words.format(offline))
    assert found.returncode == 0
    assert "Traceback" not in found.stderr and "Exception" not in found.stderr


@pytest.mark.parametrize("words", ["list ops >&-", "opt {} >&-", "disasm {} 2>&- >&-"])
def test_a_stream_that_is_closed_takes_nothing_and_is_no_fault(offline: Path, words: str):
    path = offline if "disasm" in words else offline.with_name("small.onnx")
    found = shell(words.format(path))
    assert found.returncode == 0 and "Traceback" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
@pytest.mark.parametrize("words", ["list boards > /dev/full", "list ops > /dev/full"])
def test_a_full_disk_is_said_in_a_line(words: str):
    found = shell(words)
    assert (found.returncode, found.stderr) == (1, "mluc: cannot write: No space left on device\n")


def test_a_terminal_without_the_letters_gets_them_spelt_out(offline: Path):
    found = shell("compile --help", PYTHONIOENCODING="ascii")
    assert found.returncode == 0 and "crop=224,\\u2026" in found.stdout


def test_help_is_a_verb_too(command: Command):
    assert command("help").out == command("--help").out
    assert command("help", "lint").out == command("lint", "--help").out


def test_an_interruption_while_a_verb_is_loaded_is_told_as_any_other(command: Command, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.importlib, "import_module", interrupted)
    result = command("list", "ops")
    assert (result.code, result.err) == (130, "mluc: interrupted\n")


def test_a_usage_error_is_two_lines_however_many_options_there_are(command: Command):
    result = command("compile", "x.onnx")
    assert result.err == (
        "mluc compile: error: the following arguments are required: -o/--output\n"
        "`mluc compile --help` says what there is\n"
    )


@pytest.mark.parametrize("output", ["folder", "no/x", "pipe", "small.onnx", "new.onnx", "scheme.toml"])
def test_an_output_that_cannot_be_written_is_told_before_any_work(command, model_file, calibration, output):
    Path("folder").mkdir()
    os.mkfifo("pipe")
    result = command("compile", model_file, "-o", output, "--calibrate", calibration, "--time-passes")
    assert result.code == 1 and result.err.startswith("error[E101]") and "quantize" not in result.err


def test_the_installed_command_is_this_main():
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mluc": "compiler.cli.main:main"}
    assert command_line.main is main


@pytest.mark.parametrize(
    ("text", "value"), [("n=3", 3), ("n=1,2", [1, 2]), ("n=true", True), ("n=0.5", 0.5), ('n="a b"', "a b")]
)
def test_values_for_inputs_and_options(text: str, value: object) -> None:
    from compiler.cli.arguments import binding

    assert binding(text) == ("n", value)
