"""A host program in the vendor's order of calls: `python examples/cnrt_host.py M.cambricon INPUTS.npz [OUTPUTS.npz]`

Every line is one of a C host program for a card; see runtime/cnrt.py for how out-parameters become results. INPUTS
holds float32 arrays in the model's own layout, under the names of its inputs.
"""
# ruff: noqa: F403, F405, N802

import sys

import numpy as np

from runtime.cnrt import *

TO_DEVICE, TO_MODEL = [0, 2, 3, 1], [0, 3, 1, 2]  # NCHW to NHWC, and back


def CNRT_CHECK(result, *values):
    """What the vendor's macro does: stop at the first call that fails. Returns the call's values."""
    status, *values = result if isinstance(result, tuple) else (result,)
    if status != CNRT_RET_SUCCESS:
        sys.exit(f"CNRT error {int(status)}: {cnrtGetErrorStr(status)}")
    return values[0] if len(values) == 1 else values


def to_device(values, data_type, order, size):
    """Model values as one run wants them on the device: its order of axes, its element type, `size` bytes."""
    source, sync = np.ascontiguousarray(values, np.float32), np.empty(size, np.uint8)
    if source.ndim != 4 or order != CNRT_NHWC:
        CNRT_CHECK(cnrtCastDataType(source, CNRT_FLOAT32, sync, data_type, source.size, None))
    elif data_type == CNRT_FLOAT32:
        CNRT_CHECK(cnrtTransDataOrder(source, CNRT_FLOAT32, sync, 4, source.shape, TO_DEVICE))
    else:
        CNRT_CHECK(cnrtTransOrderAndCast(source, CNRT_FLOAT32, sync, data_type, None, 4, source.shape, TO_DEVICE))
    return sync


def to_model(sync, data_type, order, dims, dim_num):
    """Bytes from the device as float32 in the model's order of axes."""
    values = np.empty(np.prod(dims), np.float32)
    CNRT_CHECK(cnrtCastDataType(sync, data_type, values, CNRT_FLOAT32, values.size, None))
    if dim_num != 4 or order != CNRT_NHWC:
        return values
    nchw = np.empty([dims[axis] for axis in TO_MODEL], np.float32)
    CNRT_CHECK(cnrtTransDataOrder(values, CNRT_FLOAT32, nchw, dim_num, dims, TO_MODEL))
    return nchw


def main(model_path, input_path, output_path=None):
    given, results = dict(np.load(input_path)), {}

    # 1. the device
    CNRT_CHECK(cnrtInit(0))
    dev = CNRT_CHECK(cnrtGetDeviceHandle(0))
    CNRT_CHECK(cnrtSetCurrentDevice(dev))

    # 2. the model and its function
    model = CNRT_CHECK(cnrtLoadModel(model_path))
    cores = CNRT_CHECK(cnrtQueryModelParallelism(model))
    function = CNRT_CHECK(cnrtCreateFunction())
    CNRT_CHECK(cnrtExtractFunction(function, model, "subnet0"))

    # 3. what it takes and gives
    input_sizes, input_num = CNRT_CHECK(cnrtGetInputDataSize(function))
    output_sizes, output_num = CNRT_CHECK(cnrtGetOutputDataSize(function))
    input_types, _ = CNRT_CHECK(cnrtGetInputDataType(function))
    output_types, _ = CNRT_CHECK(cnrtGetOutputDataType(function))
    input_names, output_names, _, _ = CNRT_CHECK(cnrtGetInputAndOutputNamesFromFunction(function))

    # 4. the context and its queue
    ctx = CNRT_CHECK(cnrtCreateRuntimeContext(function, None))
    CNRT_CHECK(cnrtSetRuntimeContextDeviceId(ctx, 0))
    CNRT_CHECK(cnrtInitRuntimeContext(ctx, None))
    queue = CNRT_CHECK(cnrtRuntimeContextCreateQueue(ctx))

    # 5. buffers: inputs, then outputs
    param = [CNRT_CHECK(cnrtMalloc(size)) for size in [*input_sizes, *output_sizes]]
    for i in range(input_num):
        dims, _ = CNRT_CHECK(cnrtGetInputDataShape(i, function))
        order = CNRT_CHECK(cnrtGetSupportedParamLayoutByName(function, input_names[i]))
        sync = to_device(given[input_names[i]][: dims[0]], input_types[i], order, input_sizes[i])  # one run's
        CNRT_CHECK(cnrtMemcpy(param[i], sync, input_sizes[i], CNRT_MEM_TRANS_DIR_HOST2DEV))

    # 6. run, and take the time on the chip
    start, end = CNRT_CHECK(cnrtCreateNotifier()), CNRT_CHECK(cnrtCreateNotifier())
    CNRT_CHECK(cnrtPlaceNotifier(start, queue))
    CNRT_CHECK(cnrtInvokeRuntimeContext(ctx, param, queue, None))
    CNRT_CHECK(cnrtPlaceNotifier(end, queue))
    CNRT_CHECK(cnrtSyncQueue(queue))
    microseconds = CNRT_CHECK(cnrtNotifierDuration(start, end))

    # 7. outputs come back
    for i, name in enumerate(output_names):
        sync = np.empty(output_sizes[i], np.uint8)
        CNRT_CHECK(cnrtMemcpy(sync, param[input_num + i], output_sizes[i], CNRT_MEM_TRANS_DIR_DEV2HOST))
        dims, dim_num = CNRT_CHECK(cnrtGetOutputDataShape(i, function))
        order = CNRT_CHECK(cnrtGetSupportedParamLayoutByName(function, name))
        results[name] = values = to_model(sync, output_types[i], order, dims, dim_num)
        print(f"{name}: {values.size} values, the largest is number {values.argmax()}")
    print(f"{cores} cores, {microseconds:.1f} microseconds on the chip (analytical model)")

    # 8. give everything back
    CNRT_CHECK(cnrtFreeArray(param, input_num + output_num))
    CNRT_CHECK(cnrtDestroyNotifier(start))
    CNRT_CHECK(cnrtDestroyNotifier(end))
    CNRT_CHECK(cnrtDestroyQueue(queue))
    CNRT_CHECK(cnrtDestroyRuntimeContext(ctx))
    CNRT_CHECK(cnrtDestroyFunction(function))
    CNRT_CHECK(cnrtUnloadModel(model))
    cnrtDestroy()
    if output_path:
        np.savez(output_path, **results)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
