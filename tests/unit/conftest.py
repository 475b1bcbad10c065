"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler.pipelines import PASSES
from tests.command import Command, convolution, images


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """The command, run in an empty folder; passes loaded from files are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    known = dict(PASSES)
    yield Command(capsys)
    PASSES.clear()
    PASSES.update(known)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A small convolutional network."""
    return convolution(tmp_path / "small.onnx")


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Six random images for it."""
    return images(tmp_path / "images.npz")


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, compiled once; beside it are small.onnx, images.npz and q.toml."""
    from compiler.cli.main import main

    folder = tmp_path_factory.mktemp("offline")
    source, calibration = convolution(folder / "small.onnx"), images(folder / "images.npz")
    words = ["compile", source, "-o", folder / "small.cambricon", "--calibrate", calibration]
    assert main([str(w) for w in [*words, "--save-scheme", folder / "q.toml"]]) == 0
    return folder / "small.cambricon"
