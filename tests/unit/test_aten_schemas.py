"""Rows of the aten table take the arguments that torch's schemas give them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the schemas are torch's")

from compiler.frontend.aten.registry import ATEN, IGNORED, Row, load_converters  # noqa: E402

load_converters()

OTHER_KINDS = {
    "aten::bmm.dtype": "results of another type than the operands, on accelerators only",
    "aten::mm.dtype": "results of another type than the operands, on accelerators only",
    "aten::einsum.sublist": "no exporter writes it", "aten::index.str": "of strings", "aten::select.t": "of lists",
    "quantized::conv2d.": "parameters that torch no longer accepts",
    "quantized::conv2d_relu.": "parameters that torch no longer accepts",
}  # fmt: skip
"""Overloads that share a name with a row and are not served by it."""


def is_served(schema: Any) -> bool:
    """Whether graphs can hold the overload: not those that write to an argument `out`, nor those of named axes."""
    if any(a.is_out for a in schema.arguments):
        return False
    return not any(word in schema.overload_name for word in ("imname", "names", "complex", "generator"))


def overloads(name: str) -> Iterator[Any]:
    """torch's schemas that a row of the table stands for."""
    plain, _, wanted = name.partition(".")
    namespace, _, base = plain.partition("::")
    packet = getattr(getattr(torch.ops, namespace), base, None)
    for overload in packet.overloads() if packet is not None else ():
        has_own_row = f"{plain}.{overload}" in ATEN
        if overload == wanted or (not wanted and not has_own_row):
            schema = getattr(packet, overload)._schema
            if is_served(schema):
                yield schema


def faults(row: Row, schema: Any) -> Iterator[str]:
    parameters = list(inspect.signature(row.function).parameters.values())[1:]
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = [a for a in schema.arguments if not a.kwarg_only]
    if len(given) > len(positional) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        yield f"takes {len(positional)} of {[a.name for a in given]}"
    if sum(p.default is p.empty for p in positional) > sum(not a.has_default_value() for a in given):
        yield f"needs more than {[a.name for a in given]}"
    keywords = {a.name for a in schema.arguments if a.kwarg_only} - row.parameters - set(IGNORED)
    if keywords and not row.takes_any:
        yield f"does not know {sorted(keywords)}"


@pytest.mark.parametrize("name", sorted(n for n in ATEN if n.startswith(("aten::", "quantized::"))))
def test_a_row_takes_what_the_schemas_give(name: str) -> None:
    for schema in overloads(name):
        if f"{schema.name}.{schema.overload_name}" not in OTHER_KINDS:
            assert list(faults(ATEN[name], schema)) == [], str(schema)


def core_operators() -> set[str]:
    """Names of core ATen that compute on numbers at inference."""
    tags = (torch.Tag.core,)
    found = set()
    for full in torch._C._dispatch_get_all_op_names():
        name, _, overload = full.partition(".")
        packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None) if name.startswith("aten::") else None
        op = getattr(packet, overload or "default", None) if packet is not None else None
        if op is not None and any(t in op.tags for t in tags):
            found.add(name)
    return found


NOT_OFFERED = {"aten::_fft_c2r", "aten::_fft_r2c", "aten::_pdist_forward", "aten::resize_"}
"""Complex numbers, a distance that training uses, and a write that changes a shape."""


def test_core_aten_has_rows_but_for_training_and_complex_numbers() -> None:
    core = core_operators()
    missing = {n for n in core if n not in ATEN and n.removesuffix("_") not in ATEN}
    assert len(core) > 150
    assert {n for n in missing if "backward" not in n} == NOT_OFFERED & core
