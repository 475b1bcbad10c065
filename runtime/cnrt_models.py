"""Vendor run-time, models: load them, extract functions, ask for inputs and outputs, run a function in a context.

See `runtime.cnrt` for how the calls are to be read.
"""
# ruff: noqa: N802, N816

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError
from runtime.cnrt_device import Notifier, Queue, Task
from runtime.cnrt_process import (
    _FAKE,
    Function,
    Model,
    R,
    RuntimeContext,
    call,
    destroy,
    extracted,
    live,
    process,
    thread,
)
from runtime.cnrt_types import (
    Fault,
    cnrtChannelType_t,
    cnrtCoreVersion_t,
    cnrtDataType_t,
    cnrtDimOrder_t,
    cnrtRuntimeContextInfo_t,
    host_bytes,
    integer,
    not_null,
)
from runtime.session import Session
from targets.mlu220.container import VERSION, DeviceFunction, IORecord, OfflineModel, Step
from targets.mlu220.hardware import BOARD_NUMBERS, board_of
from targets.mlu220.timeline import simulate
from targets.mlu220.twins import CNRT_TYPES, dim_order, four_axes


# -- models ------------------------------------------------------------------------------------------------------------
def _loaded(load: Callable[[], OfflineModel]) -> Model:
    try:
        return Model(load())
    except CompilerError as error:
        missing = any(d.code == "E700" for d in error.diagnostics)
        raise Fault(R.CNRT_RET_ERR_NO_EXIST if missing else R.CNRT_RET_ERR_INVALID, str(error)) from None


@call(outs=1)
def cnrtLoadModel(fname: str | Path) -> Model:
    """`status, model = cnrtLoadModel(path)`. NO_EXIST: no such file; INVALID: not an offline model, or damaged."""
    return _loaded(lambda: OfflineModel.load(not_null(fname, "the file's name")))


@call(outs=1)
def cnrtLoadModelFromMem(ptr: Any) -> Model:
    """`status, model = cnrtLoadModelFromMem(data)`"""
    return _loaded(lambda: OfflineModel.from_bytes(host_bytes(ptr, "the model"), "memory"))


@call(outs=1)
def cnrtLoadModelFromMem_V2(ptr: Any, reuse_user_mem: bool) -> Model:
    """As `cnrtLoadModelFromMem`; the bytes are copied either way."""
    status, model = cnrtLoadModelFromMem(ptr)
    if status != R.CNRT_RET_SUCCESS:
        raise Fault(status, "the model was not loaded")
    return model


@call()
def cnrtUnloadModel(model: Model) -> None:
    """Functions that were extracted stay usable."""
    destroy(model, Model, "model")


@call(outs=1, init=False)
def cnrtGetModelSize(fname: str | Path) -> int:
    """`status, size = cnrtGetModelSize(path)` in bytes, for `cnrtLoadModelFromMem`."""
    try:
        return Path(not_null(fname, "the file's name")).stat().st_size
    except OSError as error:
        raise Fault(R.CNRT_RET_ERR_NO_EXIST, f"{fname}: {error.strerror}") from None


@call(outs=1, init=False)
def cnrtGetModelLevelFromFile(fname: str | Path) -> int:
    """`status, level = cnrtGetModelLevelFromFile(path)`: the version of the file's format. What the vendor's levels
    mean is not published [U]."""
    _loaded(lambda: OfflineModel.load(not_null(fname, "the file's name")))
    return VERSION


@call(outs=1)
def cnrtQueryCoreVersion(model: Model) -> cnrtCoreVersion_t:
    """`status, version = cnrtQueryCoreVersion(model)`"""
    live(model, Model, "model")
    return cnrtCoreVersion_t.CNRT_MLU220


@call(outs=1)
def cnrtQueryModelParallelism(model: Model) -> int:
    """`status, cores = cnrtQueryModelParallelism(model)`"""
    return int(live(model, Model, "model").offline.cores)


@call(outs=1)
def cnrtQueryModelStackSize(model: Model) -> int:
    """Always 0 MB: programs have no stack."""
    live(model, Model, "model")
    return 0


cnrtQueryModelLocalMemSize = cnrtQueryModelStackSize


