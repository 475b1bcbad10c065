"""A damaged or hostile TorchScript archive is imported or refused with a diagnostic, whatever it consists of, in
bounded time and memory. Damage is done to the file, and, behind a container that is whole, to pickles and code.
"""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

from compiler.errors import CompilerError
from compiler.frontend.torchscript.archive import read_archive
from compiler.frontend.torchscript.importer import Importer, finished

FOLDER = Path(__file__).parents[1] / "data" / "torchscript"
SHAPES = {"scripted.jit": {"x": (2, 4)}, "attention.pt": {"x": (2, 5, 8)}, "lstm.pt": {"x": (3, 2, 5)},
          "quantised.ptl": {"input": (1, 3, 8, 8)}, "dynamic.ptl": {"input": (2, 6)}}  # fmt: skip
FILES = sorted([*SHAPES, "convnet.pt"])


@cache
def content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def members(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content(name))) as file:
        return {n: file.read(n) for n in file.namelist()}


def attempt(data: bytes, name: str) -> bool:
    """Import bytes as an archive; any exception but CompilerError is a failure. Gives whether it was imported."""
    try:
        finished(Importer(read_archive(data, name), SHAPES.get(name, {}), {}))
    except CompilerError as fault:
        assert fault.diagnostics and str(fault)
        return False
    return True


def repacked(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member, data in files.items():
            file.writestr(member, data)
    return buffer.getvalue()


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, doubled, or a piece of it moved."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(made)) if made else 0
        size = chance.choice((1, 2, 8, 64))
        kind = chance.randrange(4)
        if kind == 0 and made:
            made[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 1:
            del made[at : at + size]
        elif kind == 2:
            made[at:at] = made[at : at + size]
        else:
            piece = made[at : at + size]
            place = chance.randrange(len(made) + 1)
            made[place:place] = piece
    return bytes(made)


WORDS = ("x", "0", "-1", "1000000000000", "[]", "None", "True", "inf", "self", "torch", "ops.quantized.conv2d",
         "range(99999)", "\"a\"", "CONSTANTS.c0", "getattr(self, \"0\")", "1e308", "(x, x)")  # fmt: skip
TOKENS = re.compile(r"\w+|[^\w\s]|\n *")


def changed_code(text: str, chance: random.Random) -> str:
    """Tokens swapped for others, removed or doubled; lines moved."""
    tokens = TOKENS.findall(text) if chance.random() < 0.7 else text.splitlines(keepends=True)
    pattern = TOKENS if tokens and not tokens[0].endswith("\n") else None
    if pattern is None:
        for _ in range(chance.choice((1, 2))):
            a, b = chance.randrange(len(tokens)), chance.randrange(len(tokens))
            tokens[a], tokens[b] = tokens[b], tokens[a]
        return "".join(tokens)
    spans = [m.span() for m in TOKENS.finditer(text)]
    for _ in range(chance.choice((1, 1, 2))):
        begin, end = chance.choice(spans)
        word = chance.choice((chance.choice(WORDS), text[slice(*chance.choice(spans))], ""))
        text = text[:begin] + word + text[end:]
        spans = [m.span() for m in TOKENS.finditer(text)]
    return text


def damaged(name: str, kind: str, chance: random.Random) -> bytes:
    if kind == "file":
        return changed_bytes(content(name), chance)
    files = dict(members(name))
    wanted = {"pickle": ".pkl", "code": ".py"}[kind]
    member = chance.choice([n for n in files if n.endswith(wanted) and files[n]])
    if kind == "pickle":
        files[member] = changed_bytes(files[member], chance)
    else:
        files[member] = changed_code(files[member].decode(), chance).encode()
    return repacked(files)


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_archives_are_imported(name: str) -> None:
    assert attempt(content(name), name) and attempt(repacked(members(name)), name)


@pytest.mark.parametrize("kind", ["file", "pickle", "code"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_archives_are_imported_or_refused(name: str, kind: str) -> None:
    chance = random.Random(f"{name} {kind}")
    imported = [attempt(damaged(name, kind, chance), name) for _ in range(60)]
    assert not all(imported)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "pickle", "code"])
@pytest.mark.parametrize("name", FILES)
def test_thousands_of_damaged_archives_are_imported_or_refused(name: str, kind: str) -> None:
    chance = random.Random(f"many {name} {kind}")
    for _ in range(560):
        attempt(damaged(name, kind, chance), name)


HOSTILE = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from tests.property import test_torchscript_fuzz as fuzz
from tests.unit.test_torchscript_evaluator import HOSTILE_CODE, stopped
fuzz.attempt(fuzz.content("convnet.pt"), "convnet.pt")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for body, bound in HOSTILE_CODE:
    stopped(body, bound)
import random
chance = random.Random(7)
for name in fuzz.FILES:
    for kind in ("pickle", "code"):
        for _ in range(6):
            fuzz.attempt(fuzz.damaged(name, kind, chance), name)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_hostile_archives_take_bounded_memory() -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", HOSTILE, json.dumps([root])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert int(done.stdout.split()[-1]) < 1_500_000  # KB
