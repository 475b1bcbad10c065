"""Layers whose filters do not fit WRAM: their input channels are split, and sums stay integers between the parts."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.driver import calibrate, compile_model, prepare
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module
from compiler.ir.types import DType, TensorType
from compiler.ops.graph import Return
from compiler.ops.nn import Conv2d, MatMul
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from runtime.session import Session
from targets.mlu220.isa import Conv, Partial
from targets.mlu220.rules import reason_against

CASES = {
    "fully connected, K = 20000": (MatMul, (1, 20000), (20000, 70)),
    "fully connected, two rows": (MatMul, (2, 9000), (9000, 10)),
    "3x3 convolution of 1100 channels": (Conv2d, (1, 1100, 6, 5), (70, 1100, 3, 3)),
}


def network(kind: type, x_shape: tuple[int, ...], w_shape: tuple[int, ...]) -> Module:
    module = Module()
    main = module.add_function(Function("main"))
    x = main.add_argument(TensorType(x_shape, DType.F32), "x")
    weights = np.random.default_rng(1).normal(size=w_shape).astype(np.float32) * 0.02
    w = module.add_constant("w", weights)
    op = kind(x, w, names=["y"]) if kind is MatMul else kind(x, w, pads=(1, 1, 1, 1), names=["y"])
    main.body.append(op)
    main.body.append(Return(op.results[0]))
    return module


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_split_sums_give_the_bytes_of_the_whole_sum(case: str, cores: int) -> None:
    module = prepare(network(*CASES[case]))
    rng = np.random.default_rng(2)
    images = [rng.normal(size=CASES[case][1]).astype(np.float32) for _ in range(2)]
    scheme = calibrate(module, images, "minmax")
    pipeline = "quantize,convert-layout,partition{host=false},legalize"
    lowered = run_pipeline(
        module, pipeline, target=load_target("mlu220", cores=cores), options={"scheme": scheme.to_toml()}
    )
    assert [op.splits for op in lowered.ops() if op.op_name == "mlu.conv2d"] > [1]  # type: ignore[attr-defined]
    wanted = Interpreter(lowered).run([images[0]])[0]
    for buffers in (1, 2):
        text = f"{pipeline},fuse-layers,schedule{{buffers={buffers}}},plan-memory"
        model = compile_model(module, scheme=scheme, cores=cores, pipeline=text)
        rows = np.concatenate(model.device_functions[0].programs)
        kinds = set(rows[rows[:, 0] == Conv.opcode][:, Conv.column("partial")])
        assert {Partial.FIRST, Partial.LAST} <= kinds
        np.testing.assert_array_equal(Session(model, engine="oracle").run(images[0]), wanted)
        np.testing.assert_array_equal(Session(model, threads=2).run(images[0]), wanted)


def test_a_sum_that_int32_cannot_hold_is_refused_with_its_size() -> None:
    module = network(MatMul, (1, 140000), (140000, 2))
    scheme = calibrate(module, [np.ones((1, 140000), np.float32)], "minmax")
    lowered = run_pipeline(module, "quantize", options={"scheme": scheme.to_toml()})
    (op,) = [op for op in lowered.ops() if op.op_name == "nn.matmul"]
    assert reason_against(op) == "a sum of 140000 products of i8 does not fit int32"
