"""Networks that are in memory: a `torch.nn.Module` or `ScriptModule` is saved to a buffer, and that is read.

This is the one module of the product that uses torch, and only when it is handed an object of torch's.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from compiler.errors import CompilerError, error
from compiler.frontend.records import finished
from compiler.frontend.torchscript.archive import read_archive
from compiler.frontend.torchscript.importer import Importer
from compiler.ir.core import Module

HELP = "give an example of the inputs: compiler.load(module, example=(x,)), or save it with torch.export"


def is_live(source: Any) -> bool:
    """Whether something is a network of torch's in memory. Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def import_live(
    source: Any, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any], example: Any = None
) -> Module:
    """The module of a network in memory: traced with `example` (or with zeros of `shapes`), else scripted.

    It is taken as in evaluation mode, and left in the mode it was in. Raises CompilerError with torch's own words
    where torch can neither trace nor script it.
    """
    import torch

    name = f"{type(source).__name__}"
    if not isinstance(source, torch.jit.ScriptModule):
        source = _scripted(torch, source, shapes, example, name)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation is known
        torch.jit.save(source, buffer)
    return finished(Importer(read_archive(buffer.getvalue(), name), shapes, bindings))


def _scripted(torch: Any, source: Any, shapes: Mapping[str, Sequence[int]], example: Any, name: str) -> Any:
    modes = {part: part.training for part in source.modules()}
    inputs = _example(torch, source, shapes, example)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            source.eval()
            if inputs is not None:
                return torch.jit.trace(source, inputs, check_trace=False)
            return torch.jit.script(source)
    except CompilerError:
        raise
    except Exception as fault:  # whatever the network's own code raises
        lines = str(fault).strip().splitlines()
        how = "traced" if inputs is not None else "scripted"
        message = f"cannot be {how} by torch: {type(fault).__name__}: {lines[0] if lines else ''}"
        raise error("E221", message, where=name, help=HELP) from fault
    finally:
        for part, training in modes.items():
            part.training = training


def _example(torch: Any, source: Any, shapes: Mapping[str, Sequence[int]], example: Any) -> tuple[Any, ...] | None:
    """Inputs to trace with: those given, or zeros of the given shapes; None where there are neither."""
    if example is not None:
        return tuple(example) if isinstance(example, tuple | list) else (example,)
    if not shapes:
        return None
    import inspect

    names = [n for n in inspect.signature(source.forward).parameters if n in shapes]
    return tuple(torch.zeros(tuple(shapes[n])) for n in names) if len(names) == len(shapes) else None
