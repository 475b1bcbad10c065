"""Values, ops, blocks and modules: use lists, order, replacement, the mutation counter; types, locations, equality."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import Matched, Optional, Sink, Source, Unary

from compiler.errors import CompilerError
from compiler.ir.core import Function, Module, Op, Region, Value, hash_of_array
from compiler.ir.define import OPS, attr, find_op, op, operand, result, same_attribute
from compiler.ir.equality import first_difference, modules_equal
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.types import DType, QuantType, TensorType, position_and_scale
from compiler.ops.graph import Kernel, Return, Yield

F32 = TensorType((2, 3), DType.F32)


def chain(length: int = 3) -> tuple[Module, Function, list[Op]]:
    """@main with that many ops in a row, and a return."""
    module = Module()
    main = module.add_function(Function("main"))
    value: Value = main.add_argument(F32, "x")
    ops: list[Op] = []
    for i in range(length):
        ops.append(main.body.append(Unary(value, names=[f"v{i}"])))
        value = ops[-1].result
    main.body.append(Return(value))
    return module, main, ops


# -- uses --------------------------------------------------------------------------------------------------------------
def test_a_value_knows_its_uses_and_users_once_each() -> None:
    x = Value(F32, "x")
    twice = Sink(x, x)
    once = Sink(x)
    assert list(x.uses) == [(twice, 0), (twice, 1), (once, 0)]
    assert x.users == [twice, once]
    assert not x.has_one_use
    twice.set_operands([])
    assert x.has_one_use


def test_replacing_all_uses_moves_them() -> None:
    x, y = Value(F32, "x"), Value(F32, "y")
    sink = Sink(x, y, x)
    x.replace_all_uses_with(y)
    assert sink.operands == (y, y, y)
    assert not x.uses and len(y.uses) == 3


def test_replacing_uses_with_a_wrapper_spares_the_wrapper() -> None:
    _, main, (a, b, _) = chain()
    wrapper = main.body.insert_after(a, Unary(a.result))
    a.result.replace_uses_if(wrapper.result, lambda user: user is not wrapper)
    assert b.operands == (wrapper.result,) and wrapper.operands == (a.result,)


def test_an_op_cannot_be_erased_while_its_result_is_taken() -> None:
    _, main, (a, b, _) = chain()
    with pytest.raises(ValueError, match=r"cannot erase test\.unary 'v0': test\.unary 'v1' takes it"):
        a.erase()
    a.replace_with(main.arguments[0])
    assert b.operands == (main.arguments[0],) and len(main.body) == 3


def test_erasing_a_kernel_releases_what_its_ops_take() -> None:
    module = Module()
    w = module.add_constant("w", np.zeros(2, np.float32))
    inside = Region()
    t = inside.block.append(Unary(w)).result
    inside.block.append(Sink(t, w))
    inside.block.append(Yield())
    kernel = Kernel(types=[], regions=[inside])
    kernel.erase()
    assert not w.uses


def test_an_op_that_fails_to_be_made_leaves_no_use_behind() -> None:
    x = Value(F32, "x")
    with pytest.raises(CompilerError):
        Matched(x, Value(TensorType((9, 9), DType.F32)), axis=0)
    with pytest.raises(CompilerError, match="result types must be given"):
        Optional(x, x)
    assert not x.uses


# -- order -------------------------------------------------------------------------------------------------------------
def test_ops_stand_where_they_were_inserted() -> None:
    _, main, (a, b, c) = chain()
    first, before, after = Sink(), Sink(), Sink()
    main.body.prepend(first)
    main.body.insert_before(b, before)
    main.body.insert_after(b, after)
    assert list(main.body)[:-1] == [first, a, before, b, after, c]
    assert list(reversed(main.body))[1:] == [c, after, b, before, a, first]
    assert first.is_before(c) and before.is_before(b) and not after.is_before(b)


def test_order_numbers_follow_moves() -> None:
    _, main, (a, b, c) = chain()
    assert a.is_before(c)
    main.body.append(a.detach())
    assert c.is_before(a) and b.is_before(a)
    assert main.body.last is a and len(main.body) == 4


def test_an_op_may_be_removed_while_iterating_over_it() -> None:
    _, main, ops = chain()
    seen = []
    for each in main.body:
        seen.append(each.name)
        if each in ops:
            each.replace_with(*each.inputs)
    assert seen == ["v0", "v1", "v2", "graph.return"]
    assert len(main.body) == 1


def test_arguments_are_renumbered_when_one_goes() -> None:
    function = Function("f")
    a, b, c = (function.add_argument(F32, n) for n in "abc")
    Sink(a)
    with pytest.raises(ValueError, match="'a' is still used"):
        function.body.remove_argument(0)
    function.body.remove_argument(1)
    assert [v.index for v in (a, c)] == [0, 1]
    assert b not in function.arguments


# -- the mutation counter ----------------------------------------------------------------------------------------------
def test_every_change_ticks_the_counter_and_reading_does_not() -> None:
    module, main, (a, _, c) = chain()
    changes = [
        lambda: c.set_operand(0, a.result),
        lambda: a.set_attribute("count", 2),
        lambda: a.infer_again(),
        lambda: main.body.append(Sink()),
        lambda: main.body.last.erase(),  # type: ignore[union-attr]
        lambda: main.add_argument(F32, "late"),
        lambda: main.body.remove_argument(1),
        lambda: module.add_constant("w", np.zeros(1)),
        lambda: module.drop_unused_constants(),
        lambda: module.add_function(Function("f")),
        lambda: module.remove_function("f"),
    ]
    for change in changes:
        before = module.version
        change()
        assert module.version > before
    before = module.version
    str(module)
    list(module.ops())
    a.is_before(c)
    c.set_operand(0, a.result)
    assert module.version == before


def test_changes_inside_a_kernel_tick_the_counter_of_its_module() -> None:
    module, main, _ = chain()
    inside = Region()
    inside.block.append(Yield())
    main.body.prepend(Kernel(types=[], regions=[inside]))
    before = module.version
    inside.block.prepend(Sink())
    assert module.version > before


# -- modules -----------------------------------------------------------------------------------------------------------
def test_equal_constants_of_one_name_are_one_and_others_get_a_suffix() -> None:
    module = Module()
    w = module.add_constant("w", np.arange(3))
    assert module.add_constant("w", np.arange(3)) is w
    assert module.add_constant("w", np.arange(4)).name == "w.1"
    assert module.add_constant("w", np.arange(3, dtype=np.int8)).name == "w.2"
    assert module.add_constant("w", np.arange(4)).name == "w.1"


def test_constants_are_read_only_and_hashed_by_type_shape_and_bytes() -> None:
    data = np.arange(4, dtype=np.float32)
    constant = Module().add_constant("w", data)
    with pytest.raises(ValueError, match="read-only"):
        constant.data[0] = 1
    data_hashes = {hash_of_array(a) for a in (data, data.reshape(2, 2), data.view(np.int32), data + 1)}
    assert len(data_hashes) == 4
    assert hash_of_array(data.reshape(2, 2).T) == hash_of_array(np.ascontiguousarray(data.reshape(2, 2).T))


def test_unused_constants_are_dropped_but_scales_that_a_type_names_stay() -> None:
    module, main, _ = chain()
    module.add_constant("unused", np.zeros(1))
    module.add_constant("scales", np.ones(2, np.float32))
    quant = QuantType(DType.I8, 0, axis=0, params="scales")
    main.body.prepend(Sink(module.add_constant("w", np.zeros((2, 2), np.int8), quant)))
    assert module.drop_unused_constants() == 1
    assert list(module.constants) == ["scales", "w"]


def test_a_clone_shares_data_but_no_values() -> None:
    module, main, (a, *_) = chain()
    main.body.insert_before(a, Sink(module.add_constant("w", np.arange(100))))
    clone = module.clone()
    assert modules_equal(module, clone)
    assert clone.constants["w"].data is module.constants["w"].data
    clone.main.body.first.erase()  # type: ignore[union-attr]
    clone.drop_unused_constants()
    assert len(module.constants["w"].uses) == 1
    assert not modules_equal(module, clone)


def test_output_names_are_the_values_names_unless_given() -> None:
    _, main, _ = chain()
    assert main.output_names == ("v2",)
    main.attributes["outputs"] = ("probabilities",)
    assert main.output_names == ("probabilities",)


# -- equality ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.attributes.update(batch=2), "module attributes"),
        (lambda m: m.main.attributes.update(outputs=("z",)), "attributes of @main"),
        (lambda m: m.add_constant("w", np.zeros(1)), "constants ['w']"),
        (lambda m: m.add_function(Function("f")), "functions"),
        (lambda m: m.main.body.first.set_attribute("count", 5), "count = 5"),
        (lambda m: m.main.body.first.set_attribute("ratio", -0.0), "ratio = -0.0"),
        (lambda m: setattr(m.main.body.first, "location", Location.of("n")), 'loc("n")'),
        (lambda m: setattr(m.main.body.first.result, "type", TensorType((1,), DType.I8)), "tensor<1xi8>"),
        (lambda m: setattr(m.main.body.first.result, "name", "renamed"), "renamed"),
        (lambda m: m.main.body.last.set_operand(0, m.main.arguments[0]), "return"),
        (lambda m: m.main.body.prepend(Sink()), "4 ops"),
        (lambda m: m.main.arguments[0].attributes.update(layout="NHWC"), "arguments of @main"),
    ],
)
def test_a_difference_is_said_in_words(change: object, said: str) -> None:
    module, _, _ = chain()
    other = module.clone()
    change(other)  # type: ignore[operator]
    assert said in (first_difference(module, other) or "equal")


def test_an_attribute_at_its_default_equals_an_absent_one() -> None:
    module, _, (a, *_) = chain()
    other = module.clone()
    a.set_attribute("count", 1)
    assert modules_equal(module, other) and str(module) == str(other)


def test_attribute_values_are_the_same_only_to_the_bit() -> None:
    nan = float("nan")
    assert same_attribute((1, nan, {"a": "b"}), (1, float("nan"), {"a": "b"}))
    for a, b in [(1, 1.0), (1, True), (0.0, -0.0), ((1,), (1, 1)), ({"a": 1}, {"b": 1}), ("f16", DType.F16)]:
        assert not same_attribute(a, b)


# -- declarations ------------------------------------------------------------------------------------------------------
def test_a_declaration_gives_access_by_name() -> None:
    x, b = Value(F32, "x"), Value(F32, "b")
    made = Optional(x, None, b, types=[F32, F32], names=["p", "q"])
    assert (made.x, made.a, made.b) == (x, None, b)
    assert (made.first.name, made.second.name) == ("p", "q")
    assert made.inputs == [x, b]
    unary = Unary(x)
    unary.count = np.int64(4)
    assert unary.attributes == {"count": 4} and unary.ratio == 0.0


def test_defaults_are_brought_to_normal_form() -> None:
    @op("test.defaults")
    class Defaults(Op):
        values = operand(variadic=True)
        ratio = attr(float, default=1)
        y = result()

    assert Defaults.signature.attributes["ratio"].default.hex() == "0x1.0000000000000p+0"
    assert Defaults(ratio=1.0, types=[F32]).attributes == {}
    del OPS["test.defaults"]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"cuont": 1}, "has no attribute 'cuont'"), ({"count": 1.5}, "'count' must be integer, not 1.5"),
        ({"count": True}, "must be integer"), ({"flag": 1}, "must be boolean"), ({"word": 1}, "must be string"),
        ({"pair": (1, 2, 3)}, "must be pair of integers"), ({"mode": "up"}, "must be one of near, far"),
        ({"to": "f17"}, "must be element type"), ({"anything": object()}, "must be any"),
    ],
)  # fmt: skip
def test_a_wrong_attribute_is_refused_by_name(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        Unary(Value(F32), **attributes)


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((), "operand 'a' is missing"), ((F32,), "operand 'b' is missing"),
        ((F32, F32, F32), "takes 2 operands, not 3"),
        ((F32, TensorType((2,), DType.F32)), "operand 'b' must have rank 2, not 1"),
        ((F32, TensorType((2, 2), DType.I8)), "operand 'b' must be one of f32, not i8"),
        ((F32, TensorType((3, 2), DType.F32)), "a has 2 rows, b has 3"),
    ],
)  # fmt: skip
def test_wrong_operands_are_refused(operands: tuple[TensorType, ...], message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        Matched(*(Value(t) for t in operands), axis=0)


def test_a_missing_attribute_is_refused() -> None:
    with pytest.raises(CompilerError, match="attribute 'axis' is missing"):
        Matched(Value(F32), Value(F32))


def test_families_are_found_by_prefix() -> None:
    found = find_op("graph.call")
    assert found is not None and found.signature.name == "graph.call"
    assert find_op("graph.nothing") is None and find_op("nothing") is None


# -- types and locations -----------------------------------------------------------------------------------------------
def test_position_and_scale_follow_the_chip() -> None:
    assert position_and_scale(127.0, 8) == (0, 1.0)
    assert position_and_scale(0.0, 8) == (-6, 1.0)
    assert position_and_scale(float("inf"), 16) == (-14, 1.0)
    position, scale = position_and_scale(3.0, 8)
    assert position == -5 and scale == float(np.float32(127 * 2.0**-5 / 3.0))


def test_the_step_is_the_imported_one_where_given() -> None:
    assert QuantType(DType.I8, -6, 2.0).real_step == 2.0**-7
    assert QuantType(DType.I8, -6, 2.0, step=0.5).real_step == 0.5


def test_a_type_must_store_what_its_quantisation_says() -> None:
    with pytest.raises(ValueError, match="differs from element type"):
        TensorType((1,), DType.F32, QuantType(DType.I8, 0))
    assert F32.with_quant(QuantType(DType.I8, 0)).dtype is DType.I8
    assert TensorType((None, 2), DType.F32).is_static is False
    with pytest.raises(ValueError, match="not static"):
        _ = TensorType((None,), DType.F32).elements


def test_locations_unite_sorted_and_without_repetition() -> None:
    united = Location.of("b", "m.onnx") | Location.of("a", "m.onnx") | Location.of("b", "m.onnx")
    assert united.nodes == ("a", "b") and str(united) == "m.onnx: node 'a', node 'b'"
    assert not UNKNOWN and (UNKNOWN | united) == united
    assert str(Source(types=[], location=united).location) == str(united)
