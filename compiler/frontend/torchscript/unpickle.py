"""A reader of the pickles in TorchScript archives: its own loop over the opcodes, with a list of what they may name.

Python's `pickle` is not used: it calls what a file names. Here an opcode that PyTorch never writes is refused by name,
as is every global outside the allow-list (`pickled.known_global`). Work and memory are linear in the pickle's size:
every opcode takes at least a byte, pushes at most one new thing, and no text or number is longer than its own bytes.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from compiler.errors import CompilerError
from compiler.frontend.torchscript import pickled
from compiler.frontend.torchscript.archive import Archive
from compiler.frontend.torchscript.pickled import Global, Object, Refused

MARK = object()
LONGEST_INTEGER = 16


def read_pickle(archive: Archive, member: str, folder: str) -> Any:
    """The value of a pickle; its storages lie under `folder`. Raises CompilerError naming what is not allowed."""
    try:
        return _Reader(archive.read(member), archive, folder).run()
    except Refused as fault:
        raise pickled.as_fault(archive, member, fault) from None
    except CompilerError:
        raise
    except (IndexError, ValueError, TypeError, KeyError, UnicodeDecodeError, struct.error, OverflowError) as fault:
        refused = Refused(f"not a pickle that PyTorch writes, or a damaged one ({type(fault).__name__}: {fault})")
        raise pickled.as_fault(archive, member, refused) from None


class _Reader:
    """One pickle being read."""

    def __init__(self, data: bytes, archive: Archive, folder: str) -> None:
        self.data = data
        self.at = 0
        self.archive = archive
        self.folder = folder
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[tuple[str, ...], Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                if len(self.stack) != 1:
                    raise Refused(f"ends with {len(self.stack)} values, not one")
                return self.pop()
            action = ACTIONS.get(code)
            if action is None:
                names = {info.code: info.name for info in pickletools.opcodes}
                name = names.get(code.decode("latin-1"))
                name = f"opcode {name}" if name else f"byte {code!r}"
                raise Refused(f"uses {name}, which PyTorch does not write")
            action(self)

    # -- bytes ---------------------------------------------------------------------------------------------------------
    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if count < 0 or len(part) != count:
            raise Refused("ends too early")
        self.at += count
        return part

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 4096)
        if end < 0:
            raise Refused("ends inside a name")
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def text(self, form: str) -> str:
        return self.take(self.number(form)).decode("utf-8", "surrogatepass")

    # -- the stack -----------------------------------------------------------------------------------------------------
    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise Refused("takes a value where there is none")
        return value

    def to_mark(self) -> list[Any]:
        """The values above the topmost mark, which is taken away too."""
        items: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            items.append(value)
        return items[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise Refused(f"adds to something that is no {kind.__name__}")
        return self.stack[-1]

    # -- opcodes -------------------------------------------------------------------------------------------------------
    def skip(self, count: int) -> None:
        self.take(count)

    def drop(self) -> None:
        self.pop()

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def remember(self, key: int) -> None:
        if not self.stack or self.stack[-1] is MARK:
            raise Refused("remembers a value where there is none")
        self.memo[key] = self.stack[-1]

    def long(self) -> None:
        size = self.number("<B")
        if size > LONGEST_INTEGER:
            raise Refused(f"has an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def global_name(self) -> None:
        self.push(pickled.known_global(self.line(), self.line()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("names a global by something else than text")
        self.push(pickled.known_global(module, name))

    def reduce(self) -> None:
        arguments, target = self.pop(), self.pop()
        self.push(pickled.call(target, arguments))

    def new_object(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Global) or target.kind != "class" or arguments != ():
            name = target.name if isinstance(target, Global) else type(target).__name__
            raise Refused(f"makes an object of {name!r}, which is not a class of the archive")
        self.push(Object(target.name))

    def build(self) -> None:
        state, target = self.pop(), self.top(Object)
        if target.attributes or target.state is not None:
            raise Refused(f"gives an object of {target.class_name!r} its state twice")
        if isinstance(state, dict):
            if not all(isinstance(name, str) for name in state):
                raise Refused(f"an attribute of {target.class_name!r} has no name")
            target.attributes = dict(state)
        target.state = state

    def storage(self) -> None:
        reference = self.pop()
        found = pickled.storage_of(self.archive, self.folder, reference)
        key = (found.key, found.element.name, str(found.count))
        self.push(self.storages.setdefault(key, found))

    def append(self) -> None:
        item = self.pop()
        self.top(list).append(item)

    def append_all(self) -> None:
        items = self.to_mark()
        self.top(list).extend(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.insert(key, value)

    def set_items(self) -> None:
        items = self.to_mark()
        if len(items) % 2:
            raise Refused("has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.insert(key, value)

    def insert(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int | float | bool):  # others may hide a structure that takes ages to compare
            raise Refused("has a key that is neither text nor a number")
        self.top(dict)[key] = value


def _pushes(value: Any) -> Callable[[_Reader], None]:
    return lambda r: r.push(value)


def _number(form: str) -> Callable[[_Reader], None]:
    return lambda r: r.push(r.number(form))


def _text(form: str) -> Callable[[_Reader], None]:
    return lambda r: r.push(r.text(form))


ACTIONS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": lambda r: r.skip(1), b"\x95": lambda r: r.skip(8),
    b"(": _pushes(MARK), b"N": _pushes(None), b"\x88": _pushes(True), b"\x89": _pushes(False),
    b"]": lambda r: r.push([]), b"}": lambda r: r.push({}), b")": _pushes(()),
    b"t": lambda r: r.push(tuple(r.to_mark())), b"l": lambda r: r.push(r.to_mark()),
    b"\x85": lambda r: r.tuple_of(1), b"\x86": lambda r: r.tuple_of(2), b"\x87": lambda r: r.tuple_of(3),
    b"J": _number("<i"), b"K": _number("<B"), b"M": _number("<H"), b"G": _number(">d"),
    b"\x8a": _Reader.long, b"X": _text("<I"), b"\x8c": _text("<B"), b"\x8d": _text("<Q"),
    b"q": lambda r: r.remember(r.number("<B")), b"r": lambda r: r.remember(r.number("<I")),
    b"\x94": lambda r: r.remember(len(r.memo)),
    b"h": lambda r: r.push(r.memo[r.number("<B")]), b"j": lambda r: r.push(r.memo[r.number("<I")]),
    b"0": _Reader.drop,
    b"c": _Reader.global_name, b"\x93": _Reader.stack_global, b"R": _Reader.reduce, b"\x81": _Reader.new_object,
    b"b": _Reader.build, b"Q": _Reader.storage, b"a": _Reader.append, b"e": _Reader.append_all,
    b"s": _Reader.set_item, b"u": _Reader.set_items,
}  # fmt: skip
"""Opcode → what is done. What is not here is refused."""
