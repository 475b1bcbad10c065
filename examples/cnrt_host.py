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


def main(model_path, input_path, output_path=None):
    given = dict(np.load(input_path))

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

    # 5. buffers; inputs go to the device in its layout and type
    param = []
    for i in range(input_num):
        dims, _ = CNRT_CHECK(cnrtGetInputDataShape(i, function))
        source = np.ascontiguousarray(given[input_names[i]][: dims[0]], np.float32)  # one run's
        sync = np.empty(input_sizes[i], np.uint8)
        order = cnrtGetSupportedParamLayoutByName(function, input_names[i])[1]
        if source.ndim == 4 and order == CNRT_NHWC and input_types[i] != CNRT_FLOAT32:
            CNRT_CHECK(
                cnrtTransOrderAndCast(
                    source, CNRT_FLOAT32, sync, input_types[i], None, source.ndim, source.shape, TO_DEVICE
                )
            )
        elif source.ndim == 4 and order == CNRT_NHWC:
            CNRT_CHECK(cnrtTransDataOrder(source, CNRT_FLOAT32, sync, source.ndim, source.shape, TO_DEVICE))
        else:
            CNRT_CHECK(cnrtCastDataType(source, CNRT_FLOAT32, sync, input_types[i], source.size, None))
        pointer = CNRT_CHECK(cnrtMalloc(input_sizes[i]))
        CNRT_CHECK(cnrtMemcpy(pointer, sync, input_sizes[i], CNRT_MEM_TRANS_DIR_HOST2DEV))
        param.append(pointer)
    for i in range(output_num):
        param.append(CNRT_CHECK(cnrtMalloc(output_sizes[i])))

    # 6. run, and take the time on the chip
    start, end = CNRT_CHECK(cnrtCreateNotifier()), CNRT_CHECK(cnrtCreateNotifier())
    CNRT_CHECK(cnrtPlaceNotifier(start, queue))
    CNRT_CHECK(cnrtInvokeRuntimeContext(ctx, param, queue, None))
    CNRT_CHECK(cnrtPlaceNotifier(end, queue))
    CNRT_CHECK(cnrtSyncQueue(queue))
    microseconds = CNRT_CHECK(cnrtNotifierDuration(start, end))

    # 7. outputs come back in the device's layout and type
    results = {}
    for i in range(output_num):
        sync = np.empty(output_sizes[i], np.uint8)
        CNRT_CHECK(cnrtMemcpy(sync, param[input_num + i], output_sizes[i], CNRT_MEM_TRANS_DIR_DEV2HOST))
        dims, dim_num = CNRT_CHECK(cnrtGetOutputDataShape(i, function))
        order = cnrtGetSupportedParamLayoutByName(function, output_names[i])[1]
        values = np.empty(np.prod(dims), np.float32)
        CNRT_CHECK(cnrtCastDataType(sync, output_types[i], values, CNRT_FLOAT32, values.size, None))
        if dim_num == 4 and order == CNRT_NHWC:
            nchw = np.empty([dims[axis] for axis in TO_MODEL], np.float32)
            CNRT_CHECK(cnrtTransDataOrder(values, CNRT_FLOAT32, nchw, dim_num, dims, TO_MODEL))
            values = nchw
        results[output_names[i]] = values
        print(f"{output_names[i]}: {values.size} values, the largest is number {values.argmax()}")
    print(f"{cores} cores, {microseconds:.1f} microseconds on the chip (analytical model)")
    if output_path:
        np.savez(output_path, **results)

    # 8. give everything back
    for pointer in param:
        CNRT_CHECK(cnrtFree(pointer))
    CNRT_CHECK(cnrtDestroyNotifier(start))
    CNRT_CHECK(cnrtDestroyNotifier(end))
    CNRT_CHECK(cnrtDestroyQueue(queue))
    CNRT_CHECK(cnrtDestroyRuntimeContext(ctx))
    CNRT_CHECK(cnrtDestroyFunction(function))
    CNRT_CHECK(cnrtUnloadModel(model))
    cnrtDestroy()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
