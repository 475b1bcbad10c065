"""What the verifier finds, and how it shows it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from strategies import Matched, Optional, Sink, Source, Unary

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Constant, Function, Module, Op, Region, Value
from compiler.ir.location import Location
from compiler.ir.parser import parse_module
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ir.verifier import LEVELS, faults, rules_of, verify
from compiler.ops.graph import Call, Kernel, Return, Yield
from tests.growth import LINEAR, exponent

F32 = TensorType((2, 3), DType.F32)


def module_with_main() -> tuple[Module, Function, Value]:
    module = Module({"source": "net.onnx"})
    main = module.add_function(Function("main"))
    return module, main, main.add_argument(F32, "x")


def only_fault(module: Module, level: str | None = None) -> Diagnostic:
    (fault,) = faults(module, level)
    return fault


def kernel_of(x: Value, *ops: Op) -> Kernel:
    """A kernel that yields its argument after `ops`."""
    inside = Region()
    a = inside.block.add_argument(x.type, "a")
    for op in ops:
        inside.block.append(op)
    inside.block.append(Yield(a))
    return Kernel(x, types=[x.type], names=["k"], regions=[inside])


def test_a_valid_module_passes() -> None:
    module, main, x = module_with_main()
    y = main.body.append(Unary(x, names=["y"])).result
    main.body.append(Return(main.body.append(kernel_of(y)).result))
    verify(module)


def test_a_fault_shows_the_op_the_operands_and_their_producers() -> None:
    module, main, x = module_with_main()
    w = module.add_constant("w", np.zeros((2, 2), np.float32))
    relu = main.body.append(Unary(x, names=["r16"], location=Location.of("Relu_16", "net.onnx")))
    op = main.body.append(Matched(relu.result, w, axis=0, names=["c17"], location=Location.of("Conv_17", "net.onnx")))
    relu.result.type = TensorType((5, 3), DType.F32)
    main.body.append(Return(op.result))
    shown = [f.render() for f in faults(module)]
    assert shown[1] == (
        "error[E304] test.matched: a has 5 rows, b has 2\n"
        "  net.onnx: node 'Conv_17'\n"
        "    %c17 = test.matched %r16, @w {axis = 0} : tensor<2x3xf32>\n"
        "                        ^^^^ tensor<5x3xf32>, produced by 'Relu_16'\n"
        "                              ^^ tensor<2x2xf32>, a constant"
    )
    first = "error[E307] test.unary: result type is tensor<5x3xf32>, its operands give tensor<2x3xf32>"
    assert shown[0].splitlines()[0] == first


def test_a_fault_of_one_operand_points_at_that_operand() -> None:
    module, main, x = module_with_main()
    w = module.add_constant("w", np.zeros((2, 2), np.int8))
    main.body.append(Matched(x, w, axis=0, types=[F32], names=["y"]))
    main.body.append(Return(x))
    fault = only_fault(module)
    assert fault.message == "operand 'b' must be one of f32, not i8"
    assert fault.excerpt.splitlines()[1:] == ["                      ^^ tensor<2x2xi8>, a constant"]


def test_every_fault_is_collected() -> None:
    module, main, x = module_with_main()
    late = Unary(x, names=["late"])
    main.body.append(Matched(x, x, axis=0, types=[TensorType((9,), DType.F32)], names=["a"]))
    main.body.append(Unary(late.result, names=["b"]))
    main.body.append(late)
    module.constants["gone"] = Constant(module, "other", np.zeros(1, np.float32))
    assert sorted(f.code for f in faults(module)) == ["E305", "E306", "E307", "E308"]


# -- structure ---------------------------------------------------------------------------------------------------------
def test_an_empty_function_lacks_its_return() -> None:
    module, _, _ = module_with_main()
    assert only_fault(module).message == "has no ops; it must end with graph.return"


def test_a_terminator_must_stand_last_and_be_the_right_one() -> None:
    module, main, x = module_with_main()
    main.body.append(Return(x))
    main.body.append(Sink(x))
    messages = [f.message for f in faults(module)]
    assert messages == ["ends the block but does not stand last", "stands last; the block must end with graph.return"]
    main.body.last.erase()  # type: ignore[union-attr]
    main.body.last.erase()  # type: ignore[union-attr]
    main.body.append(Yield(x))
    assert only_fault(module).message == "stands last; the block must end with graph.return"


def test_a_kernel_must_end_with_yield() -> None:
    module, main, x = module_with_main()
    kernel = kernel_of(x)
    kernel.regions[0].block.last.erase()  # type: ignore[union-attr]
    main.body.append(kernel)
    main.body.append(Return(x))
    assert [f.message for f in faults(module)] == [
        "region does not end with graph.yield", "has no ops; it must end with graph.yield",
    ]  # fmt: skip


def test_kernels_do_not_nest() -> None:
    module, main, x = module_with_main()
    outer = kernel_of(x)
    inside = outer.regions[0].block
    inside.prepend(kernel_of(inside.arguments[0]))
    main.body.append(Return(main.body.append(outer).result))
    assert "kernels do not nest" in only_fault(module).message


def nested_choices(depth: int) -> str:
    """A module with choices inside choices, as text."""
    lines = ["// mluc ir 1", "func @main(%c: tensor<bool>, %x: tensor<2xf32>) -> (tensor<2xf32>) {"]
    for i in range(depth):
        outer = i - 1 if i else ""
        lines += [f"%r{i} = graph.if %c{outer}, %c{outer}, %x{outer} {{",
                  f"(%c{i}: tensor<bool>, %x{i}: tensor<2xf32>):"]  # fmt: skip
    for i in reversed(range(depth)):
        lines += [f"yield {f'%x{i}' if i == depth - 1 else f'%r{i + 1}'}", "} {",
                  f"(%d{i}: tensor<bool>, %y{i}: tensor<2xf32>):", f"yield %y{i}", "} : tensor<2xf32>"]  # fmt: skip
    return "\n".join([*lines, "return %r0", "}"]).replace("bool", str(DType.BOOL))


def test_choices_nest_but_not_without_end() -> None:
    module = parse_module(nested_choices(40))
    assert faults(module) == []
    assert sum(op.op_name == "graph.if" for op in module.ops()) == 40
    assert {f.message for f in faults(parse_module(nested_choices(41)))} == {"regions are nested more than 40 deep"}
    with pytest.raises(CompilerError, match="regions are nested more than 50 deep"):
        parse_module(nested_choices(60))


def test_broken_links_are_found_without_walking_in_circles() -> None:
    module, main, x = module_with_main()
    first = main.body.append(Sink(x))
    main.body.append(Sink(x))
    main.body.append(Return(x))
    first.next.next = first  # type: ignore[union-attr]
    assert "links between its ops are broken" in only_fault(module).message


def test_broken_links_inside_a_kernel_are_found() -> None:
    module, main, x = module_with_main()
    kernel = main.body.append(kernel_of(x, Source(types=[])))
    kernel.regions[0].block.last.next = kernel.regions[0].block.first  # type: ignore[union-attr]
    main.body.append(Unary(Value(F32, "lost")))
    main.body.append(Return(x))
    assert "links between its ops are broken" in only_fault(module).message


def test_use_lists_must_agree_with_operands() -> None:
    module, main, x = module_with_main()
    sink = main.body.append(Sink(x))
    main.body.append(Return(x))
    y = Value(F32, "y")
    sink._operands[0] = y
    messages = " / ".join(f.message for f in faults(module))
    assert "lists operand 0 of test.sink as a use, which takes another value" in messages
    assert "operand 0 does not list this op as its use" in messages


def test_a_detached_user_is_a_leak() -> None:
    module, main, x = module_with_main()
    main.body.append(Return(x))
    Sink(x)
    assert "still used by a detached test.sink" in only_fault(module).message


def test_functions_and_constants_must_be_filed_under_their_names() -> None:
    module, main, x = module_with_main()
    main.body.append(Return(x))
    module.functions["other"] = module.functions.pop("main")
    assert only_fault(module).message == "is filed as @other"


def test_names_of_outputs_must_be_as_many_as_outputs() -> None:
    module, main, x = module_with_main()
    main.attributes["outputs"] = ("a", "b")
    main.body.append(Return(x))
    assert only_fault(module).message == "attribute 'outputs' names 2 values, 1 are returned"


def test_the_number_of_results_must_be_as_declared() -> None:
    module, main, x = module_with_main()
    main.body.append(Unary(x, types=[F32, F32]))
    main.body.append(Optional(x, types=[F32]))
    main.body.append(Return(x))
    assert [f.message for f in faults(module)] == ["gives 1 results, not 2", "gives 2 results, not 1"]


def test_attributes_must_be_what_text_can_hold() -> None:
    module, main, x = module_with_main()
    main.body.append(Return(x))
    module.attributes["k"] = object()
    main.arguments[0].attributes["layout"] = {1, 2}
    main.body.prepend(op := Unary(x))
    op.attributes["mode"] = "elsewhere"
    assert [f.message for f in faults(module)] == [
        "attribute 'k': object cannot be an attribute", "attribute 'layout': set cannot be an attribute",
        "attribute 'mode' must be one of near, far, not 'elsewhere'",
    ]  # fmt: skip


# -- dominance ---------------------------------------------------------------------------------------------------------
def operand_fault(value_of: str) -> Diagnostic:
    """The fault of a sink in @main that takes a value from where `value_of` says."""
    module, main, x = module_with_main()
    other = module.add_function(Function("other"))
    y = other.add_argument(F32, "y")
    other.body.append(Return(y))
    kernel = main.body.append(kernel_of(x))
    main.body.append(Return(x))
    later = Unary(x, names=["later"])
    main.body.insert_before(main.body.terminator, later)
    detached = Source(types=[F32], names=["detached"])
    values = {
        "later": later.result, "other function": y, "kernel": kernel.regions[0].block.arguments[0],
        "detached": detached.results[0], "foreign constant": Module().add_constant("w", np.zeros(1)),
    }  # fmt: skip
    main.body.insert_after(kernel, Sink(values[value_of]))
    return only_fault(module)


@pytest.mark.parametrize(
    ("value_of", "code", "message"),
    [
        ("later", "E306", "takes 'later' before it is defined"),
        ("other function", "E306", "takes 'y' of @other"),
        ("kernel", "E306", "takes 'a' of another block"),
        ("detached", "E306", "takes 'detached', whose op is in no block"),
        ("foreign constant", "E308", "takes constant @w, which is not in the module"),
    ],
)
def test_an_operand_must_be_defined_before_in_the_same_block(value_of: str, code: str, message: str) -> None:
    fault = operand_fault(value_of)
    assert (fault.code, fault.message) == (code, message)
    assert fault.help and "^" in fault.excerpt


def test_outer_values_inside_a_kernel_are_refused_and_constants_are_not() -> None:
    module, main, x = module_with_main()
    w = module.add_constant("w", np.zeros(1, np.float32))
    main.body.append(kernel_of(x, Sink(x, w)))
    main.body.append(Return(x))
    assert only_fault(module).message == "takes 'x' of another block"


def test_an_op_that_takes_its_own_result_is_named() -> None:
    module, main, x = module_with_main()
    op = main.body.append(Unary(x, names=["y"]))
    op.set_operand(0, op.result)
    main.body.append(Return(x))
    assert only_fault(module).message == "takes its own result 'y'"


# -- calls -------------------------------------------------------------------------------------------------------------
def test_calls_must_fit_their_callee_and_not_recurse() -> None:
    module, main, x = module_with_main()
    main.body.append(Call(x, callee="nowhere", types=[F32]))
    main.body.append(Call(callee="main", types=[F32]))
    main.body.append(Return(x))
    messages = [f.message for f in faults(module)]
    assert messages == [
        "calls @nowhere, which the module does not have", "argument types differ from those of @main",
        "@main calls itself through @main",
    ]  # fmt: skip


def test_a_circle_of_calls_is_found_once() -> None:
    text = "".join(
        f'func @{a}() {{\n  graph.call {{callee = "{b}"}}\n  return\n}}\n' for a, b in ("ab", "bc", "cb")
    )
    fault = only_fault(parse_module(text))
    assert fault.message == "@b calls itself through @c"


# -- quantised types ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("quant", "message"),
    [
        (QuantType(DType.I8, 0, 0.0), "scale 0.0 is not a positive number"),
        (QuantType(DType.I8, 0, float("nan")), "scale nan is not a positive number"),
        (QuantType(DType.I8, 0, 0.1), "scale 0.1 is not an fp32 number"),
        (QuantType(DType.I8, 0, 1.0, step=-1.0), "step -1.0 is not a positive number"),
        (QuantType(DType.I8, 400), "position 400 is not an exponent of fp32"),
        (QuantType(DType.I8, 0, zero_point=128), "zero point 128 is not a number of type i8"),
        (QuantType(DType.I8, 0, axis=0), "axis and params belong together"),
        (QuantType(DType.I8, 0, axis=2, params="s"), "axis 2 is not one of the 2 axes"),
        (QuantType(DType.I8, 0, axis=0, params="t"), "the module has no constant @t"),
        (QuantType(DType.I8, 0, axis=0, params="i"), "must be one-dimensional f32"),
        (QuantType(DType.I8, 0, axis=1, params="s"), "@s has 2 scales, axis 1 has 3 elements"),
    ],
)
def test_a_quantised_type_must_make_sense(quant: QuantType, message: str) -> None:
    module, main, x = module_with_main()
    module.add_constant("s", np.ones(2, np.float32))
    module.add_constant("i", np.ones(2, np.int32))
    main.body.append(Source(types=[TensorType((2, 3), DType.I8, quant)], names=["q"]))
    main.body.append(Return(x))
    fault = only_fault(module)
    assert fault.code == "E308" and message in fault.message and fault.where == "value 'q'"


# -- levels ------------------------------------------------------------------------------------------------------------
SUBNET = """func @main(%x: tensor<1xf32>) -> (tensor<1xf32>) {{
  %y = graph.call %x {{callee = "subnet0"}} : tensor<1xf32>
  return %y
}}
func @subnet0(%x: tensor<1xf32>) -> (tensor<1xf32>) attributes {{target = "mlu220"}} {{
  {body}
}}
"""


def test_after_partition_main_holds_only_calls() -> None:
    module, main, x = module_with_main()
    main.body.append(Return(main.body.append(Unary(x, names=["y"])).result))
    assert faults(module) == []
    assert "holds only calls" in only_fault(module, "partition").message


def test_after_partition_shapes_are_known_except_in_host_functions() -> None:
    text = SUBNET.format(body="%y = test.source : tensor<?xf32>\n  return %x")
    host = text.replace('"mlu220"', '"host"')
    assert only_fault(parse_module(text), "partition").message == "its result has unknown dimensions"
    assert faults(parse_module(host), "partition") == []


def test_after_legalize_subnets_hold_only_ops_of_the_target() -> None:
    module = parse_module(SUBNET.format(body="%y = test.unary %x\n  return %y"))
    assert faults(module, "partition") == []
    fault = only_fault(module, "legalize")
    assert (fault.code, fault.op) == ("E309", "test.unary")


def test_after_legalize_no_type_of_a_subnet_has_a_zero_point() -> None:
    body = "%q = graph.kernel {\n    ():\n    yield\n  }\n  return %x"
    text = SUBNET.format(body=body).replace("xf32>", "xu8, quant<u8, position = 0, scale = 1.0, zero_point = 3>>")
    text = text.replace("%q = ", "")
    assert faults(parse_module(text), "partition") == []
    assert "zero point" in only_fault(parse_module(text), "legalize").message


def test_after_schedule_every_kernel_has_a_schedule() -> None:
    body = "%k = graph.kernel %x {\n    (%a: tensor<1xf32>):\n    yield %a\n  } : tensor<1xf32>\n  return %k"
    module = parse_module(SUBNET.format(body=body))
    assert faults(module, "fuse-layers") == []
    assert only_fault(module, "schedule").message == "has no schedule after schedule"


def test_levels_keep_the_rules_of_those_before_and_unknown_ones_are_refused() -> None:
    counts = [len(rules_of(level.name)) for level in LEVELS]
    assert counts == sorted(counts)
    with pytest.raises(ValueError, match="levels are partition, legalize"):
        verify(Module(), level="lowered")


def test_thousands_of_faults_take_no_quadratic_time() -> None:
    def verifying(count: int) -> Callable[[], list[Diagnostic]]:
        module, main, x = module_with_main()
        for _ in range(count):
            main.body.append(Unary(x, types=[TensorType((7,), DType.F32)]))
        main.body.append(Return(x))
        return lambda: faults(module)

    assert len(verifying(400)()) == 400
    assert exponent(verifying, 400, 3200) < LINEAR
