"""What the code of an archive can change, kept so that code whose fate the network's data decide can be tried.

A branch or a loop's body is evaluated, what it changed is looked at, and everything is put back: variables, the items
of lists and dictionaries, attributes, and the elements of tensors, which views share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compiler.frontend.records import Unsupported
from compiler.frontend.torchscript.instances import ABSENT, Instances, Journal, same, same_items
from compiler.frontend.torchscript.pickled import Object
from compiler.frontend.torchscript.tensors import Step, Store, Tensor
from compiler.ir.core import Value

SPLIT = "give the value a new variable in both branches, or choose with torch.where"


@dataclass(frozen=True)
class Place:
    """Where a value is kept: a variable of `names`, the items of a list or dictionary, an attribute, a store."""

    holder: Any = field(hash=False, compare=False)
    key: str
    identity: int

    @staticmethod
    def of(holder: Any, key: str = "") -> Place:
        return Place(holder, key, id(holder))

    @property
    def title(self) -> str:
        """What to call it in messages and results."""
        if isinstance(self.holder, Object):
            return f"{self.holder.path}.{self.key}".strip(".")
        return self.key or "elements"


Changes = Mapping[Place, Any]
"""Places whose value is another now than before → the value now; of lists and dictionaries a copy."""


class Memory:
    """Everything that code in a frame can reach, as it is now."""

    def __init__(self, names: dict[str, Any], instances: Instances) -> None:
        self.names = names
        self.instances = instances
        self._names = dict(names)
        self._containers: list[tuple[Any, Any]] = []
        self._objects: list[tuple[Object, dict[str, Any], Any]] = []
        self._stores: dict[Store, tuple[Value, int]] = {}
        self._views: list[tuple[Tensor, tuple[Step, ...], Value | None, int]] = []
        self._references: Counter[int] = Counter()
        self._changed: Journal = instances.journal()
        self._reach()

    def _reach(self) -> None:
        seen: set[int] = set()
        waiting = list(self.names.values())
        while waiting:
            x = waiting.pop()
            self._references[id(x)] += 1
            if id(x) in seen or not isinstance(x, Tensor | Object | list | tuple | dict):
                continue
            seen.add(id(x))
            if isinstance(x, Tensor):
                self._stores[x.store] = (x.store.value, x.store.version)
                self._views.append((x, x.steps, x._value, x._version))
            elif isinstance(x, Object):
                self._objects.append((x, dict(x.attributes), x.state))
                waiting += x.attributes.values()
            elif isinstance(x, tuple):
                waiting += x
            else:
                self._containers.append((x, x.copy()))
                waiting += x.values() if isinstance(x, dict) else x

    def restore(self) -> None:
        """Put everything back."""
        self.names.clear()
        self.names.update(self._names)
        for container, items in self._containers:
            container.clear()
            container.update(items) if isinstance(container, dict) else container.extend(items)
        for target, attributes, state in self._objects:
            target.attributes, target.state = dict(attributes), state
        for store, (value, version) in self._stores.items():
            store.value, store.version = value, version
        for tensor, steps, cached, version in self._views:
            tensor.steps, tensor._value, tensor._version = steps, cached, version
        self.instances.return_to(self._changed)

    # -- what became of it -------------------------------------------------------------------------------------------
    def changes(self) -> Changes:
        """What is another now. Raises Unsupported where a variable became a view of itself (`squeeze_`)."""
        for tensor, steps, _, _ in self._views:
            if tensor.steps != steps:
                raise Unsupported("changes the shape of a variable in place, where the network's data decide", SPLIT)
        return dict(self._changes())

    def _changes(self) -> Iterator[tuple[Place, Any]]:
        for name, value in self.names.items():
            if not same(self._names.get(name, ABSENT), value):
                yield Place.of(self.names, name), value
        for container, items in self._containers:
            if not same_items(container, items):
                title = next((name for name, value in self._names.items() if value is container), "items")
                yield Place.of(container, title), container.copy()
        for target, attributes, _ in self._objects:
            for name, value in target.attributes.items():
                before, now = map(self.instances.ready_already, (attributes.get(name, ABSENT), value))
                if not same(before, now):
                    yield Place.of(target, name), now
        for store, (elements, _) in self._stores.items():
            if store.value is not elements:
                yield Place.of(store), Tensor.of(store.value)

    def before(self, place: Place) -> Any:
        """What a place held; ABSENT for a variable or an attribute that is new."""
        holder = place.holder
        if holder is self.names:
            return self._names.get(place.key, ABSENT)
        if isinstance(holder, Store):
            return Tensor.of(self._stores[holder][0])
        if isinstance(holder, Object):
            attributes = next(found for target, found, _ in self._objects if target is holder)
            return self.instances.ready_already(attributes.get(place.key, ABSENT))
        return next(items for container, items in self._containers if container is holder)

    def now(self, place: Place) -> Any:
        """What a place holds now."""
        holder = place.holder
        if holder is self.names:
            return self.names.get(place.key, ABSENT)
        if isinstance(holder, Store):
            return Tensor.of(holder.value)
        return holder.attributes.get(place.key, ABSENT) if isinstance(holder, Object) else holder.copy()

    def is_shared(self, tensor: Tensor) -> bool:
        """Whether a tensor shares elements with another one there was before."""
        others = [t for t, *_ in self._views if t.store is tensor.store]
        alone = others == [tensor] and self._references[id(tensor)] == 1
        return bool(tensor.steps) or bool(others and not alone)

    def put(self, place: Place, value: Any) -> None:
        """Change what a place holds."""
        holder = place.holder
        if isinstance(holder, Store):
            holder.value = value.store.value
            holder.version += 1
        elif isinstance(holder, Object):
            self.instances.set(holder, place.key, value)
        elif holder is self.names:
            holder[place.key] = value
        else:
            holder.clear()
            holder.update(value) if isinstance(holder, dict) else holder.extend(value)
