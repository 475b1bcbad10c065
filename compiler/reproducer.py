"""Reproducer files: the IR before the pass that failed, the pipeline that was left, what the compilation was asked for.

A reproducer is an ordinary IR file whose first comment lines carry the rest, beside the side file of its constants and
a copy of the scheme, so it can be opened, edited, moved and sent like any dump. Running one again is
`compiler.bisect.replay`.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.errors import CompilerError, error
from compiler.ir.constants import read_module, write_module
from compiler.ir.core import Module
from compiler.pass_context import Pass, PassContext
from compiler.pipelines import print_pipeline

_PREFIX = "// reproducer "
_FILE = "$file"
"""Key of an option that stands in a file of its own, named relative to the reproducer."""


@dataclass(frozen=True)
class Reproducer:
    """A failure to run again."""

    module: Module
    pipeline: str
    message: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    emit: bool = False
    """Whether the target's `emit` follows the pipeline."""


def reproduce(
    path: Path, module: Module, passes: Sequence[Pass], message: str, ctx: PassContext, emit: bool = False
) -> tuple[Path | None, str]:
    """Write the reproducer of a failure; gives its path and the command that runs it, or neither where it cannot be
    written: the failure itself must be told all the same."""
    try:
        write_reproducer(path, module, print_pipeline(passes), message, ctx, emit)
    except (CompilerError, OSError):
        return None, ""
    return path, replay_command(path, passes)


def write_reproducer(
    path: Path, module: Module, pipeline: str, message: str, ctx: PassContext, emit: bool = False
) -> Path:
    """Write the file and its side file; returns the path written. An existing file of the name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_module(module, path)
    facts: dict[str, Any] = {
        "pipeline": pipeline,
        "message": message,
        "options": {**_target_options(ctx.target), **{k: _plain(v, k, path) for k, v in ctx.options.items()}},
    }
    if emit:
        facts["emit"] = True
    header = "".join(f"{_PREFIX}{key}: {json.dumps(value, default=str)}\n" for key, value in facts.items())
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    path.write_text(f"{first}\n{header}{rest}", encoding="utf-8")
    return path


def _plain(value: Any, key: str, path: Path) -> Any:
    """An option as the header can say it; a scheme (an object, its text, or the name of its file) goes into a file
    beside the IR."""
    text = value.to_toml() if hasattr(value, "to_toml") else _toml_text(value)
    if text is None:
        return value
    beside = path.with_name(f"{path.stem}.{key}.toml")
    beside.write_text(text, encoding="utf-8")
    return {_FILE: beside.name}


def _toml_text(value: Any) -> str | None:
    """The TOML a text is, or that stands in the file it names; None for any other option."""
    if not isinstance(value, str | Path):
        return None
    if "\n" in str(value):
        return str(value)
    return Path(value).read_text(encoding="utf-8") if str(value).endswith(".toml") and Path(value).is_file() else None


def replay_command(path: Path, passes: Sequence[Pass]) -> str:
    """What to type to run a reproducer again; passes of files are named, so that they can be loaded again."""
    modules = dict.fromkeys(type(p).__module__ for p in passes)
    files = [sys.modules[m].__file__ for m in modules if m.startswith("_mluc_pass_file_") and m in sys.modules]
    return shlex.join(["mluc", "debug", "replay", str(path), *(w for f in files if f for w in ("--load-pass", f))])


def _target_options(target: Any) -> dict[str, Any]:
    """What a target must be remade from: its name and, where it has them, board and number of cores."""
    if target is None:
        return {}
    board, cores = getattr(target, "board", None), getattr(target, "cores", None)
    told = {"target": target.name, "board": getattr(board, "name", board), "cores": cores}
    return {key: value for key, value in told.items() if value is not None}


def read_reproducer(path: Path | str) -> Reproducer:
    """The reproducer in a file. Raises CompilerError E410 for a file that is none."""
    path = Path(path)
    module = read_module(path)
    facts: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(_PREFIX):
            key, _, value = line.removeprefix(_PREFIX).partition(": ")
            facts[key] = json.loads(value)
        elif line and not line.startswith("//"):
            break
    if "pipeline" not in facts:
        raise error(
            "E410", f"{path} is not a reproducer: it names no pipeline", help="run any IR file with: mluc opt FILE -p …"
        )
    options = {
        key: str(path.parent / value[_FILE]) if isinstance(value, dict) and _FILE in value else value
        for key, value in facts.get("options", {}).items()
    }
    return Reproducer(module, facts["pipeline"], facts.get("message", ""), options, facts.get("emit", False))
