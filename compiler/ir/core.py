"""What a program is: values, ops, blocks, regions, functions, modules, and the ways to change them.

A module holds functions and constants; a function is one block of ops in execution order; an op takes values and
defines values; a value is defined once. Every value keeps its uses and every change ticks the module's mutation
counter (`version`), so that analyses know when they are stale and nobody has to declare what a pass changed. Ops are
linked through `previous`/`next`, so insertion and removal do not depend on the size of the graph. Signatures, checks
and shape rules of particular ops are not here: see `define` and `compiler.ops`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compiler.ir.location import UNKNOWN, Location
from compiler.ir.types import DType, QuantType, TensorType

if TYPE_CHECKING:
    from compiler.ir.define import OpSignature


class Value:
    """Something an op can take: a `Result`, an `Argument` or a `Constant`. Compared by identity."""

    __slots__ = ("name", "type", "uses")

    def __init__(self, type: TensorType, name: str = "") -> None:
        self.type = type
        self.name = name
        self.uses: dict[tuple[Op, int], None] = {}

    @property
    def users(self) -> list[Op]:
        """The ops that take this value, each once, in the order in which they began to."""
        return list(dict.fromkeys(op for op, _ in self.uses))

    @property
    def has_one_use(self) -> bool:
        return len(self.uses) == 1

    @property
    def producer(self) -> Op | None:
        """The op that defines this value; None for arguments and constants."""
        return None

    def replace_all_uses_with(self, other: Value) -> None:
        """Make every op that takes this value take `other` instead."""
        for op, index in list(self.uses):
            op.set_operand(index, other)

    def replace_uses_if(self, other: Value, condition: Callable[[Op], bool]) -> None:
        """Make the ops for which `condition` holds take `other` instead."""
        for op, index in list(self.uses):
            if condition(op):
                op.set_operand(index, other)


class Result(Value):
    """A value an op defines."""

    __slots__ = ("index", "op")

    def __init__(self, op: Op, index: int, type: TensorType, name: str = "") -> None:
        super().__init__(type, name)
        self.op = op
        self.index = index

    @property
    def producer(self) -> Op:
        return self.op


class Argument(Value):
    """An input of a function, or of the region of a kernel. `attributes` carry layout, preprocessing and the like."""

    __slots__ = ("attributes", "block", "index")

    def __init__(self, block: Block, index: int, type: TensorType, name: str = "") -> None:
        super().__init__(type, name)
        self.block = block
        self.index = index
        self.attributes: dict[str, Any] = {}


class Constant(Value):
    """A tensor of the module. `data` is read-only; `hash` is over dtype, shape and bytes, computed when first asked."""

    __slots__ = ("_hash", "data", "module")

    def __init__(self, module: Module, name: str, data: np.ndarray, quant: QuantType | None = None) -> None:
        data = np.asarray(data)
        if data.flags.writeable:
            data = data.view()
            data.flags.writeable = False
        super().__init__(TensorType(data.shape, DType.of(data.dtype), quant), name)
        self.module = module
        self.data = data
        self._hash: str | None = None

    @property
    def hash(self) -> str:
        """sha256, in hex, of element type, shape and little-endian bytes."""
        if self._hash is None:
            self._hash = hash_of_array(self.data)
        return self._hash


def hash_of_array(data: np.ndarray) -> str:
    """sha256, in hex, of an array's element type, shape and bytes in row-major order."""
    digest = hashlib.sha256(f"{DType.of(data.dtype)} {data.shape} ".encode())
    digest.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Op:
    """One operation. Subclasses are declared with `compiler.ir.define.op`; they add typed access to what it holds.

    Operands are a flat list in declared order; an absent optional operand is None; a variadic operand takes the tail.
    A new op is detached: it holds uses at once, and joins a block with `Block.append`, `insert_before` or
    `insert_after`.
    """

    signature: ClassVar[OpSignature]

    def __init__(
        self,
        *operands: Value | None,
        types: Sequence[TensorType] | None = None,
        names: Sequence[str] = (),
        location: Location = UNKNOWN,
        regions: Sequence[Region] = (),
        **attributes: Any,
    ) -> None:
        self.block: Block | None = None
        self.previous: Op | None = None
        self.next: Op | None = None
        self._order = 0
        self.location = location
        self._operands: list[Value | None] = []
        self.attributes: dict[str, Any] = {}
        self.regions: list[Region] = []
        self.results: list[Result] = []
        self.signature.fill(self, operands, attributes, regions)
        self.signature.make_results(self, types, names)

    # -- what it is --------------------------------------------------------------------------------------------------
    @property
    def op_name(self) -> str:
        return self.signature.name

    @property
    def operands(self) -> tuple[Value | None, ...]:
        """All operand slots, None where an optional operand is absent."""
        return tuple(self._operands)

    @property
    def inputs(self) -> list[Value]:
        """The operands that are present."""
        return [v for v in self._operands if v is not None]

    @property
    def result(self) -> Result:
        """The only result. Raises ValueError for ops with none or several."""
        (only,) = self.results
        return only

    @property
    def name(self) -> str:
        """The first result's name, or the op's own name where it has no result."""
        return self.results[0].name if self.results else self.op_name

    @property
    def module(self) -> Module | None:
        return self.block.module if self.block is not None else None

    @property
    def function(self) -> Function | None:
        """The function this op is in, through any region."""
        return self.block.function if self.block is not None else None

    def is_before(self, other: Op) -> bool:
        """Whether this op stands before `other` in the same block."""
        assert self.block is not None and self.block is other.block
        self.block.number()
        return self._order < other._order

    def check(self) -> Iterable[str]:
        """Faults of this op beyond what its declaration says, as messages. Ops override it."""
        return ()

    def infer(self) -> TensorType | Sequence[TensorType] | None:
        """Result types from operands and attributes, assuming `check` found nothing; None if they must be given."""
        return None

    # -- changes -----------------------------------------------------------------------------------------------------
    def set_operand(self, index: int, value: Value | None) -> None:
        old = self._operands[index]
        if old is value:
            return
        if old is not None:
            del old.uses[self, index]
        self._operands[index] = value
        if value is not None:
            value.uses[self, index] = None
        self.touch()

    def set_operands(self, values: Sequence[Value | None]) -> None:
        """Replace the whole operand list; its length may change (variadic operands)."""
        for index, old in enumerate(self._operands):
            if old is not None:
                del old.uses[self, index]
        self._operands = list(values)
        for index, value in enumerate(self._operands):
            if value is not None:
                value.uses[self, index] = None
        self.touch()

    def set_attribute(self, key: str, value: Any) -> None:
        """Set a declared attribute, or an extra one (kept and printed, ignored by the op's meaning)."""
        self.attributes[key] = self.signature.normalize(key, value)
        self.touch()

    def infer_again(self) -> None:
        """Recompute result types after operands or attributes changed."""
        for result, type in zip(self.results, self.signature.inferred(self), strict=True):
            result.type = type
        self.touch()

    def touch(self) -> None:
        """Tick the module's mutation counter: something about this op changed."""
        module = self.module
        if module is not None:
            module.version += 1

    def detach(self) -> Op:
        """Take the op out of its block, keeping its operands."""
        if self.block is not None:
            self.block._unlink(self)
        return self

    def erase(self) -> None:
        """Remove the op for good. Raises ValueError while something still takes one of its results."""
        for result in self.results:
            if result.uses:
                user = next(iter(result.uses))[0]
                raise ValueError(f"cannot erase {self.op_name} {result.name!r}: {user.op_name} {user.name!r} takes it")
        self.detach()
        for region in self.regions:
            for op in reversed(list(region.block)):
                op.erase()
        self.set_operands([])

    def replace_with(self, *values: Value) -> None:
        """Let `values` stand for the results of this op, and erase it."""
        for result, value in zip(self.results, values, strict=True):
            result.replace_all_uses_with(value)
        self.erase()

    def clone(self, mapping: dict[Value, Value]) -> Op:
        """A detached copy whose operands are looked up in `mapping` (absent ones stay); results are added to it."""
        copy: Op = object.__new__(type(self))
        copy.block = copy.previous = copy.next = None
        copy._order = 0
        copy.location = self.location
        copy.attributes = dict(self.attributes)
        copy._operands = []
        copy.results = []
        copy.regions = [region.clone(mapping, copy) for region in self.regions]
        for result in self.results:
            mapping[result] = Result(copy, result.index, result.type, result.name)
            copy.results.append(mapping[result])  # type: ignore[arg-type]
        copy.set_operands([mapping.get(v, v) if v is not None else None for v in self._operands])
        return copy

    def __repr__(self) -> str:
        return f"<{self.op_name} {self.name!r}>"


