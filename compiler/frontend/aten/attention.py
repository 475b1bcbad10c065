"""Rows of attention: scaled dot products, and the fused layers torch's own modules take at inference."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from compiler.frontend.aten.activations import gelu, relu, safe_softmax
from compiler.frontend.aten.call import Call
from compiler.frontend.aten.linear import linear
from compiler.frontend.aten.moving import matrix_transpose, repeat_interleave, split, transpose
from compiler.frontend.aten.normalization import layer_norm
from compiler.frontend.aten.passing import INFERENCE
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import activation, math, nn, reduce

FULL = "give the network sequences of one length, without padding masks"


def attention(c: Call, query: Value, key: Value, value: Value, mask: Value | None, scale: Any = None,
              rows_may_be_empty: bool = False) -> tuple[Value, Value]:  # fmt: skip
    """softmax(scale * q k' + mask) v, and the weights."""
    factor = 1 / sqrt(query.type.static_shape[-1]) if scale is None else c.number(scale, "the scale")
    scores = c.emit(nn.MatMul, query, matrix_transpose(c, key))
    scores = c.emit(math.Mul, scores, c.scalar_like(factor, scores))
    if mask is not None:
        scores = _masked(c, scores, mask)
    weights = safe_softmax(c, scores, -1) if rows_may_be_empty else c.emit(activation.Softmax, scores, axis=-1)
    return c.emit(nn.MatMul, weights, value), weights


def _masked(c: Call, scores: Value, mask: Value) -> Value:
    """Booleans let through where they are true, reals are added."""
    if mask.type.dtype is DType.BOOL:
        return c.emit(math.Where, mask, scores, c.scalar_like(-np.inf, scores))
    return c.emit(math.Add, scores, c.cast(mask, scores.type.dtype))


def _causal(c: Call, query: Value, key: Value) -> Value:
    return c.constant(np.tri(query.type.static_shape[-2], key.type.static_shape[-2], dtype=bool))


def _refuse_dropout(p: Any) -> None:
    if p:
        raise Unsupported("drops attention weights at random", INFERENCE)


@aten("aten::scaled_dot_product_attention")
def scaled_dot_product_attention(
    c: Call, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: Any = 0.0, is_causal: Any = False,
    scale: Any = None, enable_gqa: Any = False,
) -> Any:  # fmt: skip
    _refuse_dropout(dropout_p)
    q, k, v = c.tensor(query), c.tensor(key), c.tensor(value)
    if enable_gqa and q.type.static_shape[-3] != k.type.static_shape[-3]:
        groups = q.type.static_shape[-3] // k.type.static_shape[-3]
        k, v = (repeat_interleave(c, x, groups, -3) for x in (k, v))
    mask = _causal(c, q, k) if is_causal else attn_mask
    return attention(c, q, k, v, mask, scale, _may_empty_rows(mask))[0]


def _may_empty_rows(mask: Any) -> bool:
    """Whether a mask could hide all of a row: one of the network's data, or one known to."""
    if mask is None:
        return False
    data = getattr(mask, "data", None)
    if data is None:
        return mask.type.dtype is DType.BOOL
    hidden = ~data if data.dtype == bool else np.isneginf(data.astype(np.float32))
    return bool(hidden.all(axis=-1).any())


@aten("aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
      "aten::_scaled_dot_product_attention_math", "aten::_scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def flash_attention(c: Call, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
    """The kernels' own operators; only the first of their results is used at inference."""
    flags = list(rest)
    mask = named.get("attn_mask")
    if c.base in ("_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable") and flags:
        mask = flags.pop(0)
    _refuse_dropout(flags[0] if flags else named.get("dropout_p", 0.0))
    causal = flags[1] if len(flags) > 1 else named.get("is_causal", False)
    chosen = _causal(c, query, key) if causal else mask
    y, weights = attention(c, query, key, value, chosen, named.get("scale"), _may_empty_rows(chosen))
    return y, weights if c.base.endswith("_math") else None


@aten("aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention")
def efficient_attention(c: Call, query: Any, key: Any, value: Any, attn_bias: Any, compute_log_sumexp: Any,
                        dropout_p: Any = 0.0, is_causal: Any = False, *rest: Any, **named: Any) -> Any:  # fmt: skip
    _refuse_dropout(dropout_p)
    mask = _causal(c, query, key) if is_causal else attn_bias
    return attention(c, query, key, value, mask, named.get("scale"), _may_empty_rows(mask))[0], None, None, None


# -- fused layers ------------------------------------------------------------------------------------------------------
def _heads(c: Call, x: Value, count: int) -> Value:
    """[batch, steps, width] as [batch, heads, steps, width / heads]."""
    batch, steps, width = x.type.static_shape
    return transpose(c, c.reshape(x, (batch, steps, count, width // count)), 1, 2)


def multi_head(
    c: Call, query: Value, key: Value, value: Value, heads: int, qkv: tuple[Value, Value],
    out: tuple[Value, Value], mask: Value | None,
) -> tuple[Value, Value]:  # fmt: skip
    """The layer with one projection matrix for all three inputs."""
    weights, biases = split(c, qkv[0], qkv[0].type.static_shape[0] // 3), split(c, qkv[1], qkv[1].type.elements // 3)
    q, k, v = (
        _heads(c, linear(c, x, w, b), heads) for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    y, scores = attention(c, q, k, v, mask)
    batch, _, steps, _ = y.type.static_shape
    joined = c.reshape(transpose(c, y, 1, 2), (batch, steps, query.type.static_shape[2]))
    return linear(c, joined, *out), scores


def _let_through(c: Call, mask: Any, mask_type: Any, steps: int) -> Value | None:
    """A mask of the fused layers (true hides) as ours (true lets through), over [batch, heads, steps, steps]."""
    if mask is None:
        return None
    if mask_type not in (0, 1, 2):
        raise Unsupported(f"has a mask of type {mask_type}", FULL)
    x = c.tensor(mask)
    if x.type.dtype is not DType.BOOL:
        hidden: Value = x
    else:
        hidden = c.emit(math.Not, x)
    return c.reshape(hidden, (x.type.static_shape[0], 1, 1, steps)) if mask_type == 1 else hidden


@aten("aten::_native_multi_head_attention")
def native_multi_head_attention(
    c: Call, query: Any, key: Any, value: Any, embed_dim: Any, num_head: Any, qkv_weight: Any, qkv_bias: Any,
    proj_weight: Any, proj_bias: Any, mask: Any = None, need_weights: Any = True, average_attn_weights: Any = True,
    mask_type: Any = None,
) -> Any:  # fmt: skip
    hidden = _let_through(c, mask, mask_type, c.shape(key)[1])
    y, scores = multi_head(c, query, key, value, num_head, (qkv_weight, qkv_bias), (proj_weight, proj_bias), hidden)
    if not need_weights:
        return y, None
    return y, c.emit(reduce.Mean, scores, axes=(1,), keepdims=False) if average_attn_weights else scores


@aten("aten::_transformer_encoder_layer_fwd")
def transformer_encoder_layer(
    c: Call, src: Any, embed_dim: Any, num_heads: Any, qkv_weight: Any, qkv_bias: Any, proj_weight: Any,
    proj_bias: Any, use_gelu: Any, norm_first: Any, eps: Any, norm_weight_1: Any, norm_bias_1: Any,
    norm_weight_2: Any, norm_bias_2: Any, ffn_weight_1: Any, ffn_bias_1: Any, ffn_weight_2: Any, ffn_bias_2: Any,
    mask: Any = None, mask_type: Any = None,
) -> Any:  # fmt: skip
    x, hidden = c.tensor(src), _let_through(c, mask, mask_type, c.shape(src)[1])

    def attend(y: Value) -> Value:
        return multi_head(c, y, y, y, num_heads, (qkv_weight, qkv_bias), (proj_weight, proj_bias), hidden)[0]

    def feed_forward(y: Value) -> Value:
        inner = linear(c, y, ffn_weight_1, ffn_bias_1)
        return linear(c, gelu(c, inner) if use_gelu else relu(c, inner), ffn_weight_2, ffn_bias_2)

    norms = [(norm_weight_1, norm_bias_1), (norm_weight_2, norm_bias_2)]
    for step, (weight, bias) in zip((attend, feed_forward), norms, strict=True):
        if norm_first:
            x = c.emit(math.Add, x, step(layer_norm(c, x, [embed_dim], weight, bias, eps)))
        else:
            x = layer_norm(c, c.emit(math.Add, x, step(x)), [embed_dim], weight, bias, eps)
    return x
