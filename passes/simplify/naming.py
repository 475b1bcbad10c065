"""Names for the values that rewrites made in passing: schemes and reports speak of values by name."""

from __future__ import annotations

from compiler.ir.core import Function, Module


def name_nameless_values(module: Module) -> None:
    """Call each nameless result after what takes it: `y.slice` for the slice that `y` is made of."""
    for function in module.functions.values():
        nameless = [r for op in function.body for r in op.results if not r.name]
        if nameless:
            taken = _names(function)
            for result in reversed(nameless):  # users are named before what they take
                kind = result.op.op_name.rpartition(".")[2]
                owner = next((user.results[0].name for user in result.users if user.results), "")
                result.name = _fresh(f"{owner}.{kind}" if owner else kind, taken)
            module.version += 1


def _names(function: Function) -> set[str]:
    return {a.name for a in function.arguments} | {r.name for op in function.walk() for r in op.results}


def _fresh(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        found, number = f"{name}.{number}", number + 1
    taken.add(found)
    return found