@call(outs=1)
def cnrtGetModelMemUsed(model: Model) -> int:
    """`status, bytes = cnrtGetModelMemUsed(model)`: constants, programs, and the largest workspace."""
    offline = live(model, Model, "model").offline
    functions = offline.device_functions
    programs = sum(p.nbytes for f in functions for p in f.programs)
    return int(offline.constants.size) + programs + max([f.workspace for f in functions], default=0)


@call(outs=1)
def cnrtGetFunctionNumber(model: Model) -> int:
    """`status, number = cnrtGetFunctionNumber(model)`: subnets, as in the `_twins` text."""
    return len(live(model, Model, "model").offline.device_functions)


@call(outs=2)
def cnrtGetFunctionSymbol(model: Model, index: int) -> tuple[str, int]:
    """`status, symbol, name_size = cnrtGetFunctionSymbol(model, 0)`"""
    functions = live(model, Model, "model").offline.device_functions
    if not 0 <= integer(index, "the index") < len(functions):
        raise Fault(R.CNRT_RET_ERR_NO_EXIST, f"the model has {len(functions)} functions, no number {index}")
    return functions[index].name, len(functions[index].name)


# -- functions ---------------------------------------------------------------------------------------------------------
@call(outs=1)
def cnrtCreateFunction() -> Function:
    """`status, function = cnrtCreateFunction()`"""
    return Function()


@call(outs=1)
def cnrtExtractFunction(function: Function | None, model: Model, symbol: str) -> Function:
    """`status, function = cnrtExtractFunction(function, model, "subnet0")`. Without a function one is made. NO_EXIST:
    the model has no subnet of that name."""
    offline = live(model, Model, "model").offline
    target = Function() if function is None else live(function, Function, "function")
    for device in offline.device_functions:
        if device.name == symbol:
            target.model, target.device = offline, device
            return target
    names = ", ".join(f.name for f in offline.device_functions) or "none"
    raise Fault(R.CNRT_RET_ERR_NO_EXIST, f"no function is named {symbol!r}; the model has {names}")


@call(outs=1)
def cnrtCopyFunction(src: Function) -> Function:
    """`status, dst = cnrtCopyFunction(src)`"""
    return Function(*extracted(src))


@call()
def cnrtDestroyFunction(function: Function) -> None:
    destroy(function, Function, "function")


@call(outs=1)
def cnrtGetFunctionMemUsed(function: Function) -> int:
    """`status, bytes = cnrtGetFunctionMemUsed(function)`"""
    model, device = extracted(function)
    return int(model.constants.size) + sum(p.nbytes for p in device.programs) + device.workspace


def _data_type(record: IORecord) -> cnrtDataType_t:
    return cnrtDataType_t[CNRT_TYPES.get(record.dtype, "CNRT_INVALID")]


def _shape(records: list[IORecord], index: int) -> tuple[list[int], int]:
    if not 0 <= integer(index, "the index") < len(records):
        raise Fault(R.CNRT_RET_ERR_NO_EXIST, f"there are {len(records)}, no number {index}")
    dims = list(four_axes(records[index].device_shape))
    return dims, len(dims)


@call(outs=2)
def cnrtGetInputDataSize(function: Function) -> tuple[list[int], int]:
    """`status, sizes, num = cnrtGetInputDataSize(function)` in bytes."""
    records = extracted(function)[1].inputs
    return [r.bytes for r in records], len(records)


@call(outs=2)
def cnrtGetOutputDataSize(function: Function) -> tuple[list[int], int]:
    """`status, sizes, num = cnrtGetOutputDataSize(function)` in bytes."""
    records = extracted(function)[1].outputs
    return [r.bytes for r in records], len(records)


@call(outs=2)
def cnrtGetInputDataType(function: Function) -> tuple[list[cnrtDataType_t], int]:
    """`status, types, num = cnrtGetInputDataType(function)`"""
    records = extracted(function)[1].inputs
    return [_data_type(r) for r in records], len(records)


@call(outs=2)
def cnrtGetOutputDataType(function: Function) -> tuple[list[cnrtDataType_t], int]:
    """`status, types, num = cnrtGetOutputDataType(function)`"""
    records = extracted(function)[1].outputs
    return [_data_type(r) for r in records], len(records)