class Block:
    """Ops in execution order, with arguments. Iteration tolerates removal of the op it stands on."""

    def __init__(self, owner: Region | Function) -> None:
        self.owner = owner
        self.arguments: list[Argument] = []
        self.first: Op | None = None
        self.last: Op | None = None
        self._numbered = True
        self._length = 0

    def __iter__(self) -> Iterator[Op]:
        op = self.first
        while op is not None:
            following = op.next
            yield op
            op = op.next if op.block is self else following

    def __reversed__(self) -> Iterator[Op]:
        op = self.last
        while op is not None:
            preceding = op.previous
            yield op
            op = op.previous if op.block is self else preceding

    def __len__(self) -> int:
        return self._length

    @property
    def terminator(self) -> Op:
        """The last op, a `graph.return` or `graph.yield`. Raises ValueError on an empty block."""
        if self.last is None:
            raise ValueError("empty block has no terminator")
        return self.last

    @property
    def function(self) -> Function | None:
        owner = self.owner
        if isinstance(owner, Function):
            return owner
        return owner.op.function if owner.op is not None else None

    @property
    def module(self) -> Module | None:
        function = self.function
        return function.module if function is not None else None

    def add_argument(self, type: TensorType, name: str = "") -> Argument:
        argument = Argument(self, len(self.arguments), type, name)
        self.arguments.append(argument)
        self._touch()
        return argument

    def remove_argument(self, index: int) -> None:
        """Remove an unused argument. Raises ValueError while it is used."""
        if self.arguments[index].uses:
            raise ValueError(f"argument {self.arguments[index].name!r} is still used")
        del self.arguments[index]
        for i, argument in enumerate(self.arguments):
            argument.index = i
        self._touch()

    def append(self, op: Op) -> Op:
        return self._link(op, self.last, None)

    def insert_before(self, anchor: Op, op: Op) -> Op:
        return self._link(op, anchor.previous, anchor)

    def insert_after(self, anchor: Op, op: Op) -> Op:
        return self._link(op, anchor, anchor.next)

    def prepend(self, op: Op) -> Op:
        return self._link(op, None, self.first)

    def number(self) -> None:
        """Give ops their order numbers, if insertions made the old ones stale."""
        if not self._numbered:
            for order, op in enumerate(self):
                op._order = order
            self._numbered = True

    def _link(self, op: Op, previous: Op | None, following: Op | None) -> Op:
        assert op.block is None, f"{op!r} is already in a block"
        op.block, op.previous, op.next = self, previous, following
        if previous is None:
            self.first = op
        else:
            previous.next = op
        if following is None:
            self.last = op
            if self._numbered:
                op._order = previous._order + 1 if previous is not None else 0
        else:
            following.previous = op
            self._numbered = False
        self._length += 1
        self._touch()
        return op

    def _unlink(self, op: Op) -> None:
        self._touch()
        if op.previous is None:
            self.first = op.next
        else:
            op.previous.next = op.next
        if op.next is None:
            self.last = op.previous
        else:
            op.next.previous = op.previous
        op.block = None
        self._length -= 1

    def _touch(self) -> None:
        module = self.module
        if module is not None:
            module.version += 1


