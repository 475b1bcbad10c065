"""The `nn.` recurrent layers, with ONNX's meaning, gate order and weight shapes; time is axis 0, batch axis 1.

x: [steps, batch, input]; w: [directions, gates*hidden, input]; r: [directions, gates*hidden, hidden]; b: [directions,
2*gates*hidden] (input biases, then recurrent ones); h0, c0: [directions, batch, hidden]. Results: y [steps, directions,
batch, hidden], the last hidden state, and for lstm the last cell state. Batch-first models are transposed by frontends.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import Choice, Kind, attr, op, operand, result
from compiler.ir.types import Dimension, TensorType
from compiler.ops.shapes import FLOATS, check_same_dtype, reject_quantised, same

ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid")
"""The last is clip(0.2 x + 0.5, 0, 1)."""
Words = Kind("list of activation names", lambda v: tuple(_activation(word) for word in v))


def _activation(word: object) -> str:
    if str(word).lower() not in ACTIVATIONS:
        raise ValueError
    return str(word).lower()


class Recurrent(Op):
    """What the recurrent layers share. `activations`: per direction, in ONNX's order; empty for the layer's
    defaults."""

    gates = 1
    states = 1
    defaults: tuple[str, ...] = ("tanh",)

    x = operand(rank=3, dtypes=FLOATS)
    w = operand(rank=3, dtypes=FLOATS)
    r = operand(rank=3, dtypes=FLOATS)
    b = operand(rank=2, dtypes=FLOATS, optional=True)
    h0 = operand(rank=3, dtypes=FLOATS, optional=True)
    hidden = attr(int)
    direction = attr(Choice("forward", "reverse", "bidirectional"), default="forward")
    activations = attr(Words, default=())
    clip = attr(float, default=0.0, doc="clamp of the gates' inputs to [-clip, clip]; 0 for none")

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def gate_activations(self) -> tuple[str, ...]:
        """Activation names of every direction in turn, defaults filled in."""
        return self.activations or self.defaults * self.directions

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)
        if self.hidden < 1:
            yield f"hidden must be at least 1, not {self.hidden}"
        if len(self.gate_activations) != len(self.defaults) * self.directions:
            yield f"activations must name {len(self.defaults)} functions per direction"
        for name, wanted in self._expected_shapes().items():
            value = getattr(self, name)
            if value is not None and not all(map(same, value.type.shape, wanted)):
                yield f"{name} has shape {value.type.shape}, expected {wanted}"

    def _expected_shapes(self) -> dict[str, tuple[Dimension, ...]]:
        _, batch, size = self.x.type.shape
        rows = self.gates * self.hidden
        state = (self.directions, batch, self.hidden)
        return {
            "w": (self.directions, rows, size), "r": (self.directions, rows, self.hidden),
            "b": (self.directions, 2 * rows), "h0": state,
        }  # fmt: skip

    def infer(self) -> list[TensorType]:
        steps, batch, _ = self.x.type.shape
        dtype = self.x.type.dtype
        state = TensorType((self.directions, batch, self.hidden), dtype)
        return [TensorType((steps, self.directions, batch, self.hidden), dtype)] + [state] * self.states


@op("nn.lstm")
class Lstm(Recurrent):
    """Long short-term memory; gates in the order i, o, f, c. p: peepholes [directions, 3*hidden] in the order i, o, f.

    Source: ONNX LSTM-22.
    """

    gates = 4
    states = 2
    defaults = ("sigmoid", "tanh", "tanh")

    c0 = operand(rank=3, dtypes=FLOATS, optional=True)
    p = operand(rank=2, dtypes=FLOATS, optional=True)
    input_forget = attr(bool, default=False, doc="couple the input and forget gates: f = 1 - i")
    y = result()
    h = result()
    c = result()

    def _expected_shapes(self) -> dict[str, tuple[Dimension, ...]]:
        shapes = super()._expected_shapes()
        return {**shapes, "c0": shapes["h0"], "p": (self.directions, 3 * self.hidden)}


@op("nn.gru")
class Gru(Recurrent):
    """Gated recurrent unit; gates in the order z, r, h. Source: ONNX GRU-22."""

    gates = 3
    defaults = ("sigmoid", "tanh")

    linear_before_reset = attr(
        bool, default=False, doc="apply the reset gate after the recurrent product, as cuDNN does"
    )
    y = result()
    h = result()


@op("nn.rnn")
class Rnn(Recurrent):
    """Plain recurrence h = f(x w + h r + b). Source: ONNX RNN-22."""

    y = result()
    h = result()
