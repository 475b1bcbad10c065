"""`expand-recurrent`: LSTM, GRU and plain recurrent layers of known length as matrix products and elementwise ops.

The product of the input with its weights is one matmul for all time steps; each step then adds the product of the
hidden state, and gates it. So the matmuls are calibrated, quantised and scheduled like any others. It is the
evaluator's computation, operation by operation (`compiler.evaluate.recurrent`). What a step would only multiply with
an absent initial state, which is zero, is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compiler.ir.core import Constant, Module, Value
from compiler.ir.define import find_op
from compiler.ops.recurrent import Recurrent
from compiler.pass_context import Pass, PassContext
from compiler.rewrite import Declined, Match, Rewriter, Rule, pattern

ACTIVATIONS = {
    "sigmoid": "nn.sigmoid", "tanh": "math.tanh", "relu": "nn.relu", "hard_sigmoid": "nn.hard_sigmoid",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExpandRecurrent(Pass):
    """Unroll recurrent layers of known length into matmuls and elementwise ops."""

    name: ClassVar[str] = "expand-recurrent"
    max_steps: int = 128
    """Leave longer sequences alone."""

    def run(self, module: Module, ctx: PassContext) -> None:
        ctx.rewrite(module, [Rule(pattern(name), self.expand) for name in CELLS])
        module.drop_unused_constants()

    def expand(self, match: Match, rewriter: Rewriter) -> object:
        op: Any = match.root
        if not op.x.type.is_static:
            return Declined("the length is not known")
        if not op.x.type.static_shape[0]:
            return Declined("there are no steps")
        if op.x.type.static_shape[0] > self.max_steps:
            return Declined("longer than max-steps")
        if not all(v is None or isinstance(v, Constant) for v in (op.w, op.r, op.b, getattr(op, "p", None))):
            return Declined("weights are not constant")
        runs = [CELLS[op.op_name](op, index, rewriter) for index in range(op.directions)]
        for run in runs:
            run.unroll()
        results = [_outputs(runs), *(_last_states(runs, k) for k in range(op.states))]
        for result, make in zip(op.results, results, strict=True):
            if result.users:
                rewriter.replace_value(result, make())
        rewriter.erase(op)
        return None


class _Builder:
    """Makes neutral ops in front of the layer, named after it."""

    def __init__(self, op: Recurrent, prefix: str, rewriter: Rewriter) -> None:
        self.op: Any = op
        self.prefix = prefix
        self.rewriter = rewriter

    def make(self, kind: str, *operands: Value, name: str = "", **attributes: Any) -> Value:
        found = find_op(kind)
        assert found is not None
        names = [f"{self.prefix}.{name}"] if name else ()
        return self.rewriter.create(found, *operands, names=names, **attributes).results[0]

    def constant(self, name: str, data: np.ndarray) -> Constant:
        return self.rewriter.constant(f"{self.prefix}.{name}", np.ascontiguousarray(data, self.op.x.type.dtype.numpy))

    def reshape(self, x: Value, shape: Sequence[int], name: str = "") -> Value:
        if x.type.shape == tuple(shape):
            return x
        return self.make("tensor.reshape", x, name=name, shape=tuple(shape))

    def concat(self, parts: Sequence[Value], axis: int, name: str = "") -> Value:
        return parts[0] if len(parts) == 1 else self.make("tensor.concat", *parts, name=name, axis=axis)

    def part(self, x: Value, axis: int, start: int, size: int, name: str) -> Value:
        """`size` indices of an axis of a matrix."""
        shape = x.type.static_shape
        if shape[axis] == size:
            return x
        starts, sizes = [0, 0], list(shape)
        starts[axis], sizes[axis] = start, size
        return self.make("tensor.slice", x, name=name, starts=tuple(starts), sizes=tuple(sizes))


class _Cell(_Builder, ABC):
    """One direction of a layer. `states`: what a step takes and gives, [batch, hidden] each, the hidden state first;
    None for zero. `shared`: constants that all steps take, by name."""

    def __init__(self, op: Any, index: int, rewriter: Rewriter) -> None:
        which = f".{'backward' if index else 'forward'}" if op.directions > 1 else ""
        super().__init__(op, f"{op.results[0].name}{which}", rewriter)
        self.base = self.prefix
        self.shared: dict[str, Constant] = {}
        self.index = index
        self.hidden = op.hidden
        self.steps, self.batch, _ = op.x.type.static_shape
        count = len(op.defaults)
        self.functions = op.gate_activations[index * count : (index + 1) * count]
        self.w, self.r = op.w.data[index], op.r.data[index]
        width = op.gates * op.hidden
        both = op.b.data[index] if op.b is not None else np.zeros(2 * width, op.w.data.dtype)
        self.input_bias, self.recurrent_bias = both[:width], both[width:]
        initial = [op.h0, getattr(op, "c0", None)][: op.states]
        self.states = [self._initial(v, f"state{k}") for k, v in enumerate(initial)]
        self.hidden_states: dict[int, Value] = {}

    def _initial(self, states: Value | None, name: str) -> Value | None:
        """This direction's part of the initial states [directions, batch, hidden]; None where it is zero."""
        if states is None or (isinstance(states, Constant) and not states.data[self.index].any()):
            return None
        flat = self.reshape(states, (self.op.directions * self.batch, self.hidden), f"{name}.flat")
        return self.part(flat, 0, self.index * self.batch, self.batch, name)

    def unroll(self) -> None:
        order = range(self.steps)
        fixed = self._input_product()
        backwards = self.op.direction == "reverse" or self.index == 1
        for t in reversed(order) if backwards else order:
            self.prefix = f"{self.base}.t{t}"
            self.states = self.step(self.part(fixed, 0, t * self.batch, self.batch, "input"))
            assert self.states[0] is not None
            self.hidden_states[t] = self.states[0]
        self.prefix = self.base

    def _input_product(self) -> Value:
        """x w + bias of all time steps, [steps * batch, gates * hidden]."""
        x = self.reshape(self.op.x, (self.steps * self.batch, self.op.x.type.static_shape[2]), "x")
        product = self.make("nn.matmul", x, self.constant("w", self.w.T), name="product")
        bias = self.fixed_bias()
        return self.make("math.add", product, self.constant("bias", bias), name="fixed") if bias.any() else product

    def fixed_bias(self) -> np.ndarray:
        """The bias that is added whatever the hidden state is."""
        return np.add(self.input_bias, self.recurrent_bias)

    @abstractmethod
    def step(self, fixed: Value) -> list[Value | None]:
        """The states after a step whose input product is `fixed`."""

    # -- pieces of a step --------------------------------------------------------------------------------------------
    def same_for_all(self, name: str, data: np.ndarray) -> Constant:
        """A constant that every step takes: made by the first."""
        if name not in self.shared:
            self.shared[name] = self.rewriter.constant(f"{self.base}.{name}", np.ascontiguousarray(data))
        return self.shared[name]

    def recurrent(self, h: Value, first: int, last: int, name: str) -> Value:
        """h r of the gates from `first` to `last`."""
        rows = self.r[first * self.hidden : last * self.hidden]
        weights = self.same_for_all("r" if len(rows) == len(self.r) else f"r{first}", rows.T)
        return self.make("nn.matmul", h, weights, name=name)

    def gate(self, gates: Value, number: int, name: str) -> Value:
        return self.part(gates, 1, number * self.hidden, self.hidden, name)

    def activate(self, function: int, x: Value, name: str) -> Value:
        """Activation number `function` of the layer, after its clip."""
        if self.op.clip > 0:
            x = self.make("math.clip", x, name=f"{name}.clipped", low=-self.op.clip, high=self.op.clip)
        return self.activated(function, x, name)

    def activated(self, function: int, x: Value, name: str) -> Value:
        return self.make(ACTIVATIONS[self.functions[function]], x, name=name)

    def add(self, a: Value, b: Value, name: str) -> Value:
        return self.make("math.add", a, b, name=name)

    def mul(self, a: Value, b: Value, name: str) -> Value:
        return self.make("math.mul", a, b, name=name)

    def complement(self, x: Value, name: str) -> Value:
        """1 - x."""
        one = self.rewriter.constant("one", np.ones((), x.type.dtype.numpy))
        return self.make("math.sub", one, x, name=name)


