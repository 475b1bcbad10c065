"""mluc: from a trained network to an offline model for the Cambricon MLU220.

This is the public interface for scripts; names are loaded when first used, so that importing the package costs nothing.

    import compiler

    module = compiler.load("squeezenet.onnx")
    module = compiler.run_pipeline(module, "prepare", dump="changed")
    scheme = compiler.calibrate(module, images)
    model = compiler.compile_model(module, scheme=scheme, board="m2", cores=4)
    model.save("squeezenet.cambricon")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.comparison import compare
    from compiler.driver import calibrate, compile_model, prepare
    from compiler.errors import CompilerError, Diagnostic
    from compiler.export.onnx import to_onnx
    from compiler.frontend.load import load
    from compiler.ir.core import Module
    from compiler.ir.parser import parse_module as parse
    from compiler.pass_manager import Pass, PassContext, run_pipeline

_NAMES = {
    "CompilerError": "compiler.errors", "Diagnostic": "compiler.errors", "Module": "compiler.ir.core",
    "Pass": "compiler.pass_manager", "PassContext": "compiler.pass_manager", "calibrate": "compiler.driver",
    "compare": "compiler.comparison", "compile_model": "compiler.driver", "load": "compiler.frontend.load",
    "parse": "compiler.ir.parser:parse_module", "prepare": "compiler.driver", "run_pipeline": "compiler.pass_manager",
    "to_onnx": "compiler.export.onnx",
}  # fmt: skip

__all__ = [
    "CompilerError", "Diagnostic", "Module", "Pass", "PassContext", "calibrate", "compare", "compile_model", "load",
    "parse", "prepare", "run_pipeline", "to_onnx",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    place = _NAMES.get(name)
    if place is None:
        raise AttributeError(f"module 'compiler' has no attribute {name!r}")
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)
