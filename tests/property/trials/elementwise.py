"""Trials of element-wise operators."""

from __future__ import annotations

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


@trial("Add", "Sub", "Mul", "Div", opsets=(7, 13, 14))
def arithmetic(d: Dice) -> Trial:
    shape = d.shape(0)
    kind = d.choice("fild")
    a, b = d.numbers(*shape, kinds=kind), d.numbers(*d.broadcast(shape), kinds=kind)
    b = np.where(b == 0, 3, b).astype(b.dtype)
    return Trial([a, b] if d.flip() else [b, np.where(a == 0, 2, a).astype(a.dtype)], free=d.choice([(0,), (0, 1)]))


@trial("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", opsets=(11, 12, 13, 16, 19))
def comparison(d: Dice) -> Trial:
    shape, kind = d.shape(0), d.choice("fil")
    return Trial([d.numbers(*shape, kinds=kind), d.numbers(*d.broadcast(shape), kinds=kind)], free=(0, 1))


@trial("And", "Or", "Xor", opsets=(7,))
def logical(d: Dice) -> Trial:
    shape = d.shape(0)
    return Trial([d.numbers(*shape, kinds="b"), d.numbers(*d.broadcast(shape), kinds="b")], free=(0, 1))


@trial("BitwiseAnd", "BitwiseOr", "BitwiseXor", opsets=(18,))
def bitwise(d: Dice) -> Trial:
    shape, kind = d.shape(0), d.choice("ilu")
    return Trial([d.numbers(*shape, kinds=kind), d.numbers(*d.broadcast(shape), kinds=kind)], free=(0, 1))


@trial("BitShift", opsets=(11,))
def bit_shift(d: Dice) -> Trial:
    shape = d.shape(0)
    dtype = d.choice([np.uint8, np.uint32, np.uint64])
    places = d.ints(*d.broadcast(shape), low=0, high=7, dtype=dtype)
    return Trial([d.ints(*shape, low=0, high=200, dtype=dtype), places], {"direction": d.choice(["LEFT", "RIGHT"])})


@trial("Mod", opsets=(10, 13))
def mod(d: Dice) -> Trial:
    shape, kind = d.shape(0), d.choice("filu")
    a, b = d.numbers(*shape, kinds=kind), d.numbers(*d.broadcast(shape), kinds=kind)
    fmod = 1 if kind == "f" else d.randint(0, 1)
    return Trial([a, np.where(b == 0, 3, b).astype(b.dtype)], {"fmod": fmod}, free=(0, 1))


@trial("Pow", opsets=(7, 12, 13, 15))
def power(d: Dice) -> Trial:
    shape, kind = d.shape(0), d.choice("fil")
    base = d.floats(*shape, low=0.2) if kind == "f" else d.ints(
        *shape, low=1, high=5, dtype=np.int32 if kind == "i" else np.int64)
    kind = d.choice("fil") if d.opset >= 12 else kind
    exponent = d.floats(*d.broadcast(shape), low=0.0) if kind == "f" else d.ints(
        *d.broadcast(shape), low=0, high=3, dtype=np.int32 if kind == "i" else np.int64)
    return Trial([base, exponent], free=d.choice([(0,), (0, 1)]))


@trial("Neg", "Abs", "Sign", opsets=(13,))
def signed(d: Dice) -> Trial:
    return Trial([d.numbers(*d.shape(0), kinds="fild")])


@trial("Exp", "Erf", "Tanh", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Floor", "Ceil", "Round", "Relu",
       "Sigmoid", "Softplus", "Softsign", "Reciprocal", "Mish", "HardSwish", opsets=(18,))  # fmt: skip
def unary(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0)) * d.choice([1, 3])])


@trial("Asin", "Acos", "Atanh", opsets=(9,))
def within_one(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0), low=-0.95, high=0.95)])


@trial("Sqrt", "Log", "Acosh", opsets=(9, 13))
def positive(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0), low=1.01, high=9.0)])


@trial("Elu", "LeakyRelu", "ThresholdedRelu", "Celu", opsets=(12, 16))
def with_alpha(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(alpha=d.uniform(0.05, 1.5)))


@trial("HardSigmoid", opsets=(6, 22))
def hard_sigmoid(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(alpha=d.uniform(0.1, 1), beta=d.uniform(0, 1)))


@trial("Selu", opsets=(6, 22))
def selu(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(alpha=d.uniform(0.1, 2), gamma=d.uniform(0.1, 2)))


@trial("Gelu", opsets=(20,))
def gelu(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(approximate=d.choice(["none", "tanh"])), tolerance=1e-4)


@trial("Shrink", opsets=(9,))
def shrink(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(0))], d.some(bias=d.uniform(0, 1), lambd=d.uniform(0, 1)))


@trial("PRelu", opsets=(7, 9, 16))
def prelu(d: Dice) -> Trial:
    shape = d.shape(1)
    return Trial([d.floats(*shape), d.floats(*d.broadcast(shape))], free=d.choice([(0,), (0, 1)]))


@trial("Sum", "Mean", "Max", "Min", opsets=(8, 12, 13))
def variadic(d: Dice) -> Trial:
    shape = d.shape(0)
    return Trial([d.floats(*(shape if i == 0 else d.broadcast(shape))) for i in range(d.randint(1, 4))], free=(0, 1))


@trial("Clip", opsets=(6, 11, 12, 13))
def clip(d: Dice) -> Trial:
    if d.opset < 11:
        return Trial([d.floats(*d.shape(0))], d.some(min=d.uniform(-2, 1), max=d.uniform(-1, 2)))
    x = d.numbers(*d.shape(0), kinds="f" if d.opset < 12 else "filu")
    low, high = (np.array(d.choice([-1, 0, 2, 3]) if x.dtype != np.uint8 else d.choice([0, 9, 70])).astype(x.dtype)
                 for _ in range(2))  # fmt: skip
    free = d.choice([(0,), (0, 1), (0, 1, 2)])
    return Trial([x, *d.choice([[], [low], [None, high], [low, high]])], free=free)


@trial("Where", opsets=(9, 16))
def where(d: Dice) -> Trial:
    shape, kind = d.shape(0), d.choice("filu")
    given = [d.numbers(*d.broadcast(shape), kinds="b"), d.numbers(*shape, kinds=kind),
             d.numbers(*d.broadcast(shape), kinds=kind)]  # fmt: skip
    return Trial(given, free=d.choice([(0,), (1,), (0, 1, 2)]))


@trial("IsInf", opsets=(10, 20))
def is_inf(d: Dice) -> Trial:
    x = np.where(d.ints(4, low=0, high=1) == 1, d.choice([np.inf, -np.inf, np.nan]), 1.0).astype(np.float32)
    return Trial([x], d.some(detect_positive=d.randint(0, 1), detect_negative=d.randint(0, 1)))


@trial("Cast", opsets=(9, 13, 19, 21))
def cast(d: Dice) -> Trial:
    x = d.numbers(*d.shape(0), kinds="fildub")
    return Trial([np.abs(x) if x.dtype.kind == "f" else x], {"to": d.choice([1, 2, 3, 6, 7, 9, 11])})


@trial("Not", "Identity", opsets=(1,))
def of_truth_values(d: Dice) -> Trial:
    return Trial([d.numbers(*d.shape(0), kinds="b")])


@trial("BitwiseNot", opsets=(18,))
def bitwise_not(d: Dice) -> Trial:
    return Trial([d.numbers(*d.shape(0), kinds="ilu")])


@trial("IsNaN", opsets=(9, 13, 20))
def is_nan(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    x.reshape(-1)[d.randrange(x.size)] = np.nan
    return Trial([x])