class _Lstm(_Cell):
    def step(self, fixed: Value) -> list[Value | None]:
        h, c = self.states
        gates = fixed if h is None else self.add(fixed, self.recurrent(h, 0, 4, "recurrent"), "gates")
        i, o, f, g = (self.gate(gates, k, f"{name}.in") for k, name in enumerate("iofc"))
        i = self.activate(0, self._peep(i, 0, c, "i"), "i")
        g = self.activate(1, g, "g")
        new = self.mul(i, g, "ig")
        if c is not None:
            if self.op.input_forget:
                forget = self.complement(i, "f")
            else:
                forget = self.activate(0, self._peep(f, 2, c, "f"), "f")
            new = self.add(self.mul(forget, c, "fc"), new, "c")
        o = self.activate(0, self._peep(o, 1, new, "o"), "o")
        return [self.mul(o, self.activated(2, new, "c.out"), "h"), new]

    def _peep(self, gate: Value, number: int, c: Value | None, name: str) -> Value:
        """A gate's input plus its peephole on a cell state."""
        if self.op.p is None or c is None:
            return gate
        weights = self.op.p.data[self.index].reshape(3, self.hidden)[number]
        constant = self.rewriter.constant(f"{self.op.p.name}.{'iof'[number]}{self.index}", weights)
        return self.add(gate, self.mul(c, constant, f"{name}.peephole"), f"{name}.peeped")


