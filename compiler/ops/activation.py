"""The `nn.` activations. All keep shape and element type; relu keeps a quantised type, the others take reals only."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import Choice, attr, op, operand, result
from compiler.ir.types import TensorType
from compiler.ops.shapes import FLOATS, broadcasts_to, check_axis, check_same_dtype, reject_quantised


class Activation(Op):
    """A function of each element, or along one axis."""

    x = operand(dtypes=FLOATS)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return self.x.type


@op("nn.relu")
class Relu(Activation):
    """max(x, 0); relu(-0) is +0. Quantised: max(x, zero point). Source: ONNX Relu-14."""

    x = operand()

    def check(self) -> Iterator[str]:
        return iter(())


@op("nn.leaky_relu")
class LeakyRelu(Activation):
    """x where x >= 0, else alpha * x. Source: ONNX LeakyRelu-16."""

    alpha = attr(float, default=0.01)


@op("nn.prelu")
class PRelu(Activation):
    """x where x >= 0, else slope * x; slope broadcasts to x's shape. Source: ONNX PRelu-16."""

    slope = operand(dtypes=FLOATS)

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)
        if not broadcasts_to(self.slope.type.shape, self.x.type.shape):
            yield f"slope {self.slope.type.shape} does not broadcast to {self.x.type.shape}"


@op("nn.elu")
class Elu(Activation):
    """x where x >= 0, else alpha * (exp(x) - 1). Source: ONNX Elu-22."""

    alpha = attr(float, default=1.0)


@op("nn.selu")
class Selu(Activation):
    """gamma * elu(x, alpha). Source: ONNX Selu-22."""

    alpha = attr(float, default=1.67326319217681884765625)
    gamma = attr(float, default=1.05070102214813232421875)


@op("nn.celu")
class Celu(Activation):
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)). Source: ONNX Celu-12."""

    alpha = attr(float, default=1.0)


@op("nn.thresholded_relu")
class ThresholdedRelu(Activation):
    """x where x > alpha, else 0. Source: ONNX ThresholdedRelu-22."""

    alpha = attr(float, default=1.0)


@op("nn.sigmoid")
class Sigmoid(Activation):
    """1 / (1 + exp(-x)). Source: ONNX Sigmoid-13."""


@op("nn.hard_sigmoid")
class HardSigmoid(Activation):
    """clip(alpha * x + beta, 0, 1). Source: ONNX HardSigmoid-22."""

    alpha = attr(float, default=0.2)
    beta = attr(float, default=0.5)


@op("nn.hard_swish")
class HardSwish(Activation):
    """x * clip(x / 6 + 0.5, 0, 1). Source: ONNX HardSwish-22."""


@op("nn.silu")
class Silu(Activation):
    """x * sigmoid(x). Source: torch.nn.SiLU, ONNX Swish-24."""


@op("nn.gelu")
class Gelu(Activation):
    """x * Phi(x), Phi the normal distribution function, or its tanh approximation. Source: ONNX Gelu-20."""

    approximate = attr(Choice("none", "tanh"), default="none")


@op("nn.softplus")
class Softplus(Activation):
    """log(1 + exp(x)), without overflow. Source: ONNX Softplus-22."""


@op("nn.softsign")
class Softsign(Activation):
    """x / (1 + |x|). Source: ONNX Softsign-22."""


@op("nn.mish")
class Mish(Activation):
    """x * tanh(softplus(x)). Source: ONNX Mish-22."""


@op("nn.softmax")
class Softmax(Activation):
    """exp(x - max) / sum(exp(x - max)) along `axis`.

    Source: ONNX Softmax-13 (older opsets flatten first: frontends do that).
    """

    axis = attr(int, default=-1)

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_axis(self.axis, self.x.type.rank)


@op("nn.log_softmax")
class LogSoftmax(Softmax):
    """x - max - log(sum(exp(x - max))) along `axis`. Source: ONNX LogSoftmax-13."""
