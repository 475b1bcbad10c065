"""From a model file of any kind to a module: `load(path)` looks at the file's name and calls the frontend for it.

Frontends are imported when they are needed; nothing here knows what is inside a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compiler.errors import did_you_mean, error
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
    if not isinstance(path, str | Path):
        return _load_live(path, shapes or {}, bindings or {}, example)
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        reason = "is a directory" if path.is_dir() else "no such file"
        help = "give a model file" if path.is_dir() else did_you_mean(path.name, siblings[:1000])
        raise error("E201", reason, where=str(path), help=help)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise error(
            "E220", f"files named {path.suffix or 'without a suffix'!r} are not known", where=str(path),
            help="known: " + ", ".join(READERS),
        )  # fmt: skip
    return reader(path, shapes or {}, bindings or {})


def _load_live(source: Any, shapes: Shapes, bindings: Bindings, example: Any) -> Module:
    from compiler.frontend.torchscript.live import import_live, is_live

    if not is_live(source):
        kind = type(source).__name__
        raise error("E220", f"a {kind} is no model", help="give the path of a model file, or a torch.nn.Module")
    return import_live(source, shapes, bindings, example)


def _load_onnx(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    from compiler.frontend.onnx.importer import import_model

    return import_model(path, shapes, bindings)


def _load_text(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    from compiler.ir.constants import read_module

    if shapes or bindings:
        raise error(
            "E204", "IR text has its shapes and inputs already", where=str(path),
            help="give --shape and --bind when the model is imported",
        )  # fmt: skip
    return read_module(path)


def _load_torchscript(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    from compiler.frontend.torchscript.importer import import_model

    return import_model(path, shapes, bindings)


def _load_export(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    from compiler.frontend.torch_export.importer import import_model

    return import_model(path, shapes, bindings)


def _refuse_torch(path: Path, shapes: Shapes, bindings: Bindings) -> Module:
    raise error(
        "E220", "PyTorch archives cannot be read yet", where=str(path),
        help="export the network to ONNX: torch.onnx.export(model.eval(), example, 'model.onnx', opset_version=17)",
    )  # fmt: skip


READERS: dict[str, Callable[[Path, Shapes, Bindings], Module]] = {
    ".onnx": _load_onnx, ".mlu": _load_text, ".pt": _load_torchscript, ".pth": _load_torchscript,
    ".ptl": _load_torchscript, ".jit": _load_torchscript, ".torchscript": _load_torchscript, ".pt2": _load_export,
}  # fmt: skip
"""Suffix of a file's name → its frontend."""
