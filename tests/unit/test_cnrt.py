"""The vendor's host API: its order of calls, what it tells about a model, and what it says to every mistake."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime import Session, cnrt
from runtime.profile import profile
from targets.mlu220.hardware import load_board
from tests.unit.test_session import SHAPE, image, model

H2D, D2H = cnrt.CNRT_MEM_TRANS_DIR_HOST2DEV, cnrt.CNRT_MEM_TRANS_DIR_DEV2HOST
SIZE = 4 * int(np.prod(SHAPE))


def ok(result: Any) -> Any:
    """The values of a call that must succeed."""
    status, *values = result if isinstance(result, tuple) else (result,)
    assert status == cnrt.CNRT_RET_SUCCESS, cnrt.cnrtGetErrorStr(status)
    return values[0] if len(values) == 1 else values


@pytest.fixture(autouse=True)
def card() -> Iterator[None]:
    """A card, initialised and current, and given back afterwards."""
    ok(cnrt.cnrtInit(0))
    ok(cnrt.cnrtSetCurrentDevice(ok(cnrt.cnrtGetDeviceHandle(0))))
    yield
    cnrt.cnrtDestroy()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """y = 2 * x on an image that is NCHW in the model and NHWC on the device."""
    model().save(tmp_path / "double.cambricon")
    return tmp_path / "double.cambricon"


@pytest.fixture
def program(path: Path) -> SimpleNamespace:
    """Everything up to the buffers."""
    loaded = ok(cnrt.cnrtLoadModel(path))
    function = ok(cnrt.cnrtExtractFunction(ok(cnrt.cnrtCreateFunction()), loaded, "subnet0"))
    context = ok(cnrt.cnrtCreateRuntimeContext(function, None))
    ok(cnrt.cnrtSetRuntimeContextDeviceId(context, 0))
    ok(cnrt.cnrtInitRuntimeContext(context, None))
    queue = ok(cnrt.cnrtCreateQueue())
    x, y = ok(cnrt.cnrtMalloc(SIZE)), ok(cnrt.cnrtMalloc(SIZE))
    return SimpleNamespace(model=loaded, function=function, context=context, queue=queue, x=x, y=y)


def read(pointer: int, size: int = SIZE) -> np.ndarray:
    host = np.empty(size // 4, np.float32)
    ok(cnrt.cnrtMemcpy(host, pointer, size, D2H))
    return host


# -- the journey -------------------------------------------------------------------------------------------------------
def test_the_vendors_order_of_calls_computes_what_a_session_computes(path: Path, program: SimpleNamespace) -> None:
    x = image()
    device = np.empty(x.size, np.float32)
    ok(cnrt.cnrtTransDataOrder(x, cnrt.CNRT_FLOAT32, device, 4, SHAPE, [0, 2, 3, 1]))
    ok(cnrt.cnrtMemcpy(program.x, device, SIZE, H2D))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue, None))
    ok(cnrt.cnrtSyncQueue(program.queue))
    back = np.empty(SHAPE, np.float32)
    dims, count = ok(cnrt.cnrtGetOutputDataShape(0, program.function))
    ok(cnrt.cnrtTransDataOrder(read(program.y), cnrt.CNRT_FLOAT32, back, count, dims, [0, 3, 1, 2]))
    assert (back == Session(path).run(x)).all()


def test_outputs_are_there_after_the_queue_was_waited_for_and_not_before(program, caplog) -> None:
    ok(cnrt.cnrtMemcpy(program.x, image(), SIZE, H2D))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    with caplog.at_level(logging.WARNING, "cnrt"):
        assert not read(program.y).any()
    assert "call cnrtSyncQueue first" in caplog.text
    ok(cnrt.cnrtSyncQueue(program.queue))
    assert (read(program.y) == 2 * image().reshape(-1)).all()


def test_a_pointer_into_the_middle_of_an_allocation_is_a_pointer(program: SimpleNamespace) -> None:
    both = ok(cnrt.cnrtMalloc(2 * SIZE))
    ok(cnrt.cnrtMemcpy(both, image(), SIZE, H2D))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [both, both + SIZE], program.queue))
    ok(cnrt.cnrtSyncQueue(program.queue))
    assert (read(both + SIZE) == 2 * image().reshape(-1)).all()


def test_the_time_between_two_notifiers_is_the_modelled_time(path: Path, program: SimpleNamespace) -> None:
    start, middle, end = (ok(cnrt.cnrtCreateNotifier()) for _ in range(3))
    for notifier, runs in ((start, 0), (middle, 1), (end, 2)):
        for _ in range(runs):
            ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
        ok(cnrt.cnrtPlaceNotifier(notifier, program.queue))
    assert cnrt.cnrtNotifierDuration(start, end) == (cnrt.CNRT_RET_ERR_NOT_READY, None)
    ok(cnrt.cnrtSyncQueue(program.queue))
    one = 1e6 * profile(Session(path).model, load_board("m2")).seconds
    assert ok(cnrt.cnrtNotifierDuration(start, middle)) == pytest.approx(one)
    assert ok(cnrt.cnrtNotifierDuration(middle, end)) == pytest.approx(2 * one)


def test_two_queues_share_the_one_cluster(program: SimpleNamespace) -> None:
    queues = [program.queue, ok(cnrt.cnrtRuntimeContextCreateQueue(program.context))]
    ends = [ok(cnrt.cnrtCreateNotifier()) for _ in queues]
    for queue, end in zip(queues, ends, strict=True):
        ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], queue))
        ok(cnrt.cnrtPlaceNotifier(end, queue))
    ok(cnrt.cnrtSyncDevice())
    assert ok(cnrt.cnrtNotifierDuration(*ends)) > 0


def test_a_queue_that_waits_for_a_notifier_runs_after_the_other_queue(program: SimpleNamespace) -> None:
    second, ready, z = ok(cnrt.cnrtCreateQueue()), ok(cnrt.cnrtCreateNotifier()), ok(cnrt.cnrtMalloc(SIZE))
    ok(cnrt.cnrtMemcpy(program.x, image(), SIZE, H2D))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    ok(cnrt.cnrtPlaceNotifier(ready, program.queue))
    ok(cnrt.cnrtQueueWaitNotifier(ready, second, 0))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.y, z], second))
    ok(cnrt.cnrtSyncQueue(second))
    assert (read(z) == 4 * image().reshape(-1)).all()


def test_a_notifier_placed_again_tells_of_its_last_place(program: SimpleNamespace) -> None:
    start, end = ok(cnrt.cnrtCreateNotifier()), ok(cnrt.cnrtCreateNotifier())
    ok(cnrt.cnrtPlaceNotifier(start, program.queue))
    for _ in range(2):
        ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
        ok(cnrt.cnrtPlaceNotifier(end, program.queue))
    for _ in range(3):  # start, one run, the first place of end
        assert cnrt.cnrtQueryNotifier(end) == cnrt.CNRT_RET_ERR_BUSY
    assert cnrt.cnrtNotifierDuration(start, end) == (cnrt.CNRT_RET_ERR_NOT_READY, None)
    ok(cnrt.cnrtWaitNotifier(end))
    one = 1e6 * profile(program.context.session.model, load_board("m2")).seconds
    assert ok(cnrt.cnrtNotifierDuration(start, end)) == pytest.approx(2 * one)


def test_polling_ends(program: SimpleNamespace) -> None:
    done = ok(cnrt.cnrtCreateNotifier())
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    ok(cnrt.cnrtPlaceNotifier(done, program.queue))
    answers = [cnrt.cnrtQueryNotifier(done) for _ in range(3)]
    assert answers == [cnrt.CNRT_RET_ERR_BUSY, cnrt.CNRT_RET_ERR_BUSY, cnrt.CNRT_RET_SUCCESS]
    ok(cnrt.cnrtWaitNotifier(done))
    ok(cnrt.cnrtQueryQueue(program.queue))


def test_asynchronous_copies_stand_in_the_queue(program: SimpleNamespace) -> None:
    out = np.zeros(SIZE // 4, np.float32)
    ok(cnrt.cnrtMemcpyAsync(program.x, image(), SIZE, program.queue, H2D))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    ok(cnrt.cnrtMemcpyAsync(out, program.y, SIZE, program.queue, D2H))
    assert cnrt.cnrtQueryQueue(program.queue) == cnrt.CNRT_RET_ERR_NOT_READY
    assert not out.any()
    ok(cnrt.cnrtSyncQueue(program.queue))
    assert (out == 2 * image().reshape(-1)).all()


def test_contexts_can_be_forked_for_threads(program: SimpleNamespace) -> None:
    forked, statuses = ok(cnrt.cnrtForkRuntimeContext(program.context, None)), []

    def work() -> None:
        statuses.append(cnrt.cnrtMalloc(SIZE)[0])
        statuses.append(cnrt.cnrtSetCurrentContextDevice(forked))
        statuses.append(cnrt.cnrtInvokeRuntimeContext(forked, [program.x, program.y], program.queue))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert statuses == [cnrt.CNRT_RET_ERR_NODEV, cnrt.CNRT_RET_SUCCESS, cnrt.CNRT_RET_SUCCESS]


# -- what it tells -----------------------------------------------------------------------------------------------------
def test_queries_say_what_the_twins_text_says(path: Path, program: SimpleNamespace) -> None:
    f, twins = program.function, path.with_name(path.name + "_twins").read_text()
    for sizes, types, shape in (
        (cnrt.cnrtGetInputDataSize, cnrt.cnrtGetInputDataType, cnrt.cnrtGetInputDataShape),
        (cnrt.cnrtGetOutputDataSize, cnrt.cnrtGetOutputDataType, cnrt.cnrtGetOutputDataShape),
    ):
        assert ok(sizes(f)) == [[SIZE], 1]
        assert ok(types(f)) == [[cnrt.CNRT_FLOAT32], 1]
        dims, count = ok(shape(0, f))
        assert (dims, count) == ([2, 4, 5, 3], 4)
        assert f"Shape(dim): {' '.join(map(str, dims))} \n" in twins
    inputs, outputs, *counts = ok(cnrt.cnrtGetInputAndOutputNamesFromFunction(f))
    assert (inputs, outputs, counts) == (["subnet0.in0"], ["subnet0.out"], [1, 1])
    assert ok(cnrt.cnrtGetParamIndexByName(f, "subnet0.out")) == 1
    assert ok(cnrt.cnrtGetSupportedParamLayoutByName(f, "subnet0.in0")) == cnrt.CNRT_NHWC
    assert "Dim Order: CNRT_NHWC" in twins and "CNRT_NCHW" not in twins
    assert ok(cnrt.cnrtGetSupportedParamDataTypeByName(f, "subnet0.in0")) == cnrt.CNRT_FLOAT32
    assert ok(cnrt.cnrtGetSupportedParamShapeByName(f, "subnet0.in0")) == [2, 4, 5, 3]
    assert ok(cnrt.cnrtGetSupportedParamDimNumberByName(f, "subnet0.in0")) == 4


def test_a_model_says_how_many_functions_it_has_and_for_how_many_cores(path: Path) -> None:
    size = ok(cnrt.cnrtGetModelSize(path))
    loaded = ok(cnrt.cnrtLoadModelFromMem(path.read_bytes()[:size]))
    assert ok(cnrt.cnrtGetFunctionNumber(loaded)) == 1
    assert ok(cnrt.cnrtGetFunctionSymbol(loaded, 0)) == ["subnet0", 7]
    assert ok(cnrt.cnrtQueryModelParallelism(loaded)) == 1
    assert ok(cnrt.cnrtQueryCoreVersion(loaded)) == cnrt.CNRT_MLU220
    function = ok(cnrt.cnrtExtractFunction(None, loaded, "subnet0"))
    assert ok(cnrt.cnrtGetModelMemUsed(loaded)) == ok(cnrt.cnrtGetFunctionMemUsed(function)) > 0
    assert ok(cnrt.cnrtQueryModelLocalMemSize(loaded)) == 0


def test_the_card_is_an_mlu220_with_four_cores_and_four_gigabytes() -> None:
    info = ok(cnrt.cnrtGetDeviceInfo(0))
    assert (info.device_name, info.core_version, info.core_num) == ("MLU220", 6, 4)
    assert ok(cnrt.cnrtGetDeviceCount()) == 1
    ok(cnrt.cnrtMalloc(1 << 20))
    free, total = ok(cnrt.cnrtGetMemInfo(0))
    assert (total, total - free) == (4 << 30, 1 << 20)


def test_names_and_numbers_are_the_vendors() -> None:
    assert (cnrt.CNRT_FLOAT16, cnrt.CNRT_FLOAT32, cnrt.CNRT_INT8, cnrt.CNRT_UINT8) == (0x12, 0x13, 0x21, 0x31)
    assert (cnrt.CNRT_NCHW, cnrt.CNRT_NHWC, cnrt.CNRT_HWCN) == (0x0123, 0x0231, 0x2310)
    assert (cnrt.CNRT_RET_ERR_NOMEM, cnrt.CNRT_RET_ERR_NO_EXIST, cnrt.CNRT_RET_ERR_MLU) == (632008, 632022, 632032)
    assert cnrt.CNRT_FUNC_TYPE_UNION1 == 4
    assert cnrt.cnrtDataTypeSize(cnrt.CNRT_FLOAT16) == 2 and cnrt.cnrtDataTypeSize(cnrt.CNRT_INT4) == 0
    assert set(cnrt.cnrtRet_t) == {code for code in cnrt.cnrtRet_t if cnrt.cnrtGetErrorStr(code)}
    assert cnrt.cnrtGetErrorStr(12345) == cnrt.cnrtGetErrorStr(cnrt.CNRT_RET_ERR_UNKNOWN)
    assert all(hasattr(cnrt, name) for name in cnrt.__all__) and len(set(cnrt.__all__)) == len(cnrt.__all__)
    with pytest.raises(AttributeError, match="cnrtFly"):
        _ = cnrt.cnrtFly


# -- mistakes ----------------------------------------------------------------------------------------------------------
def test_nothing_works_before_init_or_without_a_current_device() -> None:
    cnrt.cnrtDestroy()
    assert cnrt.cnrtGetDeviceHandle(0) == (cnrt.CNRT_RET_ERR_INIT, None)
    assert cnrt.cnrtMalloc(16) == (cnrt.CNRT_RET_ERR_INIT, None)
    ok(cnrt.cnrtInit(0))
    assert cnrt.cnrtMalloc(16) == (cnrt.CNRT_RET_ERR_NODEV, None)
    assert cnrt.cnrtGetDeviceHandle(1)[0] == cnrt.CNRT_RET_ERR_NODEV
    assert cnrt.cnrtInit(7) == cnrt.CNRT_RET_ERR_INVALID


def test_the_fake_device_answers_questions_and_computes_nothing(path: Path) -> None:
    ok(cnrt.cnrtInit(1))
    assert cnrt.cnrtGetDeviceHandle(0)[0] == cnrt.CNRT_RET_ERR_NODEV
    ok(cnrt.cnrtSetCurrentDevice(ok(cnrt.cnrtGetDeviceHandle(-1))))
    function = ok(cnrt.cnrtExtractFunction(None, ok(cnrt.cnrtLoadModel(path)), "subnet0"))
    assert ok(cnrt.cnrtGetInputDataSize(function)) == [[SIZE], 1]
    context = ok(cnrt.cnrtCreateRuntimeContext(function))
    ok(cnrt.cnrtInitRuntimeContext(context))
    status = cnrt.cnrtInvokeRuntimeContext(context, [0, 0], ok(cnrt.cnrtCreateQueue()))
    assert status == cnrt.CNRT_RET_WARNING_FAKE_DEVICE


def test_a_missing_or_damaged_file_is_refused(path: Path) -> None:
    assert cnrt.cnrtLoadModel(path.with_name("other")) == (cnrt.CNRT_RET_ERR_NO_EXIST, None)
    assert cnrt.cnrtGetModelSize(path.with_name("other")) == (cnrt.CNRT_RET_ERR_NO_EXIST, None)
    assert cnrt.cnrtLoadModelFromMem(path.read_bytes()[:-1]) == (cnrt.CNRT_RET_ERR_INVALID, None)


def test_a_program_that_is_not_safe_is_refused_when_its_context_is_initialised(path: Path, caplog) -> None:
    bad = model()
    bad.device_functions[0].programs[0] = bad.device_functions[0].programs[0][:-1].copy()  # nothing writes the output
    bad.save(path)
    function = ok(cnrt.cnrtExtractFunction(None, ok(cnrt.cnrtLoadModel(path)), "subnet0"))
    context = ok(cnrt.cnrtCreateRuntimeContext(function))
    assert cnrt.cnrtInitRuntimeContext(context) == cnrt.CNRT_RET_ERR_MLU
    assert "output" in caplog.text


def test_functions_must_be_extracted_and_exist(program: SimpleNamespace, caplog) -> None:
    empty = ok(cnrt.cnrtCreateFunction())
    assert cnrt.cnrtGetInputDataSize(empty) == (cnrt.CNRT_RET_ERR_NO_EXIST, None, None)
    assert cnrt.cnrtCreateRuntimeContext(empty)[0] == cnrt.CNRT_RET_ERR_NO_EXIST
    assert cnrt.cnrtExtractFunction(empty, program.model, "subnet9")[0] == cnrt.CNRT_RET_ERR_NO_EXIST
    assert "no function is named 'subnet9'; the model has subnet0" in caplog.text
    assert cnrt.cnrtGetInputDataSize(None)[0] == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtGetInputDataSize(program.model)[0] == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtGetInputDataShape(1, program.function)[0] == cnrt.CNRT_RET_ERR_NO_EXIST
    assert cnrt.cnrtGetParamIndexByName(program.function, "in")[0] == cnrt.CNRT_RET_ERR_NO_EXIST
    assert cnrt.cnrtGetFunctionSymbol(program.model, 1)[0] == cnrt.CNRT_RET_ERR_NO_EXIST


def test_a_context_is_initialised_once_and_before_it_is_invoked(program: SimpleNamespace) -> None:
    early = ok(cnrt.cnrtCreateRuntimeContext(program.function))
    assert cnrt.cnrtInvokeRuntimeContext(early, [program.x, program.y], program.queue) == cnrt.CNRT_RET_ERR_INIT
    assert cnrt.cnrtRuntimeContextCreateQueue(early)[0] == cnrt.CNRT_RET_ERR_INIT
    assert cnrt.cnrtInitRuntimeContext(program.context) == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtSetRuntimeContextDeviceId(program.context, 0) == cnrt.CNRT_RET_ERR_INVALID


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (lambda p: [p.x], "CNRT_RET_ERR_INVALID"),
        (lambda p: [p.x, p.y, p.y], "CNRT_RET_ERR_INVALID"),
        (lambda p: None, "CNRT_RET_ERR_INVALID"),
        (lambda p: [p.x, 0], "CNRT_RET_ERR_INVALID_POINTER"),
        (lambda p: [p.x, np.zeros(SIZE, np.uint8)], "CNRT_RET_ERR_INVALID_POINTER"),
        (lambda p: [p.x, p.y + 4], "CNRT_RET_ERR_MEMCPY"),
        (lambda p: [p.x, ok(cnrt.cnrtMalloc(SIZE - 1))], "CNRT_RET_ERR_MEMCPY"),
    ],
)
def test_buffers_of_a_run_must_be_device_memory_of_the_right_number_and_size(program, params, code) -> None:
    status = cnrt.cnrtInvokeRuntimeContext(program.context, params(program), program.queue)
    assert status == getattr(cnrt, code)
    assert cnrt.cnrtGetLastErr() == status
    ok(cnrt.cnrtSyncQueue(program.queue))


def test_freed_memory_is_found_out_even_after_new_allocations(program: SimpleNamespace) -> None:
    ok(cnrt.cnrtFree(program.x))
    ok(cnrt.cnrtMalloc(SIZE))
    status = cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue)
    assert status == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtMemcpy(program.x, image(), SIZE, H2D) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtFree(program.x) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtFree(program.y + 1) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    ok(cnrt.cnrtFree(0))


def test_memory_that_an_asynchronous_copy_needs_cannot_be_freed_however_its_pointer_is_written(program) -> None:
    pointer = np.array([program.x])[0]
    ok(cnrt.cnrtMemcpyAsync(pointer, image(), SIZE, program.queue, H2D))
    assert cnrt.cnrtFree(program.x) == cnrt.CNRT_RET_ERR_BUSY
    ok(cnrt.cnrtSyncQueue(program.queue))
    ok(cnrt.cnrtFree(program.x))


def test_memory_that_a_queue_still_needs_cannot_be_freed(program: SimpleNamespace) -> None:
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    assert cnrt.cnrtFree(program.x) == cnrt.CNRT_RET_ERR_BUSY
    assert cnrt.cnrtFreeArray([program.y, program.x], 2) == cnrt.CNRT_RET_ERR_BUSY
    ok(cnrt.cnrtDestroyQueue(program.queue))
    ok(cnrt.cnrtFreeArray([program.y, program.x], 2))


def test_copies_and_allocations_beyond_their_memory_are_refused(program: SimpleNamespace) -> None:
    assert cnrt.cnrtMemcpy(program.x, image(), SIZE + 1, H2D) == cnrt.CNRT_RET_ERR_MEMCPY
    assert cnrt.cnrtMemcpy(program.x + 8, image(), SIZE, H2D) == cnrt.CNRT_RET_ERR_MEMCPY
    assert cnrt.cnrtMemcpy(program.x, np.zeros(3), SIZE, H2D) == cnrt.CNRT_RET_ERR_OUT_RANGE
    assert cnrt.cnrtMemcpy(bytes(SIZE), program.x, SIZE, D2H) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtMemcpy(program.x, image()[:, ::2], 8, H2D) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtMemcpy(program.x, program.y, SIZE, H2D) == cnrt.CNRT_RET_ERR_INVALID_POINTER
    assert cnrt.cnrtMemcpy(program.x, program.y, SIZE, 9) == cnrt.CNRT_RET_ERR_UNSUPPORTED
    assert cnrt.cnrtMalloc(5 << 30) == (cnrt.CNRT_RET_ERR_NOMEM, None)
    assert cnrt.cnrtMalloc(0) == (cnrt.CNRT_RET_ERR_INVALID, None)
    assert cnrt.cnrtMalloc(-4) == (cnrt.CNRT_RET_ERR_INVALID, None)


def test_what_was_destroyed_cannot_be_used_or_destroyed_again(program: SimpleNamespace) -> None:
    notifier = ok(cnrt.cnrtCreateNotifier())
    assert cnrt.cnrtWaitNotifier(notifier) == cnrt.CNRT_RET_ERR_NOTIFIER
    for destroy, handle in (
        (cnrt.cnrtDestroyNotifier, notifier), (cnrt.cnrtDestroyQueue, program.queue),
        (cnrt.cnrtDestroyRuntimeContext, program.context), (cnrt.cnrtDestroyFunction, program.function),
        (cnrt.cnrtUnloadModel, program.model),
    ):  # fmt: skip
        ok(destroy(handle))
        assert destroy(handle) == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtSyncQueue(program.queue) == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtGetFunctionNumber(program.model)[0] == cnrt.CNRT_RET_ERR_INVALID


def test_what_was_given_out_ends_with_the_run_time(program: SimpleNamespace) -> None:
    cnrt.cnrtDestroy()
    ok(cnrt.cnrtInit(0))
    ok(cnrt.cnrtSetCurrentDevice(0))
    assert cnrt.cnrtSyncQueue(program.queue) == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtGetFunctionNumber(program.model)[0] == cnrt.CNRT_RET_ERR_INVALID
    status = cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue)
    assert status == cnrt.CNRT_RET_ERR_INVALID
    assert cnrt.cnrtFree(program.x) == cnrt.CNRT_RET_ERR_INVALID_POINTER


def test_a_second_initialisation_changes_nothing(program: SimpleNamespace) -> None:
    ok(cnrt.cnrtInit(0))
    ok(cnrt.cnrtInvokeRuntimeContext(program.context, [program.x, program.y], program.queue))
    ok(cnrt.cnrtSyncQueue(program.queue))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cnrt.cnrtLoadModel(None)[0],
        lambda: cnrt.cnrtLoadModelFromMem(None)[0],
        lambda: cnrt.cnrtLoadModelFromMem("text")[0],
        lambda: cnrt.cnrtGetModelSize(None)[0],
        lambda: cnrt.cnrtGetModelLevelFromFile(None)[0],
        lambda: cnrt.cnrtFreeArray(None, 2),
        lambda: cnrt.cnrtTransDataOrder(np.zeros(4), cnrt.CNRT_FLOAT32, np.zeros(4), 2, None, [0, 1]),
        lambda: cnrt.cnrtTransDataOrder(np.zeros(4), cnrt.CNRT_FLOAT32, np.zeros(4), 2, [2, 2], None),
    ],
)
def test_null_is_no_pointer(call) -> None:
    assert call() == cnrt.CNRT_RET_ERR_INVALID_POINTER


def test_batches_other_than_the_files_are_not_supported(program: SimpleNamespace) -> None:
    given = ([program.x, program.y], program.queue)
    ok(cnrt.cnrtInvokeRuntimeContext_V3(program.context, [2], *given))
    assert cnrt.cnrtInvokeRuntimeContext_V3(program.context, [1], *given) == cnrt.CNRT_RET_ERR_UNSUPPORTED


# -- host memory and conversions ---------------------------------------------------------------------------------------
def test_host_memory_is_an_array_and_freed_once() -> None:
    memory = ok(cnrt.cnrtMallocHost(64, cnrt.CNRT_MEMTYPE_DEFAULT))
    assert memory.nbytes == 64
    ok(cnrt.cnrtFreeHost(memory))
    assert cnrt.cnrtFreeHost(memory) == cnrt.CNRT_RET_ERR_INVALID_POINTER


def test_device_memory_is_filled_and_copied(program: SimpleNamespace) -> None:
    ok(cnrt.cnrtMemset(program.x, 0x3F, SIZE))
    ok(cnrt.cnrtMemcpy(program.y, program.x, SIZE, cnrt.CNRT_MEM_TRANS_DIR_DEV2DEV))
    assert (read(program.y).view(np.uint8) == 0x3F).all()


def test_orders_of_axes_are_permuted_and_types_cast_in_one() -> None:
    x = image()
    out = np.empty(x.size, np.float16)
    ok(cnrt.cnrtTransOrderAndCast(x, cnrt.CNRT_FLOAT32, out, cnrt.CNRT_FLOAT16, None, 4, SHAPE, [0, 2, 3, 1]))
    assert (out == x.transpose(0, 2, 3, 1).reshape(-1).astype(np.float16)).all()
    back = np.empty(SHAPE, np.float32)
    ok(cnrt.cnrtTransOrderAndCast(out, cnrt.CNRT_FLOAT16, back, cnrt.CNRT_FLOAT32, None, 4, [2, 4, 5, 3], [0, 3, 1, 2]))
    assert (back == x.astype(np.float16)).all()


def test_quantising_follows_position_and_scale_and_saturates() -> None:
    param = ok(cnrt.cnrtCreateQuantizedParam(-6, 1.5, 0))
    x = np.array([0.0, 1.0, -1.0, 100.0, -100.0, np.nan], np.float32)
    q, back = np.empty(6, np.int8), np.empty(6, np.float32)
    ok(cnrt.cnrtCastDataType(x, cnrt.CNRT_FLOAT32, q, cnrt.CNRT_INT8, 6, param))
    assert q.tolist() == [0, 96, -96, 127, -128, 0]  # 1.0 * 1.5 * 2^6
    ok(cnrt.cnrtCastDataType(q, cnrt.CNRT_INT8, back, cnrt.CNRT_FLOAT32, 3, param))
    assert back[:3].tolist() == [0.0, 1.0, -1.0]
    ok(cnrt.cnrtDestroyQuantizedParam(param))
    status = cnrt.cnrtCastDataType(x, cnrt.CNRT_FLOAT32, q, cnrt.CNRT_INT8, 6, param)
    assert status == cnrt.CNRT_RET_ERR_INVALID


def test_pixels_become_floats_and_floats_pixels() -> None:
    floats, pixels = np.array([-3.0, 7.5, 300.0], np.float32), np.empty(3, np.uint8)
    ok(cnrt.cnrtCastDataType(floats, cnrt.CNRT_FLOAT32, pixels, cnrt.CNRT_UINT8, 3, None))
    assert pixels.tolist() == [0, 8, 255]
    ok(cnrt.cnrtCastDataType(pixels, cnrt.CNRT_UINT8, floats, cnrt.CNRT_FLOAT32, 3, None))
    assert floats.tolist() == [0.0, 8.0, 255.0]


def test_strides_widen_three_channels_to_four() -> None:
    pixels, wide = np.arange(6, dtype=np.uint8), np.full(8, 9, np.uint8)
    ok(cnrt.cnrtAddDataStride(pixels, cnrt.CNRT_UINT8, wide, 2, [2, 3], [0, 1]))
    assert wide.tolist() == [0, 1, 2, 0, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda x: cnrt.cnrtCastDataType(x, 0x13, x, 0x21, 4, None), "CNRT_RET_ERR_UNSUPPORTED"),
        (lambda x: cnrt.cnrtCastDataType(x, 0x13, x, 0x20, 4, None), "CNRT_RET_ERR_INVALID_TYPE"),
        (lambda x: cnrt.cnrtCastDataType(x, 0x13, x, 0x12, 1000, None), "CNRT_RET_ERR_OUT_RANGE"),
        (lambda x: cnrt.cnrtTransDataOrder(x, 0x13, x, 2, [2, 2], [0, 2]), "CNRT_RET_ERR_INVALID"),
        (lambda x: cnrt.cnrtTransDataOrder(x, 0x13, x, 3, [2, 2], [0, 1, 2]), "CNRT_RET_ERR_INVALID"),
        (lambda x: cnrt.cnrtTransDataOrder(x, 0x13, x, 2, [2, 0], [0, 1]), "CNRT_RET_ERR_INVALID"),
        (lambda x: cnrt.cnrtAddDataStride(x, 0x13, x, 2, [2, 2], [0]), "CNRT_RET_ERR_INVALID"),
        (lambda x: cnrt.cnrtCreateQuantizedParam(0, 0.0, 0)[0], "CNRT_RET_ERR_INVALID"),
        (lambda x: cnrt.cnrtCreateQuantizedParam(0, 1.0, 3)[0], "CNRT_RET_ERR_UNSUPPORTED"),
    ],
)
def test_conversions_that_make_no_sense_are_refused(call, code) -> None:
    assert call(np.zeros(4, np.float32)) == getattr(cnrt, code)


def test_source_and_destination_may_be_the_same_memory() -> None:
    x = np.arange(6, dtype=np.float32)
    ok(cnrt.cnrtTransDataOrder(x, cnrt.CNRT_FLOAT32, x, 2, [2, 3], [1, 0]))
    assert x.tolist() == [0, 3, 1, 4, 2, 5]


# -- the document ------------------------------------------------------------------------------------------------------
FACTS = (Path(__file__).parents[2] / "docs" / "mlu220.md").read_text(encoding="utf-8")
ORDER = FACTS.partition("### 3.4 CNRT run-time order")[2].partition("### 3.5")[0]
LEFT_OUT: set[str] = set()
"""Calls of the vendor's order that are not there: none."""


