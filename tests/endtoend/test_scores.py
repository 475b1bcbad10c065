"""Every core model keeps its score when it is compiled at the defaults, wholly on the chip.

    pytest tests/endtoend/test_scores.py -m slow --models DIR --data DIR

prints the table of all models on all data; `python -m tests.endtoend.scores DIR DIR` does so without judging.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.endtoend import scores
from tests.endtoend.scores import SCORED, Result, Scored

QUICK = [s for s in SCORED if s.name in ("mnist_8", "resnet20", "vit_mnist", "ppocr_cls", "ultraface", "silero")]
STRICTLY_BY_ITEM = ("ultraface", "silero")
"""Whose figure means something on few items too; of decisions one in twenty may go the other way."""
ON_CHIP = 0.999


def by_name(scored: Scored) -> str:
    return scored.name


def assert_on_chip(result: Result) -> None:
    assert result.on_chip >= ON_CHIP, f"{result.scored.name}: {100 * result.on_chip:.2f} % of the multiply-adds on chip"
    assert result.host == 0, f"{result.scored.name}: {result.host} host segments"


@pytest.mark.parametrize("scored", QUICK, ids=by_name)
def test_a_model_keeps_its_score_on_a_sample(scored: Scored, models: Path, data: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = scores.measure(scored, models, data, limit=scored.quick)
    assert_on_chip(result)
    allowed = scored.bound if scored.name in STRICTLY_BY_ITEM else max(scored.bound, 0.05 * scored.unit)
    assert result.lost <= allowed, f"{scores.HEADING}\n{result}"


@pytest.mark.slow
@pytest.mark.parametrize("scored", SCORED, ids=by_name)
def test_a_model_keeps_its_score_on_all_data(
    scored: Scored, models: Path, data: Path, show: Callable[..., None]
) -> None:
    pytest.importorskip("onnxruntime")
    result = scores.measure(scored, models, data)
    heading = [scores.HEADING] if scored is SCORED[0] else []
    show(*heading, result, *(f"    {note}" for note in result.notes))
    assert_on_chip(result)
    assert result.lost <= scored.bound, f"{scores.HEADING}\n{result}"


NOISE = 1.0
"""Points by which two ways of rounding the same network differ on some hundred images."""


@pytest.mark.slow
@pytest.mark.parametrize("scored", [s for s in SCORED if s.preprocess and s.figure == "top1"], ids=by_name)
def test_a_classifier_that_takes_pixels_scores_alike(
    scored: Scored, models: Path, data: Path, show: Callable[..., None]
) -> None:
    pytest.importorskip("onnxruntime")
    result = scores.measure(scored, models, data, input_type="uint8")
    show(result)
    assert_on_chip(result)
    assert result.lost <= scored.bound + NOISE, f"{scores.HEADING}\n{result}"


def test_what_calibrates_is_not_scored(data: Path) -> None:
    """Digits, lines and speech come from one collection each: its end calibrates, the rest is scored."""
    score = scores.score_module(data)
    count = len(score.mnist(str(data))[0])
    assert all(s.whole == count - scores.IMAGES for s in SCORED if s.name in ("mnist_8", "vit_mnist"))
    (ocr,) = (s for s in SCORED if s.name == "ppocr_cls")
    lines = list(ocr.calibration(score, data))
    scored_lines = np.load(data / "textlines_synth.npz")["x"][: ocr.whole]
    assert len(lines) == 2 * (200 - len(scored_lines))
