"""The interpreter: inputs are checked, inner functions run, every value is seen and none outlives its last use."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter, evaluate_function
from compiler.evaluate.registry import evaluate_op, evaluator, find_evaluator, foldable
from compiler.ir.core import Function, Module, Op, Region, Value
from compiler.ir.define import FAMILIES, load_all_families, op, operand, result
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.graph import Call, Kernel, Return, Yield
from compiler.ops.math import Add, Cast, Exp, Mul, Neg, Pow
from compiler.ops.nn import Conv2d, MatMul, Relu
from compiler.ops.reduce import Sum
from compiler.ops.tensor import Reshape
from tests.one_op import normal

VECTOR = TensorType((4,), DType.F32)


def function(module: Module, name: str, build: Callable[..., list[Value]], *types: TensorType) -> Function:
    """A function whose body `build` appends to, and whose outputs it returns."""
    made = module.add_function(Function(name))
    arguments = [made.add_argument(t, f"x{i}") for i, t in enumerate(types)]
    made.body.append(Return(*build(made, *arguments)))
    return made


def chain(length: int) -> Module:
    """length negations one after another."""

    def build(main: Function, x: Value) -> list[Value]:
        for i in range(length):
            x = main.body.append(Neg(x, names=[f"v{i}"])).result
        return [x]

    module = Module()
    function(module, "main", build, VECTOR)
    return module


def test_outputs_come_in_order_and_by_name() -> None:
    module = Module()

    def build(main: Function, x: Value, y: Value) -> list[Value]:
        both = main.body.append(Add(x, y, names=["both"])).result
        return [both, x, module.add_constant("c", np.ones(2, np.float32))]

    function(module, "main", build, VECTOR, VECTOR)
    x, y = normal(4), normal(4, seed=1)
    both, passed, constant = Interpreter(module).run([x, y])
    np.testing.assert_array_equal(both, x + y)
    np.testing.assert_array_equal(passed, x)
    np.testing.assert_array_equal(constant, [1, 1])
    named = evaluate_function(module, {"x1": y, "x0": x})
    np.testing.assert_array_equal(named["both"], x + y)


def test_calls_and_kernels_run_inside() -> None:
    module = Module()
    function(module, "double", lambda f, x: [f.body.append(Add(x, x)).result], VECTOR)

    def build(main: Function, x: Value) -> list[Value]:
        called = main.body.append(Call(x, callee="double", types=[VECTOR], names=["called"])).results[0]
        region = Region()
        inner = region.block.add_argument(VECTOR, "a")
        negative = region.block.append(Neg(inner, names=["negative"])).result
        region.block.append(Yield(negative))
        kernel = main.body.append(Kernel(called, types=[VECTOR], names=["out"], regions=[region]))
        return [kernel.results[0]]

    function(module, "main", build, VECTOR)
    seen: list[str] = []
    x = normal(4)
    (y,) = Interpreter(module).run([x], observe=lambda value, array: seen.append(value.name))
    np.testing.assert_array_equal(y, -2 * x)
    assert seen == ["x0", "x0", "", "called", "a", "negative", "out"]


def test_a_function_that_calls_itself_is_an_error() -> None:
    module = Module()
    function(module, "main", lambda f, x: [f.body.append(Call(x, callee="main", types=[VECTOR])).results[0]], VECTOR)
    with pytest.raises(CompilerError, match="calls itself"):
        Interpreter(module)


def test_a_call_of_a_function_that_is_not_there_is_an_error() -> None:
    module = Module()
    function(module, "main", lambda f, x: [f.body.append(Call(x, callee="gone", types=[VECTOR])).results[0]], VECTOR)
    with pytest.raises(CompilerError, match="@gone, which the module does not have"):
        Interpreter(module)
    with pytest.raises(CompilerError, match="no function @mian") as raised:
        Interpreter(module, "mian")
    assert "main" in raised.value.diagnostics[0].help


def test_an_intermediate_value_dies_with_its_last_use() -> None:
    module = chain(5)
    born: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def observe(value: Value, array: np.ndarray) -> None:
        if value.producer is not None:
            born.append(weakref.ref(array))
            alive.append(sum(r() is not None for r in born))

    Interpreter(module).run([normal(4)], observe=observe)
    assert max(alive) == 2  # the operand and the result of the op that runs


def test_a_result_nobody_uses_dies_at_once() -> None:
    module = chain(1)
    unused = Neg(module.main.arguments[0], names=["unused"])
    module.main.body.prepend(unused)
    born: dict[str, weakref.ref[np.ndarray]] = {}
    dead: list[bool] = []

    def observe(value: Value, array: np.ndarray) -> None:
        if value.name == "v0":
            dead.append(born["unused"]() is None)
        born[value.name] = weakref.ref(array)

    Interpreter(module).run([normal(4)], observe=observe)
    assert dead == [True]


def test_a_changed_module_is_planned_anew() -> None:
    module = chain(1)
    interpreter = Interpreter(module)
    x = normal(4)
    np.testing.assert_array_equal(interpreter.run([x])[0], -x)
    old = module.main.body.first
    assert old is not None
    new = module.main.body.insert_before(old, Relu(module.main.arguments[0]))
    old.replace_with(new.result)
    np.testing.assert_array_equal(interpreter.run([x])[0], np.maximum(x, 0))


@pytest.mark.parametrize(
    ("inputs", "code", "message"),
    [
        ([], "E350", "takes 1 inputs, not 0"),
        ({"y": np.zeros(4, np.float32)}, "E350", "has no input 'y'"),
        ({}, "E350", "input 'x0' of @main is missing"),
        ([np.zeros(5, np.float32)], "E351", "shape is 5, expected 4"),
        ([np.zeros((1, 4), np.float32)], "E351", "shape is 1x4, expected 4"),
        ([np.zeros(4)], "E352", "elements are float64, expected float32"),
    ],
)
def test_inputs_that_do_not_fit_are_user_errors(inputs: object, code: str, message: str) -> None:
    with pytest.raises(CompilerError, match=message) as raised:
        Interpreter(chain(1)).run(inputs)  # type: ignore[arg-type]
    assert raised.value.diagnostics[0].code == code


def test_unknown_dimensions_take_any_size() -> None:
    module = Module()
    function(module, "main", lambda f, x: [f.body.append(Neg(x)).result], TensorType((None, 2), DType.F32))
    for rows in (1, 3):
        assert Interpreter(module).run([normal(rows, 2)])[0].shape == (rows, 2)


@op("test.nobody_computes")
class Orphan(Op):
    """An op without evaluator."""

    x = operand()
    y = result()

    def infer(self) -> TensorType:
        return self.x.type


@op("test.miscomputed")
class Miscomputed(Orphan):
    """An op whose evaluator breaks its promise."""


@evaluator("test.miscomputed")
def miscompute(op: Op, x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def test_ops_without_evaluator_are_named_before_anything_runs() -> None:
    module = Module()
    function(module, "main", lambda f, x: [f.body.append(Orphan(x)).result], VECTOR)
    with pytest.raises(CompilerError, match=r"test\.nobody_computes: has no evaluator"):
        Interpreter(module)
    with pytest.raises(CompilerError, match="has no evaluator"):
        evaluate_op(Orphan(module.main.arguments[0]), [normal(4)])


def test_an_evaluator_that_contradicts_the_declared_type_is_an_internal_error() -> None:
    module = Module()
    function(module, "main", lambda f, x: [f.body.append(Miscomputed(x)).result], VECTOR)
    with pytest.raises(ValueError, match="gave float64"):
        Interpreter(module).run([normal(4)])


NEUTRAL = [f for f in FAMILIES if f not in ("mlu", "graph")]


def test_every_neutral_op_has_an_evaluator() -> None:
    kinds = [k for k in load_all_families() if k.partition(".")[0] in NEUTRAL]
    assert len(kinds) > 100
    assert [k for k in kinds if find_evaluator(k) is None] == []


# -- folding ----------------------------------------------------------------------------------------------------------
def arguments(*types: TensorType) -> list[Value]:
    main = Module().add_function(Function("main"))
    return [main.add_argument(t, f"x{i}") for i, t in enumerate(types)]


def test_movement_and_correctly_rounded_steps_fold() -> None:
    (x,) = arguments(VECTOR)
    assert foldable(Add(x, x)) and foldable(Mul(x, x)) and foldable(Reshape(x, shape=[2, 2]))


def test_libm_blas_and_sums_of_floats_do_not_fold() -> None:
    x, matrix = arguments(VECTOR, TensorType((4, 4), DType.F32))
    assert not foldable(Exp(x)) and not foldable(MatMul(matrix, matrix)) and not foldable(Sum(x))


def test_integer_sums_and_quantised_products_fold() -> None:
    quant = QuantType(DType.I8, -4)
    integers, image, weights = arguments(
        TensorType((4,), DType.I64),
        TensorType((1, 2, 3, 3), DType.I8, quant),
        TensorType((2, 2, 1, 1), DType.I8, quant),
    )
    assert foldable(Sum(integers)) and foldable(Conv2d(image, weights))


def test_a_power_folds_where_it_is_one_rounded_operation() -> None:
    module = Module()
    (x,) = arguments(VECTOR)
    square, cube = (module.add_constant("e", np.array([e], np.float32)) for e in (2.0, 3.0))
    assert foldable(Pow(x, square)) and not foldable(Pow(x, cube)) and not foldable(Pow(x, x))


def test_a_cast_to_integers_folds_where_every_machine_agrees() -> None:
    module = Module()
    near, far = (module.add_constant("c", np.array([v], np.float32)) for v in (127.9, 300.0))
    (x,) = arguments(VECTOR)
    assert foldable(Cast(near, to=DType.I8)) and foldable(Cast(x, to=DType.F16))
    assert not foldable(Cast(far, to=DType.I8)) and not foldable(Cast(x, to=DType.I8))


def test_what_has_no_evaluator_does_not_fold() -> None:
    (x,) = arguments(VECTOR)
    assert not foldable(Orphan(x))
