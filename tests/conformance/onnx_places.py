"""Where the nodes of an imported module run, as the target itself answers: the basis of a column of the table."""

from __future__ import annotations

from compiler import driver
from compiler.errors import CompilerError
from compiler.ir.core import Module
from compiler.pass_manager import run_pipeline
from compiler.target import load_target

INTEGER, FLOAT, PARTLY, HOST, FOLDED = "MLU integer", "MLU float", "MLU and host", "host", "folded"
PRODUCTS = ("nn.conv2d", "nn.conv_transpose2d", "nn.matmul")


def place_of(module: Module) -> str:
    """Where a module's ops run once its products are quantised, by the target's answers on each of them."""
    target = load_target("mlu220")
    try:
        prepared = driver.prepare(module)
        options = {"scheme": driver.pretended_scheme(prepared)}
        ready = run_pipeline(prepared, "quantize,convert-layout", target=target, options=options, crash_directory=None)
    except CompilerError:
        return HOST
    ops = [op for op in ready.main.body if op.op_name not in ("graph.return", "tensor.transpose")]
    if not ops:
        moved = any(op.op_name == "tensor.transpose" for op in ready.main.body)
        return FLOAT if moved else FOLDED
    legal = [op for op in ops if target.supports(op) is None]
    if len(legal) < len(ops):
        return PARTLY if legal else HOST
    return INTEGER if any(op.op_name in PRODUCTS for op in legal) else FLOAT
