"""Trials of what transformers are made of, in the opsets that have operators for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


@trial("RMSNormalization", opsets=(23,))
def rms_norm(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    axis = d.axis(x.ndim)
    return Trial([x, d.floats(*x.shape[axis:])], {"axis": axis, **d.some(epsilon=d.uniform(1e-3, 0.1))}, tolerance=1e-4)


@trial("Swish", opsets=(24,))
def swish(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(alpha=d.uniform(0.5, 2)))


@trial("RotaryEmbedding", opsets=(23,))
def rotary_embedding(d: Dice) -> Trial:
    batch, heads, length, half = d.randint(1, 2), d.randint(1, 3), d.randint(1, 4), d.randint(1, 3)
    rotated = 2 * half
    size = rotated + 2 * d.randint(0, 1)
    attributes = d.some(interleaved=d.randint(0, 1))
    if size != rotated:
        attributes["rotary_embedding_dim"] = rotated
    if d.flip():
        x = d.floats(batch, heads, length, size)
    else:
        x = d.floats(batch, length, heads * size)
        attributes["num_heads"] = heads
    if d.flip():
        table, places = (7, half), [d.ints(batch, length, low=0, high=6)]
    else:
        table, places = (batch, length, half), []
    return Trial([x, d.floats(*table), d.floats(*table), *places], attributes, free=(0, 3))


@trial("Attention", opsets=(23,))
def attention(d: Dice) -> Trial:
    batch, groups, shared = d.randint(1, 2), d.randint(1, 2), d.randint(1, 2)
    heads, length, keys = groups * shared, d.randint(1, 4), d.randint(1, 4)
    size, wide = d.randint(1, 4), d.randint(1, 4)
    attributes: dict[str, Any] = d.some(scale=d.uniform(0.2, 1), is_causal=d.randint(0, 1), softcap=d.uniform(1, 3))
    if d.flip():
        q, k, v = d.floats(batch, heads, length, size), d.floats(batch, groups, keys, size), d.floats(
            batch, groups, keys, wide)  # fmt: skip
    else:
        q, k, v = d.floats(batch, length, heads * size), d.floats(batch, keys, groups * size), d.floats(
            batch, keys, groups * wide)  # fmt: skip
        attributes |= {"q_num_heads": heads, "kv_num_heads": groups}
    past = d.randint(1, 3) if d.flip(0.3) else 0
    if past:
        attributes.pop("is_causal", None)  # with a past onnxruntime and ONNX's reference differ about it
    mask: np.ndarray | None = None
    if d.flip():
        shape = d.choice([(length, keys + past), (1, 1, length, keys + past), (batch, heads, length, keys + past)])
        mask = d.floats(*shape) if d.flip() else d.ints(*shape, low=0, high=3).astype(bool)
    cache = [d.floats(batch, groups, past, size), d.floats(batch, groups, past, wide)] if past else []
    inputs: list[Any] = [q, k, v, *([mask] if mask is not None or cache else []), *cache]
    return Trial(inputs, attributes, free=(0, 1, 2), outputs=3 if cache else 1, tolerance=1e-4)
