"""From a model file of any kind to a module: `load(path)` looks at the file's name and calls the frontend for it.

Frontends are imported when they are needed; nothing here knows what is inside a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from compiler.errors import error
from compiler.files import MODEL, check_file
from compiler.ir.core import Module

Shapes = Mapping[str, Sequence[int]]
Bindings = Mapping[str, Any]


def load(
    path: str | Path | Any, shapes: Shapes | None = None, bindings: Bindings | None = None, *, example: Any = None
) -> Module:
    """The module of a model file, or of a `torch.nn.Module` or `ScriptModule` in memory.

    `shapes` gives sizes to symbolic dimensions of inputs, `bindings` values to integer or boolean inputs, which then
    are inputs no more. A network in memory is traced with `example`, its inputs as tensors. Raises CompilerError when
    the file cannot be read or converted; every unsupported node is listed.
    """
    _check_shapes(shapes or {})
    if not isinstance(path, str | Path):
        return _load_live(path, shapes or {}, bindings or {}, example)
    path = Path(path)
    check_file(path, MODEL)
    if path.suffix.lower() == IR_TEXT:
        return _load_text(path, shapes or {}, bindings or {})
    return frontend_of(path).import_model(path, shapes or {}, bindings or {})


def _check_shapes(shapes: Any) -> None:
    """Raise CompilerError E204 for what is no mapping of names to sizes."""
    if not isinstance(shapes, Mapping) or not all(_is_shape(sizes) for sizes in shapes.values()):
        raise error("E204", f"shapes cannot be {shapes!r}", help="give sizes by input: {'image': (1, 3, 224, 224)}")


def _is_shape(sizes: Any) -> bool:
    return isinstance(sizes, Sequence) and all(isinstance(d, Integral) for d in sizes)


def _load_live(source: Any, shapes: Shapes, bindings: Bindings, example: Any) -> Module:
    from compiler.frontend.torchscript.live import import_live, is_live

    if not is_live(source):
        message = f"{type(source).__name__} is no model"
        raise error("E220", message, help="give the path of a model file, or a torch.nn.Module")
    return import_live(source, shapes, bindings, example)


def _load_text(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    from compiler.ir.constants import read_module

    if shapes or bindings:
        raise error(
            "E204", "IR text has its shapes and inputs already", where=str(path),
            help="give --shape and --bind when the model is imported",
        )  # fmt: skip
    return read_module(path)


FRONTENDS: dict[str, str] = {
    ".onnx": "onnx", ".pt2": "torch_export",
    **dict.fromkeys((".pt", ".pth", ".ptl", ".jit", ".torchscript"), "torchscript"),
}  # fmt: skip
"""Suffix of a file's name → the package here whose `importer` reads it."""

IR_TEXT = ".mlu"


def frontend_of(path: Path) -> Any:
    """The `importer` module of a model file: `import_model` gives its module, `Importer` what became of its nodes too.
    """
    return importlib.import_module(f"compiler.frontend.{FRONTENDS[path.suffix.lower()]}.importer")