def test_every_call_of_the_vendor_s_order_is_there() -> None:
    calls = set(re.findall(r"`(cnrt[A-Z]\w+)", ORDER))
    assert len(calls) > 25
    assert {name for name in calls if not hasattr(cnrt, name)} == LEFT_OUT


@pytest.mark.parametrize(
    ("kind", "row"),
    [("cnrtDataType_t", "dtype"), ("cnrtDimOrder_t", "dim order"), ("cnrtCoreVersion_t", "core version"),
     ("cnrtFunctionType_t", "function type")],
)  # fmt: skip
def test_numbers_are_those_of_the_vendor(kind: str, row: str) -> None:
    (line,) = [text for text in ORDER.splitlines() if text.startswith(f"| {row} |")]
    stated = re.findall(r"(\w+) (0x[0-9A-Fa-f]+|\d+)(?:,| \|)", line.partition("|")[2].partition("|")[2])
    known = {member.name.rpartition("_")[2]: int(member) for member in getattr(cnrt, kind)}
    assert stated and all(known[name] == int(value, 0) for name, value in stated)


def test_every_error_of_the_document_has_its_code_and_a_text() -> None:
    (line,) = [text for text in ORDER.splitlines() if text.startswith("| errors |")]
    codes = {int(code) for code in re.findall(r"\b(\d+) [a-zA-Z]", line)}
    assert len(codes) >= 11 and codes <= {int(c) for c in cnrt.cnrtRet_t}
    assert all(cnrt.cnrtGetErrorStr(code) != cnrt.cnrtGetErrorStr(999991) for code in codes - {999991})


def test_the_level_of_a_file_is_its_format_s_version(path: Path) -> None:
    assert ok(cnrt.cnrtGetModelLevelFromFile(path)) >= 1
    assert cnrt.cnrtGetModelLevelFromFile("missing.cambricon")[0] == cnrt.CNRT_RET_ERR_NO_EXIST