@call(outs=2)
def cnrtGetInputDataShape(index: int, function: Function) -> tuple[list[int], int]:
    """`status, dims, dim_num = cnrtGetInputDataShape(0, function)`: on the device, as in the `_twins` text."""
    return _shape(extracted(function)[1].inputs, index)


@call(outs=2)
def cnrtGetOutputDataShape(index: int, function: Function) -> tuple[list[int], int]:
    """`status, dims, dim_num = cnrtGetOutputDataShape(0, function)`: on the device, as in the `_twins` text."""
    return _shape(extracted(function)[1].outputs, index)


@call(outs=4)
def cnrtGetInputAndOutputNamesFromFunction(function: Function) -> tuple[list[str], list[str], int, int]:
    """`status, input_names, output_names, input_num, output_num = ...(function)`"""
    device = extracted(function)[1]
    inputs, outputs = [r.name for r in device.inputs], [r.name for r in device.outputs]
    return inputs, outputs, len(inputs), len(outputs)


def _index(function: Function, name: str) -> int:
    extracted(function)
    names = [r.name for r in function.records]
    if name not in names:
        raise Fault(R.CNRT_RET_ERR_NO_EXIST, f"no input or output is named {name!r}: {', '.join(names)}")
    return names.index(name)


@call(outs=1)
def cnrtGetParamIndexByName(function: Function, name: str) -> int:
    """`status, index = cnrtGetParamIndexByName(function, name)`: inputs are counted first."""
    return _index(function, name)


@call(outs=1)
def cnrtGetSupportedParamDimNumberByName(function: Function, name: str) -> int:
    return len(four_axes(function.records[_index(function, name)].device_shape))


@call(outs=1)
def cnrtGetSupportedParamShapeByName(function: Function, name: str) -> list[int]:
    return list(four_axes(function.records[_index(function, name)].device_shape))


@call(outs=1)
def cnrtGetSupportedParamDataTypeByName(function: Function, name: str) -> cnrtDataType_t:
    return _data_type(function.records[_index(function, name)])


@call(outs=1)
def cnrtGetSupportedParamLayoutByName(function: Function, name: str) -> cnrtDimOrder_t:
    """`status, order = cnrtGetSupportedParamLayoutByName(function, name)`"""
    return cnrtDimOrder_t[dim_order(function.records[_index(function, name)])]


# -- runtime contexts --------------------------------------------------------------------------------------------------
@call(outs=1)
def cnrtCreateRuntimeContext(function: Function, extra: Any = None) -> RuntimeContext:
    """`status, ctx = cnrtCreateRuntimeContext(function, None)`"""
    extracted(function)
    return RuntimeContext(function)


@call()
def cnrtSetRuntimeContextDeviceId(pctx: RuntimeContext, dev_ordinal: int) -> None:
    """Before `cnrtInitRuntimeContext`; INVALID afterwards."""
    context = live(pctx, RuntimeContext, "runtime context")
    if context.initialised:
        raise Fault(R.CNRT_RET_ERR_INVALID, "the runtime context is initialised: its device is settled")
    if dev_ordinal != (_FAKE if process.flags else 0):
        raise Fault(R.CNRT_RET_ERR_NODEV, f"no device {dev_ordinal!r}")
    context.device = int(dev_ordinal)


@call()
def cnrtSetRuntimeContextChannel(pctx: RuntimeContext, channel: int) -> None:
    """The chip has one channel: accepted, without effect."""
    context = live(pctx, RuntimeContext, "runtime context")
    if channel not in list(cnrtChannelType_t):
        raise Fault(R.CNRT_RET_ERR_UNSUPPORTED, f"the chip has no channel {channel!r}")
    context.channel = channel


@call()
def cnrtInitRuntimeContext(pctx: RuntimeContext, extra: Any = None) -> None:
    """Prove the function's programs safe and make them ready. MLU: they are not safe, the log names the
    instructions."""
    context = live(pctx, RuntimeContext, "runtime context")
    if context.initialised:
        raise Fault(R.CNRT_RET_ERR_INVALID, "the runtime context was initialised before")
    model, device = extracted(context.function)
    if not process.flags:
        try:
            context.session = Session(_alone(model, device))
        except CompilerError as error:
            raise Fault(R.CNRT_RET_ERR_MLU, str(error)) from None
        context.microseconds = 1e6 * simulate(device.programs, board_of(model)).seconds
    context.initialised = True