class Region:
    """The inside of a `graph.kernel`: one block. Outer values (constants excepted) enter only as its arguments."""

    def __init__(self) -> None:
        self.op: Op | None = None
        self.block = Block(self)

    def clone(self, mapping: dict[Value, Value], owner: Op) -> Region:
        copy = Region()
        copy.op = owner
        _clone_block(self.block, copy.block, mapping)
        return copy


class Function:
    """A named block with typed inputs, ended by `graph.return`. `attributes` are printed with it; `facts` are what
    `compiler.analyses` found, with the module's version then."""

    def __init__(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.module: Module | None = None
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.facts: dict[Any, tuple[int, Any]] = {}
        self.body = Block(self)

    @property
    def arguments(self) -> list[Argument]:
        return self.body.arguments

    @property
    def outputs(self) -> list[Value]:
        """The returned values."""
        return self.body.terminator.inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names users know the outputs by: attribute `outputs` if set, else the values' names."""
        return tuple(self.attributes.get("outputs", ())) or tuple(v.name for v in self.outputs)

    def walk(self) -> Iterator[Op]:
        """Every op, outer before inner."""
        stack = [iter(self.body)]
        while stack:
            op = next(stack[-1], None)
            if op is None:
                stack.pop()
                continue
            yield op
            stack += [iter(region.block) for region in reversed(op.regions)]

    def add_argument(self, type: TensorType, name: str = "") -> Argument:
        return self.body.add_argument(type, name)

    def __repr__(self) -> str:
        return f"<function @{self.name}>"


class Module:
    """Functions and constants. `version` counts mutations; `attributes` carry source, target, cores and the like."""

    def __init__(self, attributes: Mapping[str, Any] | None = None) -> None:
        self.functions: dict[str, Function] = {}
        self.constants: dict[str, Constant] = {}
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.version = 0

    @property
    def main(self) -> Function:
        return self.functions["main"]

    def add_function(self, function: Function) -> Function:
        if function.name in self.functions:
            raise ValueError(f"function @{function.name} exists already")
        function.module = self
        self.functions[function.name] = function
        self.version += 1
        return function

    def remove_function(self, name: str) -> None:
        self.functions.pop(name).module = None
        self.version += 1

    def add_constant(self, name: str, data: np.ndarray, quant: QuantType | None = None) -> Constant:
        """A new constant under `name`, or under `name.1`, `name.2`, … where that is taken.

        A constant of the same name, content and type is returned instead of a second one.
        """
        constant = Constant(self, name, data, quant)
        base, number = name, 0
        while (taken := self.constants.get(constant.name)) is not None:
            if taken.type == constant.type and taken.hash == constant.hash:
                return taken
            number += 1
            constant.name = f"{base}.{number}"
        self.constants[constant.name] = constant
        self.version += 1
        return constant

    def constant_named(self, name: str) -> np.ndarray:
        return self.constants[name].data

    def drop_unused_constants(self) -> int:
        """Remove constants that no op takes and that neither a quantised type nor an attribute of the module names
        (as "@name"); returns how many went.
        """
        named = {t.quant.params for t in self._types() if t.quant is not None and t.quant.params}
        named |= {v[1:] for v in self.attributes.values() if isinstance(v, str) and v.startswith("@")}
        dead = [c for c in self.constants.values() if not c.uses and c.name not in named]
        for constant in dead:
            del self.constants[constant.name]
        if dead:
            self.version += 1
        return len(dead)

    def _types(self) -> Iterator[TensorType]:
        for constant in self.constants.values():
            if constant.uses:
                yield constant.type
        for function in self.functions.values():
            yield from (a.type for a in function.arguments)
            for op in function.walk():
                yield from (r.type for r in op.results)
                for region in op.regions:
                    yield from (a.type for a in region.block.arguments)

    def ops(self) -> Iterator[Op]:
        """Every op of every function, outer before inner."""
        for function in self.functions.values():
            yield from function.walk()

    def clone(self) -> Module:
        """A deep copy; constants' data are shared."""
        copy = Module(self.attributes)
        copy.version = self.version
        mapping: dict[Value, Value] = {}
        for constant in self.constants.values():
            twin = Constant(copy, constant.name, constant.data, constant.type.quant)
            twin._hash = constant._hash
            copy.constants[constant.name] = mapping[constant] = twin
        for function in self.functions.values():
            twin_function = Function(function.name, function.attributes)
            copy.add_function(twin_function)
            _clone_block(function.body, twin_function.body, mapping)
        return copy

    def __str__(self) -> str:
        from compiler.ir.printer import print_module

        return print_module(self)


def _clone_block(source: Block, target: Block, mapping: dict[Value, Value]) -> None:
    for argument in source.arguments:
        twin = target.add_argument(argument.type, argument.name)
        twin.attributes = dict(argument.attributes)
        mapping[argument] = twin
    for op in source:
        target.append(op.clone(mapping))
