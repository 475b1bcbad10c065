"""What passes may ask of the MLU220: reasons, roles, storage, joining, schedules; and how targets are found."""

from __future__ import annotations

import pytest

from compiler.errors import CompilerError
from compiler.ir.core import Op
from compiler.ir.define import find_op
from compiler.ir.types import DType, TensorType
from compiler.target import load_target
from targets.mlu220.target import Mlu220
from tests.networks import Network


def legal(kind: str, *operands: object, **attributes: object) -> Op:
    found = find_op(kind)
    assert found is not None
    return found(*operands, **attributes)  # type: ignore[arg-type]


@pytest.fixture
def x() -> object:
    return Network((1, 4, 6, 8)).main.add_argument(TensorType((1, 4, 6, 8), DType.F16), "h")


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(CompilerError, match="mlu220"):
        load_target("mlu200")


@pytest.mark.parametrize("cores", [0, 5])
def test_cores_the_chip_does_not_have_are_refused(cores: int) -> None:
    with pytest.raises(CompilerError, match="E605"):
        load_target("mlu220", cores=cores)


def test_a_board_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CompilerError):
        load_target("mlu220", board="m3")


@pytest.mark.parametrize("board", ["m2", "som", "edge"])
def test_boards_differ_in_memory_not_in_what_is_supported(board: str) -> None:
    target = load_target("mlu220", board=board)
    assert target.memory_bytes > 1 << 28 and target.lanes == 64 and target.options["board"] == board  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "attributes", "role", "storage"),
    [
        ("mlu.relu", {}, "elementwise", "own"), ("mlu.convert", {"to": DType.F32}, "elementwise", "own"),
        ("mlu.mul", {"constant": 2.0}, "elementwise", "own"), ("mlu.reduce", {"function": "sum"}, "reduction", "own"),
        ("mlu.pool", {"function": "max", "kernel": (2, 2)}, "anchor", "own"),
        ("mlu.reshape", {"shape": (1, 192)}, "view", "operand"),
        ("mlu.slice", {"starts": (0,) * 4, "sizes": (1, 2, 6, 8), "steps": (1,) * 4}, "view", "operand"),
        ("mlu.transpose", {"perm": (0, 2, 1, 3)}, "movement", "own"), ("mlu.copy", {}, "movement", "own"),
        ("mlu.concat", {"axis": 3}, "view", "result"),
    ],
)  # fmt: skip
def test_roles_and_storage(x: object, kind: str, attributes: dict[str, object], role: str, storage: str) -> None:
    target = Mlu220()
    operands = (x, x) if kind == "mlu.concat" else (x,)
    op = legal(kind, *operands, **attributes)
    assert (target.role(op), target.storage(op)) == (role, storage)


def test_ops_of_other_shapes_do_not_join(x: object) -> None:
    target = Mlu220()
    first = legal("mlu.relu", x)
    pooled = legal("mlu.pool", first.result, function="max", kernel=(2, 2))
    assert target.reason_against_joining([first], legal("mlu.exp", first.result)) is None
    assert "shape" in str(target.reason_against_joining([pooled], legal("mlu.exp", first.result)))


def test_reductions_stay_out_of_kernels_with_an_anchor(x: object) -> None:
    target = Mlu220()
    pooled = legal("mlu.pool", x, function="max", kernel=(1, 1))
    reason = target.reason_against_joining([pooled], legal("mlu.reduce", pooled.result, function="max"))
    assert reason is not None and "channels" in reason


def test_every_rule_of_the_table_is_an_op_that_exists() -> None:
    from targets.mlu220.rule_table import LEGALIZERS

    assert LEGALIZERS and all(find_op(name) is not None for name in LEGALIZERS)