def _alone(model: OfflineModel, device: DeviceFunction) -> OfflineModel:
    """A model of one function whose inputs and outputs are in the device's own layout."""
    inputs, outputs = (
        [IORecord.dense(f"{kind}{k}", r.device_shape, r.dtype) for k, r in enumerate(records)]
        for kind, records in (("input", device.inputs), ("output", device.outputs))
    )
    step = Step(device.name, tuple(r.name for r in inputs), tuple(r.name for r in outputs))
    return OfflineModel(
        board=model.board, cores=model.cores, rounding=model.rounding, steps=[step],
        functions=[replace(device, inputs=inputs, outputs=outputs)], inputs=inputs, outputs=outputs,
        constants=model.constants,
        metadata={key: value for key, value in model.metadata.items() if key == BOARD_NUMBERS},
    )  # fmt: skip


@call(outs=1)
def cnrtForkRuntimeContext(pctx: RuntimeContext, extra: Any = None) -> RuntimeContext:
    """`status, new = cnrtForkRuntimeContext(ctx, None)`: for another thread; shares constants and programs."""
    return replace(ready(pctx))


@call(outs=1)
def cnrtGetRuntimeContextInfo(pctx: RuntimeContext, key: int) -> Any:
    """`status, value = cnrtGetRuntimeContextInfo(ctx, CNRT_RT_CTX_FUNCTION)`"""
    context = live(pctx, RuntimeContext, "runtime context")
    model, _ = extracted(context.function)
    info = cnrtRuntimeContextInfo_t
    known = {
        info.CNRT_RT_CTX_FUNCTION: context.function, info.CNRT_RT_CTX_DEV_ORDINAL: context.device,
        info.CNRT_RT_CTX_CORE_NUMBER: model.cores, info.CNRT_RT_CTX_MODEL_PARALLEL: model.cores,
        info.CNRT_RT_CTX_CHANNEL: context.channel,
    }  # fmt: skip
    if key not in known:
        raise Fault(R.CNRT_RET_ERR_INVALID, f"a runtime context has no information {key!r}")
    return known[info(key)]


@call()
def cnrtSetCurrentContextDevice(pctx: RuntimeContext) -> None:
    """Make the context's device this thread's."""
    context = live(pctx, RuntimeContext, "runtime context")
    thread.device, thread.generation = context.device, process.generation


@call()
def cnrtDestroyRuntimeContext(pctx: RuntimeContext) -> None:
    destroy(pctx, RuntimeContext, "runtime context")
    pctx.session = None


def ready(pctx: Any) -> RuntimeContext:
    context = live(pctx, RuntimeContext, "runtime context")
    if not context.initialised:
        raise Fault(R.CNRT_RET_ERR_INIT, "the runtime context is not initialised: call cnrtInitRuntimeContext")
    return context


@call(device=True)
def cnrtInvokeRuntimeContext(pctx: RuntimeContext, params: Sequence[int], queue: Queue, extra: Any = None) -> None:
    """Put a run of the context's function into a queue. `params`: device pointers, inputs then outputs, each with
    room for its tensor in the device's layout. Nothing is done before the queue is waited for."""
    context = ready(pctx)
    live(queue, Queue, "queue")
    if context.session is None:
        raise Fault(R.CNRT_RET_WARNING_FAKE_DEVICE, "the fake device computes nothing")
    _, device = extracted(context.function)
    records = [*device.inputs, *device.outputs]
    if params is None or len(params) != len(records):
        count = "no" if params is None else len(params)
        needed = f"{len(device.inputs)} inputs, then {len(device.outputs)} outputs"
        text = f"{count} parameters: {device.name} takes {needed}"
        raise Fault(R.CNRT_RET_ERR_INVALID, text)
    memory = process.device.memory
    views = [memory.view(p, r.bytes, r.name) for p, r in zip(params, records, strict=True)]
    starts = [memory.block(p)[0] for p in params]
    cut = len(device.inputs)
    work = _run(context.session, views[:cut], views[cut:])
    reads, writes = frozenset(starts[:cut]), frozenset(starts[cut:])
    process.device.submit(Task(queue, work, context.microseconds, reads, writes))


