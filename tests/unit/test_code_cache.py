"""Compiled code finds a place to be kept even where nothing of the user's can be written."""

from __future__ import annotations

import os
from pathlib import Path

import numba
import pytest

from compiler import code_cache


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "", raising=False)
    monkeypatch.setattr(code_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_a_folder_of_the_temporary_one_serves_where_neither_home_nor_installation_can_be_written(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    code_cache.ensure_code_cache()
    folder = Path(numba.config.CACHE_DIR)  # type: ignore[attr-defined]
    assert folder.is_dir() and folder.parent == settings


def test_where_the_installation_can_be_written_nothing_changes(settings: Path) -> None:
    code_cache.ensure_code_cache()
    assert numba.config.CACHE_DIR == "" and not list(settings.iterdir())  # type: ignore[attr-defined]


def test_what_the_user_chose_wins(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "chosen")
    code_cache.ensure_code_cache()
    assert numba.config.CACHE_DIR == "chosen"  # type: ignore[attr-defined]
