"""The number of threads of matrix products: set while something runs, put back after, also when it fails."""

from __future__ import annotations

import pytest

from compiler.evaluate import blas


def threads() -> int:
    functions = blas._openblas()
    if functions is None:
        pytest.skip("NumPy was built without OpenBLAS")
    return functions[0]()


def test_the_count_holds_inside_and_is_put_back() -> None:
    before = threads()
    with blas.blas_threads(1):
        assert threads() == 1
        with blas.blas_threads(2):
            assert threads() == 1  # the outermost decides
        assert threads() == 1
    assert threads() == before


def test_the_count_is_put_back_after_a_failure() -> None:
    before = threads()
    with pytest.raises(KeyError), blas.blas_threads(1):
        raise KeyError
    assert threads() == before


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    with blas.blas_threads(1):
        pass
