"""Every core model runs on the chip as a whole: no host segment, one meaning."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from compiler import driver
from compiler.frontend.load import load
from compiler.ir.core import Module
from tests.endtoend.core_models import CORE_MODELS, CoreModel
from tests.journeys import Journey, assert_one_meaning, emitted, legalised, placed

BROAD = [
    m for m in CORE_MODELS
    if m.file.startswith(("yolox", "ultraface", "deeplab", "espcn", "tbefn", "ppocr"))
]  # fmt: skip
"""Detection, segmentation, super-resolution, enhancement, OCR: what the rules beyond convolution networks are for."""


def name_of(model: CoreModel) -> str:
    return model.file.removesuffix(".onnx")


@cache
def both(models: Path, data: Path, model: CoreModel) -> tuple[Module, Module]:
    """The module before quantisation and after legalize, calibrated on one sample."""
    prepared = driver.prepare(load(models / model.file, shapes=model.shapes), crash_directory=None)
    return legalised(prepared, [model.inputs(data)])


@pytest.mark.parametrize("model", BROAD, ids=name_of)
def test_no_op_of_a_core_model_is_left_to_the_host(models: Path, data: Path, model: CoreModel) -> None:
    _, legal = both(models, data, model)
    assert [name for name in legal.functions if name != "main"] == ["subnet0"]
    assert {op.op_name.partition(".")[0] for op in legal.functions["subnet0"].body} == {"mlu", "graph"}


def check_one_meaning(models: Path, data: Path, model: CoreModel, cores: int, threads: tuple[int, ...]) -> None:
    prepared, legal = both(models, data, model)
    final = placed(legal, cores=cores)
    assert_one_meaning(Journey(prepared, legal, final, emitted(final, cores)), model.inputs(data), threads=threads)


@pytest.mark.parametrize("model", [m for m in BROAD if m.file.startswith(("espcn", "ppocr"))], ids=name_of)
def test_core_models_have_one_meaning(models: Path, data: Path, model: CoreModel) -> None:
    check_one_meaning(models, data, model, 4, (2,))


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("model", BROAD, ids=name_of)
def test_core_models_have_one_meaning_on_any_cores(models: Path, data: Path, model: CoreModel, cores: int) -> None:
    check_one_meaning(models, data, model, cores, (1, 2))
