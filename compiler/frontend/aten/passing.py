"""Rows of operators that do nothing at inference: they pass their tensor on."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Unsupported

INFERENCE = "save the network for inference (model.eval())"

PASSING = (
    "alias", "clone", "contiguous", "cpu", "cuda", "detach", "detach_copy", "lift", "lift_fresh", "lift_fresh_copy",
    "positive", "requires_grad", "resolve_conj", "resolve_neg", "to_dense", "_to_cpu", "pin_memory", "alias_copy",
    "_unsafe_clone", "conj", "real", "identity", "_conj",
)  # fmt: skip


@aten(*(f"aten::{name}" for name in PASSING), quantised="keep")
def passing(c: Call, self: Any, *rest: Any, **more: Any) -> Any:
    return self


@aten("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout", quantised="keep")
def dropout(c: Call, input: Any, p: Any, train: Any) -> Any:
    _refuse_training(train)
    return input


@aten("aten::native_dropout", quantised="keep")
def native_dropout(c: Call, input: Any, p: Any, train: Any = False) -> Any:
    _refuse_training(train)
    return input, c.constant(np.ones(c.shape(input), bool))


def _refuse_training(train: Any) -> None:
    if train:
        raise Unsupported("is in training mode", INFERENCE)


@aten("aten::rrelu_with_noise", "aten::rrelu_with_noise_functional")
def rrelu_with_noise(c: Call, self: Any, noise: Any, lower: Any = 1 / 8, upper: Any = 1 / 3, training: Any = False,
                     generator: Any = None) -> Any:  # fmt: skip
    y = rrelu(c, self, lower, upper, training)
    return (y, noise) if c.base.endswith("functional") else y


@aten("aten::rrelu")
def rrelu(c: Call, self: Any, lower: Any = 1 / 8, upper: Any = 1 / 3, training: Any = False,
          generator: Any = None) -> Any:  # fmt: skip
    from compiler.frontend.aten.activations import leaky_relu

    _refuse_training(training)
    return leaky_relu(c, self, (lower + upper) / 2)


NOTHING = ("_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range",
           "sym_constrain_range_for_size", "_functional_sym_constrain_range", "warn", "manual_seed", "_check",
           "_functional_assert_async", "_linalg_check_errors", "_print", "_functional_assert_scalar")  # fmt: skip


@aten(*(f"aten::{name}" for name in NOTHING), quantised="keep")
def nothing(c: Call, *args: Any, **kwargs: Any) -> Any:
    """Checks of sizes and of values, which a compiled network has fixed."""
    return None