class _Gru(_Cell):
    def fixed_bias(self) -> np.ndarray:
        if not self.op.linear_before_reset:
            return super().fixed_bias()
        bias = np.add(self.input_bias, self.recurrent_bias)
        bias[2 * self.hidden :] = self.input_bias[2 * self.hidden :]
        return bias

    def step(self, fixed: Value) -> list[Value | None]:
        (h,) = self.states
        n = self.hidden
        linear = self.op.linear_before_reset
        product = self.recurrent(h, 0, 3 if linear else 2, "recurrent") if h is not None else None
        gates = self.part(fixed, 1, 0, 2 * n, "zr.fixed")
        if product is not None:
            gates = self.add(gates, self.part(product, 1, 0, 2 * n, "zr.recurrent"), "zr.in")
        gates = self.activate(0, gates, "zr")
        update, reset = self.gate(gates, 0, "z"), self.gate(gates, 1, "r")
        new = self.part(fixed, 1, 2 * n, n, "n.fixed")
        inner = self._after_reset(product, reset) if linear else self._before_reset(h, reset)
        if inner is not None:
            new = self.add(new, inner, "n.in")
        new = self.mul(self.complement(update, "z.rest"), self.activate(1, new, "n"), "zn")
        return [new if h is None else self.add(new, self.mul(update, h, "zh"), "h")]

    def _after_reset(self, product: Value | None, reset: Value) -> Value | None:
        """reset * (h r + bias)."""
        bias = self.recurrent_bias[2 * self.hidden :]
        vector = self.same_for_all("bias.n", bias) if bias.any() else None
        if product is None:
            return self.mul(reset, vector, "n.reset") if vector is not None else None
        inner = self.part(product, 1, 2 * self.hidden, self.hidden, "n.recurrent")
        return self.mul(reset, self.add(inner, vector, "n.biased") if vector is not None else inner, "n.reset")

    def _before_reset(self, h: Value | None, reset: Value) -> Value | None:
        """(reset * h) r."""
        return None if h is None else self.recurrent(self.mul(reset, h, "rh"), 2, 3, "n.recurrent")


class _Rnn(_Cell):
    def step(self, fixed: Value) -> list[Value | None]:
        (h,) = self.states
        total = fixed if h is None else self.add(fixed, self.recurrent(h, 0, 1, "recurrent"), "sum")
        return [self.activate(0, total, "h")]


CELLS: dict[str, type[_Cell]] = {"nn.lstm": _Lstm, "nn.gru": _Gru, "nn.rnn": _Rnn}


# -- results ---------------------------------------------------------------------------------------------------------
def _outputs(runs: Sequence[_Cell]) -> Any:
    """Makes y: hidden states of all steps and directions, [steps, directions, batch, hidden]."""

    def make() -> Value:
        parts = []
        for run in runs:
            joined = run.concat([run.hidden_states[t] for t in range(run.steps)], 0, "hidden")
            parts.append(_nameless(run, joined, (run.steps, 1, run.batch, run.hidden), len(runs) > 1, "y"))
        return runs[0].concat(parts, 1)

    return make


def _last_states(runs: Sequence[_Cell], number: int) -> Any:
    """Makes the last states of one kind, [directions, batch, hidden]."""

    def make() -> Value:
        shape = (1, runs[0].batch, runs[0].hidden)
        parts = []
        for run in runs:
            state = run.states[number]
            assert state is not None
            parts.append(_nameless(run, state, shape, len(runs) > 1, f"last{number}"))
        return runs[0].concat(parts, 0)

    return make


def _nameless(run: _Cell, x: Value, shape: tuple[int, ...], named: bool, name: str) -> Value:
    """A reshape that is named only where it does not become the layer's result itself."""
    return run.reshape(x, shape, name if named else "")
