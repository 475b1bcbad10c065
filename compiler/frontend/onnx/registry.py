"""The converter table: which function turns which ONNX operator, of which versions, into our ops.

A converter is one row: `@converter("Clip", since=11)`. Of several rows for one operator the one with the largest
`since` that the model's opset reaches is taken, so a row stands until a later one replaces it. The rows live in one
module per family; `CONVERTERS` is complete once `load_converters` ran. Knowledge of graphs and scopes is in
`importer`, not here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

FAMILY_MODULES = ("activations", "control", "conv", "dynamic", "einsum", "features", "loops", "math", "microsoft",
                  "normalization", "pooling", "quantization", "recurrent", "reduce", "resize", "sequences", "signal",
                  "tensor", "vision")  # fmt: skip

Converter = Callable[[Any], Any]
"""Takes a `node.Node`; gives a value, a sequence of values (None for an absent output), or a `node.Inline`."""

CONVERTERS: dict[tuple[str, str], list[tuple[int, Converter]]] = {}


def converter(*op_types: str, since: int = 1, domain: str = "") -> Callable[[Converter], Converter]:
    """Register a function as the converter of `op_types` from opset `since` on."""

    def decorate(function: Converter) -> Converter:
        for op_type in op_types:
            rows = CONVERTERS.setdefault((domain, op_type), [])
            rows.append((since, function))
            rows.sort(key=lambda row: row[0])
        return function

    return decorate


def load_converters() -> None:
    """Fill the table."""
    for family in FAMILY_MODULES:
        importlib.import_module(f"compiler.frontend.onnx.{family}")


def find_converter(op_type: str, opset: int, domain: str = "") -> Converter | None:
    """The converter of an operator at an opset; None if there is none."""
    found = None
    for since, function in CONVERTERS.get((domain, op_type), ()):
        if since <= opset:
            found = function
    return found
