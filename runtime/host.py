"""Host functions of an offline model: IR text, parsed when first needed and evaluated with NumPy.

The one module of the runtime that knows the IR, and it imports it only when a file has a host function.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from compiler.errors import error
from targets.mlu220.container import HostFunction, IORecord


class HostSegment:
    """A host function, ready to run on arrays in the model's own layout."""

    def __init__(self, function: HostFunction):
        self.function = function

    @cached_property
    def _interpreter(self) -> Any:
        from compiler.evaluate.interpreter import Interpreter
        from compiler.ir.core import hash_of_array
        from compiler.ir.parser import parse_module

        blobs = {hash_of_array(array): array for array in self.function.constants.values()}
        module = parse_module(self.function.text, blobs=blobs, file=self.function.name)
        names = list(module.functions)
        wanted = self.function.name if self.function.name in names else "main"
        if wanted not in names and len(names) != 1:
            raise error(
                "E723", f"host function {self.function.name!r} has functions {', '.join(names) or 'none'} in its text",
                help="the text must have one function, or one named like the host function or main",
            )  # fmt: skip
        return Interpreter(module, wanted if wanted in names else names[0])

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs in the model's own layout; the text computes in that of the records' device axes."""
        records = self.function.inputs
        results = self._interpreter.run([a.transpose(r.permutation) for a, r in zip(inputs, records, strict=True)])
        return [
            _in_model_order(np.asarray(result, record.numpy), record)
            for result, record in zip(results, self.function.outputs, strict=True)
        ]


def _in_model_order(result: np.ndarray, record: IORecord) -> np.ndarray:
    """What the text computed in the order of the device's axes, in the model's own."""
    if not record.is_open:
        result = result.reshape(record.device_shape)
    array = np.array(result.transpose(np.argsort(record.permutation)), order="C")  # a copy: of an input, perhaps
    if not record.takes(array.shape):
        message = f"a host function gives {record.name!r} of shape {list(array.shape)}, not {list(record.shape)}"
        raise error("E723", message)
    return array
