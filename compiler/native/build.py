"""Compiling kernels: one C function per kernel and set of known facts, found by address, kept on disk.

A kernel is a C function of int64 arguments written in `language.py`, compiled when its address is first asked for.
Machine code is kept as object files in a folder named by the digest of everything that decides it: the sources beside
the kernel's own, this package, LLVM, and the processor.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from compiler.code_cache import read_code, write_code
from compiler.native.language import Translator

_LOCK = threading.RLock()
_NUMBERS = itertools.count()
"""Names of linked libraries must differ."""
_PACKAGE = Path(__file__).parent


@cache
def source_digest(folder: Path) -> str:
    """Digest of every source that kernels of a folder are made from; with another one, kept machine code is invalid."""
    digest = hashlib.sha256()
    for path in [*sorted(_PACKAGE.glob("*.py")), _PACKAGE.parent / "numerics.py", *sorted(folder.glob("*.py"))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def cpu() -> tuple[str, str]:
    """(processor, features) that code is generated for: the host's, or what Numba's variables say for its code."""
    try:
        host = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell on every system; code then uses what every processor of the kind has
        host = ""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if name is None and features is None:
        return llvm.get_host_cpu_name(), host
    return name or llvm.get_host_cpu_name(), features if features is not None else ("" if name else host)


@cache
def cpu_features() -> frozenset[str]:
    """The features of `cpu` that are on."""
    return frozenset(f[1:] for f in cpu()[1].split(",") if f.startswith("+"))


@cache
def _code_of(folder: Path) -> str:
    """Name of the folder of machine code that is valid here and now for kernels of a source folder."""
    made_by = (llvmlite.__version__, str(llvm.llvm_version_info))
    parts = (source_digest(folder), *made_by, llvm.get_process_triple(), *cpu())
    return "kernels-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@cache
def _machine() -> Any:
    """The target machine. Products and sums are never fused: that is LLVM's default for plain fmul and fadd."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    name, features = cpu()
    return target.create_target_machine(name, features, opt=2, reloc="pic", codemodel="small", jit=True)


@cache
def _linker() -> Any:
    _machine()
    return llvm.create_lljit_compiler()


def optimised(module: ir.Module) -> Any:
    """The module after a little clean-up: vectors are written by hand, so variables in registers and simple loops are
    all that code generation needs. LLVM's own pipelines take five times as long and gain nothing here."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    builder = llvm.create_pass_builder(_machine(), llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_function_pass_manager()
    for add in ("sroa", "simplify_cfg", "instruction_combine", "new_gvn", "loop_rotate", "simplify_cfg"):
        getattr(passes, f"add_{add}_pass")()
    for function in parsed.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return parsed


@contextmanager
def without_collector() -> Iterator[None]:
    """Where much is made and nothing thrown away: Python's collector would look through all of it again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Kernel:
    """A C function of `arguments` int64, one for every set of known keyword arguments."""

    def __init__(self, python: Callable, arguments: int):
        self.python, self.arguments, self.name = python, arguments, python.__name__
        self._addresses: dict[tuple, int] = {}
        self._kept: list[Any] = []

    def address(self, **known: Any) -> int:
        """Address of the machine code for what is known; compiles it or loads it."""
        key = tuple(sorted(known.items()))
        address = self._addresses.get(key)
        if address is None:
            with _LOCK:
                address = self._addresses.get(key) or self._load(known)
                self._addresses[key] = address
        return address

    def module(self, **known: Any) -> ir.Module:
        """The kernel as LLVM IR."""
        module = ir.Module(name=self.name)
        module.triple = llvm.get_process_triple()
        Translator(module, self.name, self.arguments).write(self.python, known)
        return module

    def assembly(self, **known: Any) -> str:
        """The machine code as text (tests)."""
        return str(_machine().emit_assembly(optimised(self.module(**known))))

    def _load(self, known: dict[str, Any]) -> int:
        label = f"{self.name}-{hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()[:24]}"
        folder = _code_of(Path(self.python.__code__.co_filename).parent)
        code = read_code(folder, label)
        if code is None:
            with without_collector():
                code = _machine().emit_object(optimised(self.module(**known)))
            write_code(folder, label, code)
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(self.name)
        library = builder.link(_linker(), f"{label}-{next(_NUMBERS)}")
        self._kept.append(library)
        return int(library[self.name])

    def __call__(self, *values: int, **known: Any) -> None:
        """Call the machine code, without Python's lock."""
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * self.arguments)(self.address(**known))(*values)


def kernel(arguments: int = 4) -> Callable[[Callable], Kernel]:
    """Declare a kernel. The simulator's four are (arena address, descriptor address, chunk, scratch address)."""
    return lambda python: Kernel(python, arguments)


class Entry:
    """A kernel that Python calls, its lock released meanwhile; compiled on first call, or by `prepare`."""

    def __init__(self, python: Callable, arguments: int):
        self._kernel = Kernel(python, arguments)
        self._function: Callable[..., None] | None = None

    def prepare(self) -> Callable[..., None]:
        """Have it compiled; the machine code as a function."""
        if self._function is None:
            kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * self._kernel.arguments)
            self._function = kind(self._kernel.address())
        return self._function

    def __call__(self, *values: int) -> None:
        (self._function or self.prepare())(*values)


def entry(arguments: int) -> Callable[[Callable], Entry]:
    """Declare a kernel that Python calls."""
    return lambda python: Entry(python, arguments)
