"""What importing a model costs, beside what onnxruntime takes to make a session of it: time and peak memory, each in a
process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.importing import IMPORT, ONNXRUNTIME, cost

ROUNDS = 3
SHAPES = {"ppocr_textline_cls": {"x": (1, 3, 80, 160)}}
"""Sizes for dimensions that a model leaves open."""


@pytest.mark.slow
def test_importing_real_models_beside_onnxruntime(models: Path, benchmark) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("onnxruntime")
    paths = sorted(models.glob("*.onnx"))
    for path in paths:
        pairs = [(cost(path, IMPORT, SHAPES.get(path.stem)), cost(path, ONNXRUNTIME)) for _ in range(ROUNDS)]
        ours, theirs = (min(p[i].seconds for p in pairs) for i in (0, 1))
        memory, theirs_memory = (min(p[i].grown for p in pairs) for i in (0, 1))
        benchmark.extra_info[path.stem] = {
            "seconds": ours, "onnxruntime_seconds": theirs, "time_ratio": ours / theirs,
            "megabytes": memory / 2**20, "onnxruntime_megabytes": theirs_memory / 2**20,
            "memory_ratio": memory / theirs_memory,
        }  # fmt: skip
    benchmark.pedantic(cost, args=(paths[0],), rounds=1)
