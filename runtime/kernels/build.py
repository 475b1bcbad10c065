"""Compiling the kernels: one C function per kernel, found by address, built on first use and kept on disk.

A kernel is a C function of int64 arguments. The loop in `interpreter.py` calls it through its address, which
stands in the descriptor, so that a kernel is compiled once for all callers and only when a program needs it. Numba's
disk cache looks at the file that defines a function and not at the modules it calls; here an entry is valid only for
the digest of all kernel sources together.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target

from compiler.code_cache import ensure_code_cache

ensure_code_cache()

_LOCK = threading.RLock()
_PACKAGE = Path(__file__).parent
_OPTIONS = {"error_model": "numpy", "nopython": True}
"""Division by zero gives infinity, as numerics.py defines; no exceptions, no Python objects."""


@cache
def source_digest() -> str:
    """Digest of every source a kernel is made from; another digest makes cached machine code invalid."""
    digest = hashlib.sha256(numba.__version__.encode())
    shared = [_PACKAGE.parent.parent / "compiler" / "numerics.py"]
    for path in [*sorted(_PACKAGE.glob("*.py")), *shared]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def cpu_features() -> frozenset[str]:
    """Features Numba generates code for (not simply those of the host: NUMBA_CPU_NAME may say less)."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(f[1:] for f in features.split(",") if f.startswith("+"))


class StampedCache(FunctionCache):
    """Numba's disk cache of one function, valid for the digest of all kernel sources."""

    def __init__(self, function: Callable):
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path, filename_base=self._impl.filename_base,
            source_stamp=(source_digest(), numba.__version__),
        )  # fmt: skip


class Kernel:
    """A C function of `arguments` int64, compiled when its address is first asked for."""

    def __init__(self, function: Callable, arguments: int):
        self.function, self.arguments, self.name = function, arguments, function.__name__
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Address of the machine code; compiles it or loads it from the cache."""
        return int(self.compiled.address or 0)

    @property
    def compiled(self) -> Any:
        with _LOCK:
            if self._compiled is None:
                signature = ((types.int64,) * self.arguments, types.void)
                compiled: Any = CFunc(self.function, signature, locals={}, options=_OPTIONS)
                compiled._cache = StampedCache(self.function)
                compiled.compile()
                self._compiled = compiled
            return self._compiled

    def __call__(self, *values: int) -> None:
        """Call the machine code (tests)."""
        self.compiled.ctypes(*values)


def kernel(arguments: int = 4) -> Callable[[Callable], Kernel]:
    """Declare a kernel. With four arguments they are (arena address, descriptor address, chunk, scratch address)."""
    return lambda function: Kernel(function, arguments)


def inlined(function: Callable) -> Callable:
    """A helper of kernels: compiled into each caller, never an entry point of its own."""
    return njit(nogil=True, error_model="numpy")(function)


def entry(signature: str) -> Callable[[Callable], Callable]:
    """A function called from Python with the GIL released; compiled on first call and cached on disk."""

    def declare(function: Callable) -> Callable:
        compiled: list[Callable] = []

        def call(*values: int) -> int | None:
            if not compiled:
                with _LOCK:
                    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
                    dispatcher._cache = StampedCache(function)
                    dispatcher.compile(signature)
                    dispatcher.disable_compile()
                    compiled.append(dispatcher)
            return compiled[0](*values)

        call.__name__, call.__doc__ = function.__name__, function.__doc__
        return call

    return declare
