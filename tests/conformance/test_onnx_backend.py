"""ONNX's test cases listed as passing pass, and enough are. `onnx_cases.py` makes the list and the figures, and tells
why the others do not pass.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from .onnx_cases import FIGURES, PASSING, all_cases, problem
from .onnx_scope import operator_of, out_of_scope

NAMES = PASSING.read_text().split()
HEAVY = {"test_vgg19", "test_bvlc_alexnet", "test_zfnet512", "test_densenet121", "test_inception_v1",
         "test_inception_v2", "test_resnet50"}  # fmt: skip
"""Topologies of a hundred million weights or a hundred layers."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in NAMES])
def test_case_passes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = all_cases().get(name)
    if case is None:
        pytest.skip("this version of the onnx package does not have the case")
    folder: Path = tmp_path_factory.getbasetemp()
    assert problem(case, folder) is None


# -- the figures -------------------------------------------------------------------------------------------------------
def figures() -> dict[str, Any]:
    return json.loads(FIGURES.read_text())


def test_at_least_97_of_100_cases_in_scope_pass() -> None:
    passed = sum(row["passed"] for row in figures().values())
    failed = sum(len(row["failed"]) for row in figures().values())
    assert passed / (passed + failed) >= 0.97


def test_every_operator_in_scope_has_a_case_that_passes() -> None:
    assert [name for name, row in figures().items() if row["failed"] and not row["passed"]] == []


def test_the_figures_are_those_of_the_list() -> None:
    listed = [case for name in NAMES if (case := all_cases().get(name)) is not None]
    inside = [case for case in listed if out_of_scope(case) is None]
    assert sum(row["passed"] for row in figures().values()) == len(inside)
    assert {operator_of(case) for case in inside} == {name for name, row in figures().items() if row["passed"]}


def test_cases_out_of_scope_are_so_for_what_they_hold() -> None:
    counted: dict[str, int] = {}
    for row in figures().values():
        for reason, count in row["out"].items():
            counted[reason] = counted.get(reason, 0) + count
    assert set(counted) == {
        "4-bit and 8-bit float types", "image decoding", "random draws", "sequences, optionals and maps",
        "strings", "the `_expanded` twin of another case", "training and losses",
    }  # fmt: skip


def test_the_product_does_not_ask_onnx_s_own_evaluator() -> None:
    root = Path(__file__).parents[2]
    for path in (p for room in ("compiler", "passes", "targets", "runtime") for p in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("onnx.reference") for name in names), path
