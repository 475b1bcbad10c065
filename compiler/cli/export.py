"""Write a model or IR file as ONNX: what passes made of a network, for other tools to read.

Modules of neutral ops can be written, before the pass convert-layout lays them out for the chip: the result of prepare,
of pruning, and of quantize, whose integers become QuantizeLinear and DequantizeLinear. With -p, passes are run first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from compiler.cli import arguments
from compiler.errors import error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="M.onnx", help="the ONNX model to write")
    parser.add_argument("-p", "--passes", default="", metavar="'a,b{x=1}'", help="passes to run first")
    parser.add_argument("--scheme", type=Path, metavar="Q.toml", help="the scheme for the pass quantize")
    arguments.load_pass_argument(parser)


def run(args: argparse.Namespace) -> int:
    from compiler.export.onnx import to_onnx
    from compiler.pass_manager import run_pipeline

    arguments.writable(args.output, ".onnx", args.model, args.scheme)
    arguments.load_passes(args)
    arguments.check_scheme_is_used(args.scheme, args.passes)
    module = arguments.load_model(args)
    if args.passes:
        module = run_pipeline(module, args.passes, options={"scheme": str(args.scheme)} if args.scheme else {})
    made = to_onnx(module)
    _save(made, args.output)
    print(f"{args.output}: {len(made.graph.node)} nodes, opset {made.opset_import[0].version}")
    return 0


def _save(model: object, path: Path) -> None:
    """Write the model whole, its weights beside it where they do not fit a protobuf message (2 GB)."""
    import onnx

    assert isinstance(model, onnx.ModelProto)
    beside = model.ByteSize() > 2**31 - 1
    try:
        onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data" if beside else None)
        onnx.checker.check_model(str(path))
    except OSError as fault:
        raise error("E101", f"cannot write the file: {fault.strerror or fault}", where=str(path)) from None
