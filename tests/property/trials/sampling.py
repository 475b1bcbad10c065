"""Trials of resampling and of what detectors use."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


@trial("Upsample", opsets=(7, 9))
def upsample(d: Dice) -> Trial:
    scales = [1.0, 1.0, *(d.choice([1.0, 1.3, 1.5, 1.7, 2.0, 3.0]) for _ in range(2))]
    x, attributes = d.floats(1, 2, d.randint(4, 7), d.randint(4, 7)), d.some(mode=d.choice(["nearest", "linear"]))
    if d.opset < 9:
        return Trial([x], {**attributes, "scales": scales})
    return Trial([x, np.array(scales, np.float32)], attributes)


@trial("Resize", opsets=(10,))
def resize_10(d: Dice) -> Trial:
    x = d.floats(1, 2, d.randint(4, 9), d.randint(4, 9))
    scales = [1, 1, d.choice(FACTORS), d.choice(FACTORS)]
    return Trial([x, np.array(scales, np.float32)], d.some(mode=d.choice(["nearest", "linear"])), tolerance=1e-4)


FACTORS = (0.3, 0.5, 0.6, 0.7, 1.0, 1.3, 1.5, 2.0, 2.6, 3.0)


def _resize_attributes(d: Dice) -> dict[str, Any]:
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    modes += ["half_pixel_symmetric"] if d.opset >= 19 else []
    modes += ["tf_half_pixel_for_nn"] if d.opset < 13 else []
    mode = d.choice(["nearest", "linear", "cubic"])
    attributes = d.some(mode=mode, coordinate_transformation_mode=d.choice(modes))
    if attributes.get("mode") == "cubic":
        attributes |= d.some(cubic_coeff_a=d.choice([-0.5, -0.75]), exclude_outside=d.randint(0, 1))
    elif attributes.get("mode", "nearest") == "nearest":
        attributes |= d.some(nearest_mode=d.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]))
    if d.opset >= 18 and attributes.get("mode") in ("linear", "cubic"):
        attributes |= d.some(antialias=d.randint(0, 1))
    return attributes


@trial("Resize by scales", opsets=(11, 13, 18, 19))
def resize_by_scales(d: Dice) -> Trial:
    """No axis vanishes, nor stays as long as it was by another factor than 1, which onnxruntime takes for a copy."""
    x = d.floats(1, 2, d.randint(4, 9), d.randint(4, 9))
    scales = np.array([d.choice(FACTORS), d.choice(FACTORS)], np.float32)
    if d.opset >= 18 and d.flip():
        return Trial([x, None, scales], _resize_attributes(d) | {"axes": d.choice([[2, 3], [-2, -1]])}, tolerance=1e-4)
    return Trial([x, None, np.append(np.ones(2, np.float32), scales)], _resize_attributes(d), tolerance=1e-4)


@trial("Resize by sizes", opsets=(11, 13, 18, 19))
def resize_by_sizes(d: Dice) -> Trial:
    """To half the size at least: an axis that keeps the aspect ratio does not vanish."""
    x = d.floats(1, 2, d.randint(1, 6), d.randint(1, 6))
    sizes, attributes = [d.randint(3, 9), d.randint(3, 9)], _resize_attributes(d)
    if d.opset < 18 or d.flip():
        return Trial([x, None, None, np.array([1, 2, *sizes])], attributes, tolerance=1e-4)
    if "antialias" not in attributes:
        attributes |= d.some(keep_aspect_ratio_policy=d.choice(["stretch", "not_larger", "not_smaller"]))
    return Trial([x, None, None, np.array(sizes)], {**attributes, "axes": [2, 3]}, tolerance=1e-4)


@trial("Resize of a region", opsets=(11, 13, 18, 19))
def resize_of_a_region(d: Dice) -> Trial:
    """By sizes that change: onnxruntime leaves the region out of what factors give, and of axes that stay."""
    x, sizes = d.floats(1, 2, d.randint(1, 4), d.randint(1, 4)), [d.randint(5, 9), d.randint(5, 9)]
    region = [0, 0, d.uniform(0, 0.4), d.uniform(0, 0.4), 1, 1, d.uniform(0.5, 1.2), d.uniform(0.5, 1.2)]
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": d.choice(["nearest", "linear"])}
    attributes |= d.some(extrapolation_value=d.uniform(-1, 1))
    return Trial([x, np.array(region, np.float32), None, np.array([1, 2, *sizes])], attributes, tolerance=1e-4)


@trial("GridSample", opsets=(16, 20))
def grid_sample(d: Dice) -> Trial:
    rank = d.choice([2, 2, 3]) if d.opset >= 20 else 2
    x = d.floats(1, d.randint(1, 2), *d.shape(rank, rank))
    grid = d.floats(1, *d.shape(rank, rank), rank, low=-1.4, high=1.4)
    names = ["nearest", "linear", "cubic"] if d.opset >= 20 else ["nearest", "bilinear", "bicubic"]
    attributes = d.some(mode=d.choice(names[: 3 if rank == 2 else 2]), align_corners=d.randint(0, 1),
                        padding_mode=d.choice(["zeros", "border", "reflection"]))  # fmt: skip
    return Trial([x, grid], attributes, free=(0, 1), tolerance=1e-4)


@trial("RoiAlign", opsets=(10, 16, 22))
def roi_align(d: Dice) -> Trial:
    x, count = d.floats(2, 2, d.randint(4, 8), d.randint(4, 8)), d.randint(1, 3)
    corner = d.floats(count, 2, low=0, high=3)
    boxes = np.concatenate([corner, corner + d.floats(count, 2, low=0.5, high=4)], axis=1)
    attributes = d.some(mode=d.choice(["avg", "max"]), output_height=d.randint(1, 3), output_width=d.randint(1, 3),
                        sampling_ratio=d.randint(0, 3), spatial_scale=d.choice([0.5, 1.0, 2.0]))  # fmt: skip
    if d.opset >= 16:
        attributes |= d.some(coordinate_transformation_mode=d.choice(["half_pixel", "output_half_pixel"]))
    return Trial([x, boxes, d.ints(count, low=0, high=1)], attributes, free=(0, 1, 2), tolerance=1e-4)


@trial("NonMaxSuppression", opsets=(10, 11))
def non_max_suppression(d: Dice) -> Trial:
    batch, classes, count = d.randint(1, 2), d.randint(1, 2), d.randint(1, 8)
    centre, size = d.floats(batch, count, 2, low=0, high=3), d.floats(batch, count, 2, low=0.5, high=2)
    point = d.randint(0, 1)
    boxes = np.concatenate([centre, size] if point else [centre, centre + size], axis=2)
    if not point and d.flip():
        boxes = boxes[..., [2, 3, 0, 1]]
    scores = d.floats(batch, classes, count, low=0, high=1)
    limits = [np.array([d.randint(0, 4)]), np.array([d.uniform(0, 1)], np.float32),
              np.array([d.uniform(0, 1)], np.float32)][: d.randint(0, 3)]  # fmt: skip
    return Trial([boxes, scores, *limits], d.some(center_point_box=point) if not point else {"center_point_box": 1},
                 free=(0, 1))  # fmt: skip
