"""Trials of sliding windows, normalisations and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


# -- windows -----------------------------------------------------------------------------------------------------------
def window_of(d: Dice, spatial: Sequence[int], kernel: Sequence[int], dilate: bool = True) -> dict[str, Any]:
    """strides, dilations, pads or auto_pad.

    SAME is thrown with windows at least as long as their strides and without dilations only: elsewhere onnxruntime
    does not follow ONNX's text.
    """
    rank = len(kernel)
    attributes: dict[str, Any] = d.some(strides=[d.randint(1, 3) for _ in range(rank)])
    mode = d.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", None])
    same = mode in ("SAME_UPPER", "SAME_LOWER")
    if same and "strides" in attributes:
        attributes["strides"] = [min(s, k) for s, k in zip(attributes["strides"], kernel, strict=True)]
    if dilate and not same and all(2 * k - 1 <= size for k, size in zip(kernel, spatial, strict=True)):
        attributes |= d.some(dilations=[d.randint(1, 2) for _ in range(rank)])
    if mode in ("NOTSET", None):
        attributes |= d.some(pads=[d.randint(0, kernel[i % rank] - 1) for i in range(2 * rank)])
    return attributes | ({} if mode is None else {"auto_pad": mode})


@trial("Conv", opsets=(7, 11, 22))
def conv(d: Dice) -> Trial:
    rank = d.choice([1, 2, 2, 2, 3])
    spatial = [d.randint(3, 8) for _ in range(rank)]
    kernel = [d.randint(1, 3) for _ in range(rank)]
    group = d.choice([1, 1, 2, 3])
    ci, co = group * d.randint(1, 2), group * d.randint(1, 3)
    inputs: list[Any] = [d.floats(d.randint(1, 2), ci, *spatial), d.floats(co, ci // group, *kernel)]
    inputs += [d.floats(co)] if d.flip() else []
    attributes = window_of(d, spatial, kernel) | ({"group": group} if group > 1 else {})
    return Trial(inputs, attributes | d.some(kernel_shape=kernel), free=d.choice([(0,), (0, 1)]), tolerance=1e-4)


@trial("ConvTranspose", opsets=(7, 11, 22))
def conv_transpose(d: Dice) -> Trial:
    rank = d.choice([1, 2, 2, 2, 3])
    spatial = [d.randint(1, 5) for _ in range(rank)]
    kernel = [d.randint(1, 4) for _ in range(rank)]
    group = d.choice([1, 1, 2])
    ci, co = group * d.randint(1, 2), d.randint(1, 3)
    attributes = window_of(d, spatial, kernel) | ({"group": group} if group > 1 else {})
    strides = attributes.get("strides", [1] * rank)
    if d.flip(0.3):
        attributes["output_padding"] = [d.randint(0, s - 1) for s in strides]
    if d.flip(0.3):
        attributes["output_shape"] = [d.randint(max(1, n * s - 1), n * s + 3)
                                      for n, s in zip(spatial, strides, strict=True)]  # fmt: skip
        attributes.pop("pads", None)
    inputs: list[Any] = [d.floats(d.randint(1, 2), ci, *spatial), d.floats(ci, co, *kernel)]
    inputs += [d.floats(co * group)] if d.flip() else []
    return Trial(inputs, attributes | d.some(kernel_shape=kernel), tolerance=1e-4)


def pooling_of(d: Dice, dilations_from: int) -> tuple[np.ndarray, dict[str, Any]]:
    rank = d.choice([1, 2, 2, 2, 3])
    spatial = [d.randint(3, 8) for _ in range(rank)]
    kernel = [d.randint(1, 3) for _ in range(rank)]
    attributes = {"kernel_shape": kernel, **window_of(d, spatial, kernel, d.opset >= dilations_from)}
    return d.floats(d.randint(1, 2), d.randint(1, 3), *spatial), attributes


def _ceil_mode(d: Dice, attributes: dict[str, Any], since: int) -> dict[str, Any]:
    """Not with VALID, whose formula ceil mode does not change: onnxruntime thinks it does."""
    known = d.opset >= since and attributes.get("auto_pad") != "VALID"
    return d.some(ceil_mode=d.randint(0, 1)) if known else {}


@trial("MaxPool", opsets=(8, 10, 11, 12, 22))
def max_pool(d: Dice) -> Trial:
    x, attributes = pooling_of(d, 10)
    attributes |= _ceil_mode(d, attributes, 10)
    attributes |= d.some(storage_order=d.randint(0, 1))
    if d.opset >= 12 and d.flip(0.2):
        return Trial([d.ints(*x.shape, low=0, high=200, dtype=np.uint8)], attributes)
    return Trial([x], attributes, outputs=d.choice([1, 1, 2]))


@trial("AveragePool", opsets=(7, 10, 11, 19, 22))
def average_pool(d: Dice) -> Trial:
    x, attributes = pooling_of(d, 19)
    attributes |= _ceil_mode(d, attributes, 10)
    return Trial([x], attributes | d.some(count_include_pad=d.randint(0, 1)))


@trial("LpPool", opsets=(7, 11, 18, 22))
def lp_pool(d: Dice) -> Trial:
    x, attributes = pooling_of(d, 18)
    attributes |= _ceil_mode(d, attributes, 18)
    return Trial([x], attributes | d.some(p=d.randint(1, 3)), tolerance=1e-4)


@trial("GlobalAveragePool", "GlobalMaxPool", opsets=(1,))
def global_pool(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(3, 5))])


@trial("GlobalLpPool", opsets=(2,))
def global_lp_pool(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(3, 5))], d.some(p=d.randint(1, 3)))


@trial("MaxUnpool", opsets=(9, 11))
def max_unpool(d: Dice) -> Trial:
    n, c, h, w = 1, d.randint(1, 2), d.randint(1, 3), d.randint(1, 3)
    kernel = [d.randint(1, 3), d.randint(1, 3)]
    strides = [d.randint(1, 3), d.randint(1, 3)]
    size = n * c * ((h - 1) * strides[0] + kernel[0]) * ((w - 1) * strides[1] + kernel[1])
    places = np.array(d.sample(range(size), n * c * h * w)).reshape(n, c, h, w)
    return Trial([d.floats(n, c, h, w), places], {"kernel_shape": kernel, "strides": strides}, free=(0, 1))


# -- normalisations ----------------------------------------------------------------------------------------------------
@trial("BatchNormalization", opsets=(7, 9, 14, 15))
def batch_norm(d: Dice) -> Trial:
    x = d.floats(*d.shape(2, 5))
    c = x.shape[1]
    given = [x, d.floats(c), d.floats(c), d.floats(c), d.floats(c, low=0.1)]
    return Trial(given, d.some(epsilon=d.uniform(1e-5, 0.1), momentum=0.8), tolerance=1e-4)


@trial("InstanceNormalization", opsets=(6, 22))
def instance_norm(d: Dice) -> Trial:
    x = d.floats(*d.shape(3, 5))
    return Trial([x, d.floats(x.shape[1]), d.floats(x.shape[1])], {"epsilon": d.uniform(1e-2, 0.1)}, tolerance=1e-3)


@trial("LayerNormalization", opsets=(17,))
def layer_norm(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    axis = d.axis(x.ndim)
    tail = x.shape[axis:]
    inputs = [x, d.floats(*tail), *([d.floats(*tail)] if d.flip() else [])]
    return Trial(inputs, {"axis": axis, "epsilon": d.uniform(1e-2, 0.1)}, outputs=d.choice([1, 3]), tolerance=1e-3)


@trial("GroupNormalization", opsets=(18, 21))
def group_norm(d: Dice) -> Trial:
    groups = d.randint(1, 3)
    x = d.floats(d.randint(1, 2), groups * d.randint(1, 2), *d.shape(1, 3))
    size = groups if d.opset < 21 else x.shape[1]
    return Trial([x, d.floats(size), d.floats(size)], {"num_groups": groups, "epsilon": 0.05}, tolerance=1e-3)


@trial("LRN", opsets=(7, 13))
def lrn(d: Dice) -> Trial:
    attributes = d.some(alpha=d.uniform(0.01, 1), beta=d.uniform(0.3, 1), bias=d.uniform(0.5, 2))
    return Trial([d.floats(*d.shape(4, 4))], {"size": d.choice([1, 3, 5, 7]), **attributes}, tolerance=1e-4)


@trial("LpNormalization", opsets=(1, 22))
def lp_normalization(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    return Trial([x if d.flip(0.8) else x * 0], d.some(axis=d.axis(x.ndim), p=d.randint(1, 2)))


@trial("MeanVarianceNormalization", opsets=(9, 13))
def mean_variance(d: Dice) -> Trial:
    x = d.floats(*(d.randint(3, 6) for _ in range(4)))  # of few elements onnxruntime's variance is noise
    return Trial([x], d.some(axes=d.sample(range(4), d.randint(1, 4))), tolerance=1e-2)


@trial("Dropout", opsets=(7, 10, 12, 13))
def dropout(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    if d.opset < 12:
        return Trial([x], d.some(ratio=0.3))  # what the mask says at inference is open
    return Trial([x, np.array(0.4, np.float32), np.array(False)][: d.randint(1, 3)], outputs=d.choice([1, 2]))


# -- others ------------------------------------------------------------------------------------------------------------
@trial("Det", opsets=(11,))
def det(d: Dice) -> Trial:
    size = d.randint(1, 3)
    return Trial([d.floats(*d.shape(0, 2), size, size)], tolerance=1e-4)


@trial("DFT", opsets=(17, 20))
def dft(d: Dice) -> Trial:
    x = d.floats(*d.shape(2, 3, 6), d.choice([1, 2]))
    axis = d.choice([i for i in range(1, x.ndim - 1)] + [-2])
    one = d.randint(0, 1) if x.shape[-1] == 1 else 0
    attributes = {"onesided": one, "inverse": 0 if one else d.randint(0, 1)}
    length = np.array(d.randint(1, 8)) if d.flip() else None
    if d.opset < 20:
        return Trial([x, length], {**attributes, "axis": axis}, tolerance=1e-4)
    return Trial([x, length, np.array(axis)], attributes, tolerance=1e-4)


@trial("CenterCropPad", opsets=(18,))
def center_crop_pad(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    axes = d.axes(x.ndim)
    return Trial([x, d.ints(len(axes), low=1, high=7)], {"axes": axes})


@trial("Col2Im", opsets=(18,))
def col2im(d: Dice) -> Trial:
    image, block = [d.randint(3, 6), d.randint(3, 6)], [d.randint(1, 3), d.randint(1, 3)]
    strides, pads = [d.randint(1, 2), d.randint(1, 2)], [d.randint(0, 1) for _ in range(4)]
    counts = [(image[i] + pads[i] + pads[i + 2] - block[i]) // strides[i] + 1 for i in range(2)]
    x = d.floats(1, d.randint(1, 2) * block[0] * block[1], counts[0] * counts[1])
    return Trial([x, np.array(image), np.array(block)], {"strides": strides, "pads": pads})


@trial("STFT", opsets=(17,))
def stft(d: Dice) -> Trial:
    samples, length = d.randint(8, 20), d.choice([4, 8])
    x = d.floats(d.randint(1, 2), samples, 1)
    window = d.floats(length) if d.flip() else None
    given = [x, np.array(d.randint(1, 4)), window, np.array(length) if window is None or d.flip() else None]
    return Trial(given, d.some(onesided=d.randint(0, 1)), tolerance=1e-4)


@trial("DeformConv", opsets=(19, 22))
def deform_conv(d: Dice) -> Trial:
    kernel, channels = [d.randint(1, 3), d.randint(1, 3)], d.randint(1, 2)
    x, w = d.floats(1, channels, 5, 6), d.floats(d.randint(1, 3), channels, *kernel)
    size = (6 - kernel[0], 7 - kernel[1])
    offset = d.floats(1, 2 * kernel[0] * kernel[1], *size)
    bias = d.floats(w.shape[0]) if d.flip() else None
    mask = d.floats(1, kernel[0] * kernel[1], *size) if d.flip() else None
    return Trial([x, w, offset, bias, mask], d.some(kernel_shape=kernel), free=(0, 2), tolerance=1e-4)


# -- ai.onnx.ml --------------------------------------------------------------------------------------------------------
@trial("Scaler", opsets=(17,), domain="ai.onnx.ml")
def scaler(d: Dice) -> Trial:
    x = d.numbers(*d.shape(2, 2), kinds="fil")
    sizes = d.choice([1, x.shape[1]])
    return Trial([x], {"offset": d.floats(sizes).tolist(), "scale": d.floats(sizes).tolist()})


@trial("Normalizer", opsets=(17,), domain="ai.onnx.ml")
def normalizer(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(2, 2))], d.some(norm=d.choice(["MAX", "L1", "L2"])))


@trial("Binarizer", opsets=(17,), domain="ai.onnx.ml")
def binarizer(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(1))], d.some(threshold=d.uniform(-1, 1)))


@trial("ArrayFeatureExtractor", opsets=(17,), domain="ai.onnx.ml")
def array_feature_extractor(d: Dice) -> Trial:
    x = d.numbers(*d.shape(2, 3), kinds="fil")
    return Trial([x, d.ints(d.randint(1, 3), low=0, high=x.shape[-1] - 1)], free=d.choice([(0,), (0, 1)]))
