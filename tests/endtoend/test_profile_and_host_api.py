"""MobileNetV2 and a model of several subnets: trace and report add up, the host API computes what a session does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.frontend.load import load
from runtime import Session, cnrt
from runtime.profile import profile
from runtime.trace import trace
from targets.mlu220.container import OfflineModel
from targets.mlu220.hardware import load_board
from tests.unit.test_profile_accounts import assert_adds_up
from tests.unit.test_profile_trace import assert_schema, assert_totals_are_the_reports, assert_tracks_are_sequences

from .core_models import CORE_MODELS

FILES = ("mobilenet_v2_imagenet.onnx", "yolox_nano.onnx")


@pytest.fixture(scope="module", params=FILES, ids=lambda f: f.removesuffix(".onnx"))
def compiled(request: pytest.FixtureRequest, models: Path, data: Path) -> tuple[OfflineModel, list[np.ndarray]]:
    (core,) = [m for m in CORE_MODELS if m.file == request.param]
    inputs = core.inputs(data)
    module = driver.prepare(load(models / core.file, core.shapes))
    return driver.compile_model(module, scheme=driver.calibrate(module, [inputs], "minmax")), inputs


def test_trace_and_accounts_add_up_to_the_report(compiled: tuple[OfflineModel, list[np.ndarray]]) -> None:
    model, _ = compiled
    report = profile(model, load_board(model.board))
    for function in report.functions:
        assert_adds_up(function.accounts)
    made = trace(report)
    assert_schema(made)
    assert_tracks_are_sequences(made)
    assert_totals_are_the_reports(made, report)
    assert report.ddr_lower_bound <= report.traffic()["ddr_read"] + report.traffic()["ddr_write"]


def test_every_subnet_gives_a_host_program_the_bytes_it_gives_a_session(
    compiled: tuple[OfflineModel, list[np.ndarray]], tmp_path: Path
) -> None:
    """Subnet after subnet through the vendor's calls; what runs on the host is done as a session does it."""
    model, inputs = compiled
    session = Session(model)
    wanted = session.run(*inputs)
    model.save(tmp_path / "m.cambricon")
    values = dict(zip([r.name for r in model.inputs], inputs, strict=True))
    host = {f.name for f in model.host_functions}
    ok(cnrt.cnrtInit(0))
    ok(cnrt.cnrtSetCurrentDevice(0))
    loaded = ok(cnrt.cnrtLoadModel(tmp_path / "m.cambricon"))
    for step in model.steps:
        taken = [values[name] for name in step.inputs]
        run = (
            session._segments[step.function]
            if step.function in host
            else lambda a, s=step: invoked(loaded, model, s, a)
        )
        values.update(zip(step.outputs, run(taken), strict=True))
    cnrt.cnrtDestroy()
    for record, expected in zip(model.outputs, wanted if isinstance(wanted, list) else [wanted], strict=True):
        assert (values[record.name] == expected).all()


def invoked(loaded: Any, model: OfflineModel, step: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """One subnet in the vendor's order of calls."""
    function = ok(cnrt.cnrtExtractFunction(None, loaded, step.function))
    context = ok(cnrt.cnrtCreateRuntimeContext(function))
    ok(cnrt.cnrtInitRuntimeContext(context))
    queue = ok(cnrt.cnrtRuntimeContextCreateQueue(context))
    device = model.function(step.function)
    params = [ok(cnrt.cnrtMalloc(size)) for size in ok(cnrt.cnrtGetInputDataSize(function))[0]]
    params += [ok(cnrt.cnrtMalloc(size)) for size in ok(cnrt.cnrtGetOutputDataSize(function))[0]]
    for pointer, array, record in zip(params, arrays, device.inputs, strict=False):
        there = np.ascontiguousarray(array.transpose(record.permutation))
        ok(cnrt.cnrtMemcpy(pointer, there, record.bytes, cnrt.CNRT_MEM_TRANS_DIR_HOST2DEV))
    ok(cnrt.cnrtInvokeRuntimeContext(context, params, queue))
    ok(cnrt.cnrtSyncQueue(queue))
    results = []
    for pointer, record in zip(params[len(arrays) :], device.outputs, strict=True):
        here = np.empty(record.device_shape, record.numpy)
        ok(cnrt.cnrtMemcpy(here, pointer, record.bytes, cnrt.CNRT_MEM_TRANS_DIR_DEV2HOST))
        results.append(np.ascontiguousarray(here.transpose(np.argsort(record.permutation))))
    ok(cnrt.cnrtFreeArray(params, len(params)))
    return results


def ok(result: Any) -> Any:
    status, *values = result if isinstance(result, tuple) else (result,)
    assert status == cnrt.CNRT_RET_SUCCESS, cnrt.cnrtGetErrorStr(status)
    return values[0] if len(values) == 1 else values
