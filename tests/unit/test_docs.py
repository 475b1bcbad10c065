"""The manuals say what the code says, and every command and program in them runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compiler.cli.main import VERBS
from tests.command import Command, clipped, images

ROOT = Path(__file__).parents[2]
GUIDES = sorted(p for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def fenced(path: Path, language: str = "") -> list[str]:
    """Code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """Words of every mluc command of a page's code blocks."""
    lines = [line.partition("  #")[0] for block in fenced(path) for line in block.splitlines()]
    return [re.findall(r"'[^']*'|\S+", line)[1:] for line in lines if line.startswith("mluc ")]


def test_the_generated_pages_are_up_to_date():
    script = ROOT / "docs" / "generate.py"
    found = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == ""
    assert found.returncode == 0, found.stderr


def test_the_readme_shows_what_the_demo_prints(command: Command):
    """Times and figures change; the lines and their words do not."""
    block = next(b for b in fenced(ROOT / "README.md") if "mluc demo" in b)
    shown = [line for line in block.splitlines()[1:] if line != "..."]
    printed = command("demo").out.splitlines()[: len(shown)]
    assert [_without_numbers(line) for line in shown] == [_without_numbers(line) for line in printed]


def _without_numbers(line: str) -> str:
    return re.sub(r"\d[\d.,]*( [kMG]?B\b)?", "0", line)


def test_the_readme_s_accuracies_are_the_demo_s(command: Command):
    text = (ROOT / "README.md").read_text()
    for line in command("demo").out.splitlines():
        if line.startswith("  the "):
            assert line in text


@pytest.mark.parametrize("page", ["README.md", "docs/guide-deploy-a-model.md"])
def test_the_commands_of_a_page_run_in_order_after_the_demo(command: Command, page):
    command("demo", "--output", "digits")
    images(Path("model.npz"))
    clipped(Path("model.onnx"), 6.0)
    for words in commands(ROOT / page):
        result = command(*words)
        assert result.code == 0, (words, result.err)


def test_the_readme_s_program_runs(command: Command, tmp_path: Path):
    command("demo", "--output", "digits")
    (program,) = fenced(ROOT / "README.md", "python")
    found = subprocess.run(
        [sys.executable, "-c", program + "print(scores.shape)"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip
    assert found.stdout == "(1, 10)\n", found.stderr


def test_the_guide_s_pass_is_the_example_and_runs(command: Command):
    (program,) = fenced(ROOT / "docs" / "guide-write-a-pass.md", "python")
    Path("my_pass.py").write_text(program)
    clipped(Path("model.onnx"), 6.0)
    import numpy as np

    np.savez("x.npz", image=np.ones((4, 4), np.float32))
    for words in commands(ROOT / "docs" / "guide-write-a-pass.md"):
        result = command(*[w.strip("'") for w in words])
        assert result.code == 0, (words, result.err)
    example = (ROOT / "examples" / "my_pass.py").read_text()
    assert all(line in example for line in program.splitlines())


def test_the_guide_s_scheme_is_accepted(command: Command):
    command("demo", "--output", "digits")
    words = ("compile", "digits/digits.onnx", "-o", "d.cambricon")
    command(*words, "--calibrate", "digits/calibration.npz", "--save-scheme", "q.toml")
    (layers,) = fenced(ROOT / "docs" / "guide-deploy-a-model.md", "toml")
    text = Path("q.toml").read_text()
    Path("q.toml").write_text(text.replace("[layers]\n", layers))
    result = command(*words, "--scheme", "q.toml")
    assert result.code == 0, result.err
    assert "on the host" in result.out


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


VENDOR = "mlu220.md"
"""The page of facts about the chip: the tools it names are the vendor's."""


@pytest.mark.parametrize("page", [p for p in GUIDES if p.name != VENDOR], ids=lambda p: p.name)
def test_verbs_and_options_that_are_named_exist(page: Path):
    text = page.read_text()
    verbs = set(re.findall(r"`mluc ([a-z]+)", text)) | {words[0] for words in commands(page)}
    assert verbs <= set(VERBS)
    code = "".join(p.read_text() for p in (ROOT / "compiler" / "cli").glob("*.py"))
    known = {"--check", "--models", "--data", "--benchmark-enable"}
    assert {o for o in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text) if f'"{o}"' not in code} <= known


def test_the_change_log_has_the_version():
    import compiler

    assert f"## {compiler.__version__}" in (ROOT / "CHANGELOG.md").read_text()
