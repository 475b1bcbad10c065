"""The ONNX test cases listed as passing pass. `onnx_cases.py` makes the list and tells why the others do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from .onnx_cases import PASSING, all_cases, problem

NAMES = PASSING.read_text().split()


@pytest.mark.parametrize("name", NAMES)
def test_case_passes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = all_cases().get(name)
    if case is None:
        pytest.skip("this version of the onnx package does not have the case")
    folder: Path = tmp_path_factory.getbasetemp()
    assert problem(case, folder) is None
