"""How many threads NumPy's matrix products use.

OpenBLAS decides that when it is loaded, from the number of cores, and waits for its workers by spinning: several
processes on one machine then slow each other down tenfold, and sums depend on the number of cores. Here it is set
while the evaluator runs. Where NumPy was built with another library, nothing is changed.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SYMBOLS = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")


@cache
def _openblas() -> tuple[Any, Any] | None:
    """The getter and setter of the thread count in the library NumPy's wheels bring along; None if it is another
    one."""
    root = Path(np.__file__).parent
    for folder in (root.parent / "numpy.libs", root / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))
            for symbol in SYMBOLS:
                getter, setter = (getattr(library, symbol.format(verb), None) for verb in ("get", "set"))
                if getter is not None and setter is not None:
                    return getter, setter
    return None


@dataclass
class _Nesting:
    """Who is inside `blas_threads` now, over all Python threads, and what to put back when the last one leaves."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    depth: int = 0
    outside: int = 0


_nesting = _Nesting()


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Matrix products inside use `count` threads. Process-wide: while several are inside, the first one's count
    holds."""
    functions = _openblas()
    if functions is None:
        yield
        return
    getter, setter = functions
    with _nesting.lock:
        if _nesting.depth == 0:
            _nesting.outside = getter()
            setter(count)
        _nesting.depth += 1
    try:
        yield
    finally:
        with _nesting.lock:
            _nesting.depth -= 1
            if _nesting.depth == 0:
                setter(_nesting.outside)
