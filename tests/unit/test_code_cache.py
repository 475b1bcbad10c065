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


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users have numbers on POSIX")
def test_a_folder_that_another_user_made_is_not_used(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    theirs = code_cache.code_folder()
    monkeypatch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)  # whoever we are now, the folder of that name is theirs
    monkeypatch.setattr(code_cache, "_of_this_process", lambda: settings / "ours")
    (settings / f"mluc-code-{os.getuid()}").symlink_to(theirs)
    assert code_cache.code_folder() == settings / "ours"


def test_where_the_installation_can_be_written_nothing_changes(settings: Path) -> None:
    code_cache.ensure_code_cache()
    assert numba.config.CACHE_DIR == "" and not list(settings.iterdir())  # type: ignore[attr-defined]


def test_what_the_user_chose_wins(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "chosen")
    code_cache.ensure_code_cache()
    assert numba.config.CACHE_DIR == "chosen"  # type: ignore[attr-defined]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / "kernels"


def test_kept_code_is_read_back_and_damaged_code_is_not(folder: Path) -> None:
    assert code_cache.read_code("kernels", "a") is None
    code_cache.write_code("kernels", "a", b"machine code")
    assert code_cache.read_code("kernels", "a") == b"machine code"
    for damaged in ((folder / "a").read_bytes()[:-1], b"", b"x" * 80):
        (folder / "a").write_bytes(damaged)
        assert code_cache.read_code("kernels", "a") is None


def test_code_that_cannot_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    code_cache.write_code("kernels", "a", b"machine code")
    assert code_cache.read_code("kernels", "a") is None


def test_code_that_could_be_written_in_part_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    code_cache.write_code("kernels", "a", b"machine code")
    assert not list(folder.iterdir())


def test_a_system_without_any_place_to_write_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(code_cache.tempfile, "gettempdir", nowhere)
    code_cache.write_code("kernels", "a", b"machine code")
    assert code_cache.read_code("kernels", "a") is None


def test_kernels_are_kept_where_the_first_place_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(code_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    assert code_cache.code_folder() == Path(code_cache.__file__).parent / "__pycache__"
    monkeypatch.setattr(os, "access", lambda path, mode: ".cache" in str(path))
    assert code_cache.code_folder() == Path.home() / ".cache" / "mluc"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert code_cache.code_folder().parent == tmp_path
