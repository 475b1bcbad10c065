"""What the product may not import: judges that tests use, and torch anywhere but where a network in memory comes in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("compiler", "passes", "targets", "runtime")
ALLOWED = {("torch", "compiler/frontend/torchscript/live.py")}
FORBIDDEN = ("onnx.reference", "onnx.backend", "onnxruntime", "torch", "pytest", "hypothesis")


def imported(source: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(source: str) -> list[str]:
    return [f for name in imported(source) for f in FORBIDDEN if name == f or name.startswith(f + ".")]


def test_imports_are_found_wherever_they_stand() -> None:
    assert forbidden("def f():\n    from onnx import reference\n") == ["onnx.reference"]
    assert forbidden("import torch.nn as nn\nimport onnx\n") == ["torch"]


def test_the_product_imports_no_judge_and_torch_only_where_a_network_in_memory_comes_in() -> None:
    found = {
        (name, str(path.relative_to(ROOT)))
        for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
        for name in forbidden(path.read_text())
    }  # fmt: skip
    assert found == ALLOWED