def _run(session: Session, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> Callable[[Queue], None]:
    def work(queue: Queue) -> None:
        given = [v.copy().view(r.numpy).reshape(r.shape) for v, r in zip(inputs, session.inputs, strict=True)]
        named = {r.name: array for r, array in zip(session.inputs, given, strict=True)}
        results: Any = session.run(named)
        for target, record in zip(outputs, session.outputs, strict=True):
            target[:] = np.ascontiguousarray(results[record.name]).reshape(-1).view(np.uint8)

    return work


@call(device=True)
def cnrtInvokeRuntimeContext_V3(
    pctx: RuntimeContext, batch_sizes: Sequence[int], param_buffers: Sequence[int], queue: Queue, extra: Any = None
) -> None:
    """As `cnrtInvokeRuntimeContext`, when every batch size is the one the file was built for; UNSUPPORTED
    otherwise."""
    _, device = extracted(ready(pctx).function)
    built = [r.device_shape[0] if r.device_shape else 1 for r in device.inputs]
    if list(not_null(batch_sizes, "the array of batch sizes")) != built:
        raise Fault(R.CNRT_RET_ERR_UNSUPPORTED, f"batches {list(batch_sizes)}: the file was built for {built}")
    status = cnrtInvokeRuntimeContext(pctx, param_buffers, queue, extra)
    if status != R.CNRT_RET_SUCCESS:
        raise Fault(status, "not invoked")


@call(outs=1)
def cnrtRuntimeContextCreateQueue(pctx: RuntimeContext) -> Queue:
    """`status, queue = cnrtRuntimeContextCreateQueue(ctx)`"""
    ready(pctx)
    return process.device.create_queue()


@call(outs=1)
def cnrtRuntimeContextCreateNotifier(pctx: RuntimeContext) -> Notifier:
    """`status, notifier = cnrtRuntimeContextCreateNotifier(ctx)`"""
    ready(pctx)
    return Notifier()


__all__ = [
    "cnrtCopyFunction",
    "cnrtCreateFunction",
    "cnrtCreateRuntimeContext",
    "cnrtDestroyFunction",
    "cnrtDestroyRuntimeContext",
    "cnrtExtractFunction",
    "cnrtForkRuntimeContext",
    "cnrtGetFunctionMemUsed",
    "cnrtGetFunctionNumber",
    "cnrtGetFunctionSymbol",
    "cnrtGetInputAndOutputNamesFromFunction",
    "cnrtGetInputDataShape",
    "cnrtGetInputDataSize",
    "cnrtGetInputDataType",
    "cnrtGetModelLevelFromFile",
    "cnrtGetModelMemUsed",
    "cnrtGetModelSize",
    "cnrtGetOutputDataShape",
    "cnrtGetOutputDataSize",
    "cnrtGetOutputDataType",
    "cnrtGetParamIndexByName",
    "cnrtGetRuntimeContextInfo",
    "cnrtGetSupportedParamDataTypeByName",
    "cnrtGetSupportedParamDimNumberByName",
    "cnrtGetSupportedParamLayoutByName",
    "cnrtGetSupportedParamShapeByName",
    "cnrtInitRuntimeContext",
    "cnrtInvokeRuntimeContext",
    "cnrtInvokeRuntimeContext_V3",
    "cnrtLoadModel",
    "cnrtLoadModelFromMem",
    "cnrtLoadModelFromMem_V2",
    "cnrtQueryCoreVersion",
    "cnrtQueryModelLocalMemSize",
    "cnrtQueryModelParallelism",
    "cnrtQueryModelStackSize",
    "cnrtRuntimeContextCreateNotifier",
    "cnrtRuntimeContextCreateQueue",
    "cnrtSetCurrentContextDevice",
    "cnrtSetRuntimeContextChannel",
    "cnrtSetRuntimeContextDeviceId",
    "cnrtUnloadModel",
]  # fmt: skip
