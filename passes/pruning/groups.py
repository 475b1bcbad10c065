"""Which channels live and die together.

Every channel a convolution or matmul makes is an *atom*. Rules (`flow`) follow atoms through the ops: an addition ties
the atoms of its operands, a concatenation lines them up, a flattening repeats them, an op that mixes or counts channels
pins them. Connected components of the ties are the *coupled channels*: removing one means slicing every constant it
occurs in. Components made by the same ops form a *group*, inside which channels compete. What to remove is decided in
`channels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from compiler.ir.core import Constant, Function, Module, Op, Value
from passes.layers import replace_constant


@dataclass(frozen=True)
class Channels:
    """What is known of a value: along `axis`, index i is atom `atoms[i]`."""

    axis: int
    atoms: np.ndarray


@dataclass(frozen=True)
class Slice:
    """An operand that must lose its removed channels: along `axis`, index i is atom `atoms[i]`.

    `contracted` says that the op sums over this axis, so that zeros there mean the channel is ignored.
    """

    op: Op
    operand: int
    axis: int
    atoms: np.ndarray
    contracted: bool = False


Update = Callable[[Callable[[np.ndarray], int]], None]
"""Corrects attributes of an op; is given a function that counts the kept ones among some atoms."""


@dataclass
class Component:
    """Coupled channels: its atoms and their summed saliency."""

    atoms: np.ndarray
    saliency: float


@dataclass
class Group:
    """Components made by the same ops. `pinned` says why none may be removed, or is empty."""

    name: str
    components: list[Component] = field(default_factory=list)
    pinned: str = ""


class Dependencies:
    """The atoms of one function, their ties and pins, and what has to change when some go."""

    def __init__(self, keep: Callable[[Op], bool] = lambda op: False) -> None:
        self.keep = keep
        self.channels: dict[Value, Channels] = {}
        self.origins: list[str] = []
        self.slices: list[Slice] = []
        self.updates: list[Update] = []
        self.pins: dict[int, str] = {}
        self._origin_of: list[np.ndarray] = []
        self._norms: list[tuple[np.ndarray, np.ndarray]] = []
        self._ties: list[np.ndarray] = []
        self._count = 0

    # -- what rules say ------------------------------------------------------------------------------------------------
    def fresh(self, origin: str, count: int) -> np.ndarray:
        """New atoms, made by `origin`."""
        atoms = np.arange(self._count, self._count + count)
        self._origin_of.append(np.full(count, len(self.origins)))
        self.origins.append(origin)
        self._count += count
        return atoms

    def made(self, op: Op, count: int) -> np.ndarray:
        """New atoms for the output channels of an op with weights; pinned if the user keeps it."""
        atoms = self.fresh(op.name, count)
        if self.keep(op):
            self.pin(atoms, "kept by option")
        return atoms

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Atoms of the same index must live or die together."""
        self._ties.append(np.stack([a, b], axis=1))

    def pin(self, atoms: np.ndarray, reason: str) -> None:
        """None of these may go."""
        for atom in np.unique(atoms).tolist():
            self.pins.setdefault(atom, reason)

    def pin_inputs(self, op: Op, reason: str) -> None:
        for value in op.inputs:
            if value in self.channels:
                self.pin(self.channels[value].atoms, reason)

    def slice(self, op: Op, operand: int, axis: int, atoms: np.ndarray, contracted: bool = False) -> None:
        """Operand number `operand` of `op`, a constant, has these atoms along `axis`. An absent operand is skipped."""
        if op.operands[operand] is not None:
            self.slices.append(Slice(op, operand, axis, atoms, contracted))

    def weigh(self, atoms: np.ndarray, weights: np.ndarray, axis: int) -> None:
        """Add the L1 norm of each slice of `weights` along `axis` to its atom's saliency."""
        norms = np.abs(np.moveaxis(weights, axis, 0).reshape(len(atoms), -1)).sum(axis=1, dtype=np.float64)
        self._norms.append((atoms, norms))

    # -- what they add up to -------------------------------------------------------------------------------------------
    @property
    def atoms(self) -> int:
        return self._count

    @property
    def saliency(self) -> np.ndarray:
        """For each atom, the summed L1 norms of the weights that make it."""
        total = np.zeros(self._count)
        for atoms, norms in self._norms:
            np.add.at(total, atoms, norms)
        return total

    def groups(self) -> list[Group]:
        """All components, by the ops that made them, in order of the first channel; pinned ones apart."""
        owner = np.concatenate(self._origin_of) if self._origin_of else np.zeros(0, int)
        saliency = self.saliency
        found: dict[tuple, Group] = {}
        for members in self._components():
            makers = Counter(owner[members].tolist())
            reason = next((self.pins[a] for a in members if a in self.pins), "")
            key = (tuple(sorted(makers.items())), reason)
            if key not in found:
                found[key] = Group(_name([self.origins[o] for o in sorted(makers)]), pinned=reason)
            found[key].components.append(Component(np.array(members), float(saliency[members].sum())))
        return list(found.values())

    def _components(self) -> Iterator[list[int]]:
        """Connected components of the ties, members and components in ascending order."""
        import networkx

        graph = networkx.Graph()
        graph.add_nodes_from(range(self._count))
        for pairs in self._ties:
            graph.add_edges_from(pairs.tolist())
        yield from sorted(sorted(component) for component in networkx.connected_components(graph))

    def remove(self, module: Module, function: Function, dead: Iterable[int]) -> None:
        """Take atoms out of the function: slice constants, correct attributes, infer types again."""
        kept = np.ones(self._count, bool)
        kept[list(dead)] = False
        self._slice_constants(module, kept)
        for update in self.updates:
            update(lambda atoms: int(kept[atoms].sum()))
        for op in function.body:
            if op.results and any(v in self.channels for v in (*op.inputs, *op.results)):
                op.infer_again()

    def _slice_constants(self, module: Module, kept: np.ndarray) -> None:
        masks: dict[tuple[Op, int], list[tuple[int, np.ndarray]]] = {}
        for s in self.slices:
            if not kept[s.atoms].all():
                masks.setdefault((s.op, s.operand), []).append((s.axis, kept[s.atoms]))
        smaller: dict[Constant, dict[tuple[Op, int], np.ndarray]] = {}
        for (op, index), cuts in masks.items():
            constant = op.operands[index]
            assert isinstance(constant, Constant)
            data = constant.data
            for axis, mask in cuts:
                data = np.compress(mask, data, axis=axis)
            smaller.setdefault(constant, {})[op, index] = np.ascontiguousarray(data)
        for constant, uses in smaller.items():
            _put(module, constant, uses)


def _put(module: Module, constant: Constant, uses: dict[tuple[Op, int], np.ndarray]) -> None:
    """Give some uses of a constant their smaller data; under the same name where they are all of its uses and agree."""
    first = next(iter(uses.values()))
    if uses.keys() >= constant.uses.keys() and all(np.array_equal(first, data) for data in uses.values()):
        constant.replace_all_uses_with(replace_constant(constant, first))
        return
    for (op, index), data in uses.items():
        op.set_operand(index, module.add_constant(constant.name, data))


def _name(origins: list[str]) -> str:
    if len(origins) <= 2:
        return " + ".join(origins)
    return f"{origins[0]} + {len(origins) - 1} more"
