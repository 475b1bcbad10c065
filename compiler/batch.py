"""A larger batch than the model was made for: imported with it where its ops allow, or with the batch in place of the
1 that its reshapes begin with; computed by copies otherwise.

Changing a model's first dimension can change what it computes (a reshape to [1, -1, 85] mixes the samples), so a module
of the larger batch is also compared with the original, sample by sample, on random inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.ir.core import Argument, Module
from compiler.ir.types import TensorType
from compiler.ir.verifier import verify
from compiler.pass_manager import make_pass, parse_pipeline, print_pipeline

Load = Callable[[Mapping[str, Sequence[int]]], Module]
TOLERANCE = 1e-3
"""Part of the output's range by which a sample may differ, because sums are taken in another order."""


def load_batch(load: Load, batch: int) -> tuple[Module, int]:
    """`load(shapes)` with the batch, and 1; or the model of batch 1, and how many copies `replicate` must make.

    Raises CompilerError E119 for inputs whose first dimension is not a batch of 1.
    """
    single = load({})
    if batch == 1:
        return single, 1
    odd = [a for a in single.main.arguments if a.type.shape[:1] != (1,)]
    if odd:
        told = ", ".join(f"{a.name} {list(a.type.shape)}" for a in odd)
        message = f"--batch needs inputs of one sample; the model has {told}"
        raise error("E119", message, help="say the batch with --shape alone")
    shapes = {a.name: (batch, *a.type.static_shape[1:]) for a in single.main.arguments}
    for make in (lambda: load(shapes), lambda: _rebound(single, batch)):
        try:
            module = make()
        except CompilerError:  # the ops fix the batch
            continue
        if _same_samples(single, module, batch):
            return module, 1
    return single, batch


def _rebound(single: Module, batch: int) -> Module:
    """The module with the batch as first dimension of its inputs and of every reshape to one sample. Raises
    CompilerError where that leaves no valid module."""
    module = single.clone()
    for argument in module.main.arguments:
        argument.type = TensorType((batch, *argument.type.shape[1:]), argument.type.dtype, argument.type.quant)
    faults: list[Diagnostic] = []
    for op in module.main.body:
        if op.op_name == "tensor.reshape" and op.attributes["shape"][:1] == (1,):
            op.set_attribute("shape", (batch, *op.attributes["shape"][1:]))
        faults += [Diagnostic(code="E550", message=message, op=op.op_name) for message in op.check()]
        if faults:
            raise CompilerError(faults)
        if op.infer() is not None:
            op.infer_again()
    verify(module)
    return module


def replicated(pipeline: str, copies: int) -> str:
    """Pipeline text with `replicate` after `quantize`."""
    passes = parse_pipeline(pipeline)
    if copies > 1:
        place = next((i + 1 for i, p in enumerate(passes) if p.name == "quantize"), 0)
        passes.insert(place, make_pass("replicate", {"batch": copies}))
    return print_pipeline(passes)


def _same_samples(single: Module, module: Module, batch: int) -> bool:
    """Whether the first and the last sample of a batch come out as they do alone."""
    from compiler.evaluate.interpreter import Interpreter

    pairs = list(zip(single.main.outputs, module.main.outputs, strict=True))
    if any(b.type.shape != (batch, *a.type.shape[1:]) or a.type.shape[:1] != (1,) for a, b in pairs):
        return False
    inputs = [_random(a, batch, seed) for seed, a in enumerate(single.main.arguments)]
    found = Interpreter(module).run(inputs)
    alone = Interpreter(single)
    for index in (0, batch - 1):
        wanted = alone.run([array[index : index + 1] for array in inputs])
        if not all(_close(w, f[index : index + 1]) for w, f in zip(wanted, found, strict=True)):
            return False
    return True


def _random(argument: Argument, batch: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (batch, *argument.type.static_shape[1:])
    dtype: Any = argument.type.dtype
    return (random.normal(size=shape) if dtype.is_float else random.integers(0, 2, shape)).astype(dtype.numpy)


def _close(wanted: np.ndarray, found: np.ndarray) -> bool:
    wide, other = wanted.astype(np.float64), found.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    span = float(np.ptp(finite)) if finite.size else 0.0
    return bool(np.allclose(wide, other, rtol=TOLERANCE, atol=TOLERANCE * (span or 1.0), equal_nan=True))
