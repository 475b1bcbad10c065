"""IR text to modules, and what the parser says of text that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import strategies  # noqa: F401 - declares the test ops

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Module, hash_of_array
from compiler.ir.location import Location
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ir.types import DType, QuantType, TensorType
from tests.growth import LINEAR, exponent

T = "tensor<2xf32>"


def faults_of(text: str, **options: object) -> list[Diagnostic]:
    with pytest.raises(CompilerError) as caught:
        parse_module(text, **options)  # type: ignore[arg-type]
    return list(caught.value.diagnostics)


def only_fault(text: str, **options: object) -> Diagnostic:
    (fault,) = faults_of(text, **options)
    return fault


def in_main(*lines: str) -> str:
    return "\n".join([f"func @main(%x: {T}) {{", *(f"  {line}" for line in lines), "}", ""])


def parsed_attribute(text: str) -> object:
    return parse_module(f"module {{k = {text}}}").attributes["k"]


# -- what parses -------------------------------------------------------------------------------------------------------
def test_the_look_of_the_design_parses() -> None:
    text = """// mluc ir 1
module {source = "net.onnx"}
#act0 = quant<i8, position = -6, scale = 1.682119>
#w1   = quant<i8, position = -7, axis = 0, params = @conv1.w.q>
const @conv1.w.q : tensor<2xf32> = dense<[1.0, 2.0]>
const @conv1.w : tensor<2x3xi8, #w1> = dense<7>   // splat
func @main(%image: tensor<1x3xf32>) -> (tensor<1x3xf32>) {
  %q0 = test.source : tensor<1x3xi8, #act0>                          loc("data")

  // a comment of its own
  %c1 = test.optional %q0, _, @conv1.w
                                : tensor<1x3xf32>, tensor<f32>       loc("Conv_0", "other.onnx":"bn")
  return %image
}
"""
    fixed = text.replace("%c1 =", "%c1, %c2 =")
    main = parse_module(fixed).main
    q0, c1, last = main.body
    assert q0.results[0].type.quant == QuantType(DType.I8, -6, float(np.float32(1.682119)))
    assert c1.location == Location((("net.onnx", "Conv_0"), ("other.onnx", "bn")))
    assert c1.operands[1] is None and c1.operands[2] is main.module.constants["conv1.w"]  # type: ignore[union-attr]
    assert last.op_name == "graph.return"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-3", -3), ("1.0", 1.0), ("1e-05", 1e-5), ("-inf", float("-inf")), ("true", True), ("none", None),
        ('"a // b"', "a // b"), ('"\\u00e4\\n"', "ä\n"), ("f16", DType.F16), ("[]", ()), ("[1, 2]", (1, 2)),
        ("[1, 2.0, [true]]", (1, 2.0, (True,))), ('{a = 1, "b c" = {}}', {"a": 1, "b c": {}}),
        ("[\n  1,\n  2\n]", (1, 2)), ("{\n  a = 1 // one\n}", {"a": 1}),
    ],
)  # fmt: skip
def test_attribute_values_parse_to_their_kind(text: str, value: object) -> None:
    found = parsed_attribute(text)
    assert found == value and type(found) is type(value)


def test_result_types_may_be_left_out_where_the_op_has_a_rule() -> None:
    module = parse_module(in_main("%y = test.unary %x", "return %y"))
    assert module.main.body.first.result.type == TensorType((2,), DType.F32)  # type: ignore[union-attr]


def test_attributes_and_types_may_stand_on_lines_of_their_own() -> None:
    text = in_main("%y = test.unary %x {", "  count = 2,", "  pair = [1,", "   2]}", f"  : {T}", '  loc("n")')
    op = parse_module(text).main.body.first
    assert op is not None and op.attributes == {"count": 2, "pair": (1, 2)} and op.location.nodes == ("n",)


def test_functions_may_be_empty_or_have_attributes() -> None:
    module = parse_module('func @a() {\n}\nfunc @"b c"() -> () attributes {outputs = ["y"]} {\n  return\n}\n')
    assert module.functions["a"].body.last is None
    assert module.functions["b c"].attributes == {"outputs": ("y",)}


def test_a_terminator_may_be_written_with_its_full_name() -> None:
    assert str(parse_module(in_main("graph.return %x"))) == str(parse_module(in_main("return %x")))


def test_constants_are_read_by_element_type() -> None:
    text = """const @a : tensor<2xf16> = dense<[0x7e01, 1.5]>
const @b : tensor<2x2xi1> = dense<[true, false, 1, 0]>
const @c : tensor<3xbf16> = dense<0.1>
const @d : tensor<2xi16> = hex<0100ff7f>
const @e : tensor<0x4xf32> = dense<>
const @f : tensor<u64> = dense<18446744073709551615>
"""
    constants = parse_module(text).constants
    assert constants["a"].data.view(np.uint16).tolist() == [0x7E01, 0x3E00]
    assert constants["b"].data.tolist() == [[True, False], [True, False]]
    assert constants["c"].data.shape == (3,)
    assert constants["d"].data.tolist() == [1, 32767]
    assert constants["e"].data.shape == (0, 4)
    assert int(constants["f"].data) == 2**64 - 1


def test_blobs_are_found_by_whole_hash_or_prefix() -> None:
    data = np.arange(40, dtype=np.float32)
    digest = hash_of_array(data)
    text = f"const @w : tensor<40xf32> = blob<sha256:{digest[:16]}, 160 B>\n"
    for key in (digest, digest[:16], digest[:8]):
        assert parse_module(text, blobs={key: data}).constants["w"].hash == digest


def test_values_of_a_kernel_are_its_own_and_constants_are_seen_inside() -> None:
    text = f"""const @w : {T} = dense<1.0>
func @main(%x: {T}) -> ({T}) {{
  %k = graph.kernel %x {{schedule = {{split = "rows"}}}} {{
    (%a: {T}):
      %t = test.unary %a
      test.sink %t, @w
      yield %t
  }} : {T}  loc("n")
  return %k
}}
"""
    kernel = parse_module(text).main.body.first
    assert kernel is not None and kernel.location.nodes == ("n",)
    assert [op.op_name for op in kernel.regions[0].block] == ["test.unary", "test.sink", "graph.yield"]
    assert kernel.regions[0].op is kernel


def test_an_op_may_hold_several_regions() -> None:
    text = in_main("%y = test.branch %x {", "  ():", "    yield", "} {", "  ():", "    yield", f"}} : {T}", "return %y")
    op = parse_module(text).main.body.first
    assert op is not None and [len(r.block) for r in op.regions] == [1, 1]


# -- faults ------------------------------------------------------------------------------------------------------------
def test_a_fault_shows_file_line_column_the_source_and_a_caret() -> None:
    fault = only_fault(in_main("%y = test.unary %z", "return %y"), file="net.mlu")
    assert fault.render() == (
        "error[E312] test.unary: there is no value %z in this function\n"
        "  net.mlu:2:19\n"
        "      %y = test.unary %z\n"
        "                      ^^\n"
        "  help: known: x"
    )


def test_every_fault_is_reported_once_in_the_order_of_the_text() -> None:
    text = f"""#a = quant<i8, positon = 1>
const @w : tensor<3xf32> = dense<[1.0, 2.0]>
const @v : tensor<3xf33> = dense<0>
func @main(%x: {T}) {{
  %a = test.unry %x : {T}
  %b = test.unary %a, @w, @v {{cuont = 1}} : {T}
  %c = test.unary %b {{count = "one"}} : {T}
  %d = test.unary %c %x : {T}
  %e = test.unary %d : {T}, {T}
  %e = test.unary %nothing : {T}
  return %e
}}
"""
    found = [(int(f.where.split(":")[1]), f.code) for f in faults_of(text)]
    assert found == [
        (1, "E315"), (2, "E317"), (3, "E315"), (5, "E311"), (6, "E302"), (7, "E301"), (8, "E310"), (9, "E318"),
        (10, "E313"), (10, "E312"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "message", "help"),
    [
        ("%y = test.unray %x", "E311", "there is no op 'test.unray'", "'test.unary'"),
        ("%y = test.unary %x {modes = 1}", "E302", "has no attribute 'modes'", "'mode'"),
        ('%y = test.unary %x {mode = "nera"}', "E301", "must be one of near, far, not 'nera'", ""),
        ("%y = test.unary %x {count = 1, count = 2}", "E313", "given twice", ""),
        ("%y = test.unary %x {word = near}", "E310", "'near' is not a value", 'a string is written "near"'),
        ("%y = test.unary %x : tensor<2xf23>", "E315", "no element type 'f23'", "'f32'"),
        ("%y = test.unary %x : tensor<2f32>", "E315", "is not a type", "tensor<1x3x224x224xf32>"),
        ("%y = test.unary %x : tensor<2xi8, #q>", "E315", "there is no alias #q", ""),
        ("%y = test.unary @w", "E316", "there is no constant @w", ""),
        ("%y, %z = test.unary %x", "E318", "gives 1 results, 2 are named", ""),
        ("test.unary %x", "E318", "gives 1 results, 0 are named", ""),
        ("%y = test.unary %x : tensor<f32>, tensor<f32>", "E318", "1 results are named, 2 types are given", ""),
        ("%y = test.source", "E303", "result types must be given", ""),
        ("%y = test.matched %x, %x {axis = 0}", "E304", "must have rank 2, not 1", ""),
        ('%y = test.unary %x loc("a" "b")', "E310", "cannot read loc", ""),
        ("%y = test.unary %x : ", "E310", "the statement ends too early", "expected a type"),
        ("%y = test.unary %x ! 3", "E310", "unexpected '!'", ""),
        ('%y = test.unary %x {word = "open}', "E310", "unexpected '\"'", ""),
        ("%y = ", "E310", "the statement ends too early", "expected a name"),
        (f"%y = test.unary %x {{count = {'9' * 5000}}}", "E310", "a number of 5000 digits", ""),
        (f"%y = test.unary %x {{anything = [{'9' * 5000}]}}", "E310", "more than 1000 digits", ""),
        (f"%y = test.unary %x {{anything = {'[' * 999 + ']' * 999}}}", "E310", "nest deeper than 50", ""),
        (f"%y = test.unary %x : tensor<{'9' * 5000}xf32>", "E315", "is not a type", ""),
    ],
)
def test_a_wrong_op_is_reported_at_the_wrong_part(line: str, code: str, message: str, help: str) -> None:
    faults = faults_of(in_main(line, "return %x"))
    assert [f.code for f in faults][:1] == [code], faults
    assert message in faults[0].message
    assert help in faults[0].help
    assert len({f.code for f in faults}) == 1


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("const @c : tensor<2xf32> = dense<[1.0, 2.0, 3.0]>", "E317", "3 elements given, the type has 2"),
        ("const @c : tensor<2xi8> = dense<[1, 300]>", "E317", "'300' is not a number of type i8"),
        ("const @c : tensor<2xf32> = dense<[1.0, x]>", "E317", "'x' is not a number of type f32"),
        ("const @c : tensor<2xi1> = dense<[true, maybe]>", "E317", "'maybe' is not a number of type i1"),
        ("const @c : tensor<2xi8> = hex<00>", "E317", "1 bytes given, the type has 2"),
        ("const @c : tensor<2xi8> = hex<0g00>", "E317", "not hexadecimal"),
        ("const @c : tensor<?xi8> = dense<0>", "E315", "unknown dimensions"),
        ("const @c : tensor<2xi8> = blob<sha256:00112233445566, 2 B>", "E320", "side file that was not given"),
        ("const @c : tensor<999999x999999x999999xi8> = dense<0>", "E317", "at most 8589934592 B are read"),
        ("const @c : tensor<2xi8> = blob<md5:00>", "E317", "cannot read"),
        ("#q = quant<i8, scale = 2.0>", "E315", "needs a position"),
        ("#q = quant<i8, position = 1, position = 2>", "E315", "given twice"),
        ("#q = quant<i8, position = 1.5>", "E315", "must be an integer"),
        ("#q = quant<i8, position = 1, scale = much>", "E315", "must be a number"),
        ("#q = quant<i8, position = 1, axis = 0, params = w>", "E315", "must be a constant's name"),
        ("#q = quant<i9, position = 1>", "E315", "no element type 'i9'"),
        ("const @c : tensor<1xf32, quant<i8, position = 0>> = dense<0>", "E315", "the quantisation stores i8"),
        ("return", "E319", "an op stands outside any function"),
        ("}", "E319", "nothing is open"),
        ("(%a: tensor<f32>):", "E319", "region arguments stand where no region begins"),
        ("func @f() {", "E319", "still open at the end of the file"),
        ("// mluc ir 9\nfunc @f() {\n}", "E319", "format 9"),
    ],
)
def test_a_wrong_line_of_the_module_is_reported(line: str, code: str, message: str) -> None:
    fault = only_fault(line + "\n")
    assert (fault.code, message in fault.message) == (code, True), fault.render()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#q = quant<i8, position = 1>\n#q = quant<i8, position = 1>\n", "alias #q is defined twice"),
        ("const @c : tensor<f32> = dense<0>\nconst @c : tensor<f32> = dense<0>\n", "constant @c is defined twice"),
        ("func @f() {\n}\nfunc @f() {\n}\n", "function @f is defined twice"),
        ("func @f(%x: tensor<f32>, %x: tensor<f32>) {\n}\n", "value %x is defined twice"),
        ("module {a = 1}\nmodule {a = 1}\n", "module line is given twice"),
    ],
)
def test_a_second_definition_is_an_error(text: str, message: str) -> None:
    assert message in only_fault(text).message


def test_a_use_before_its_definition_says_where_that_is() -> None:
    fault = only_fault(in_main("%y = test.unary %z", "%z = test.unary %x", "return %y"))
    assert fault.message == "value %z is used before it is defined, at line 3"


def test_an_outer_value_inside_a_kernel_says_how_to_bring_it_in() -> None:
    inside = [f"(%a: {T}):", "  %t = test.unary %x", "  yield %t"]
    text = in_main("%k = graph.kernel %x {", *inside, f"}} : {T}", "return %k")
    fault = only_fault(text)
    assert "defined outside this region" in fault.message and "operand of the kernel" in fault.help


def test_values_of_another_function_are_unknown() -> None:
    text = f"func @f(%x: {T}) {{\n  return %x\n}}\nfunc @g() {{\n  return %x\n}}\n"
    assert only_fault(text).where == "<text>:5:10"


def test_declared_results_must_be_those_returned() -> None:
    fault = only_fault(f"func @f(%x: {T}) -> (tensor<3xf32>) {{\n  return %x\n}}\n")
    assert (fault.code, fault.where) == ("E318", "<text>:1:32")


def test_a_broken_function_line_hides_neither_its_body_nor_the_next_function() -> None:
    text = f"func @f(%x: {T} -> () {{\n  %y = test.unary %x\n  return %q\n}}\nfunc @g() {{\n  return %r\n}}\n"
    assert [(f.code, f.where) for f in faults_of(text)] == [
        ("E310", "<text>:1:27"), ("E312", "<text>:3:10"), ("E312", "<text>:6:10"),
    ]  # fmt: skip


def test_a_bracket_left_open_costs_one_statement() -> None:
    text = in_main("%y = test.unary %x {pair = [1, 2} : tensor<2xf32>", "%z = test.unary %y", "return %w")
    assert [f.where for f in faults_of(text)] == ["<text>:2:35", "<text>:4:10"]


def test_a_broken_kernel_line_does_not_unbalance_the_blocks() -> None:
    text = in_main("%k = graph.kernel %x %x {", f"(%a: {T}):", "  yield %a", f"}} : {T}", "return %k")
    assert [f.code for f in faults_of(text + "func @other() {\n  return\n}\n")] == ["E310"]


def test_a_function_left_open_is_reported_where_the_next_begins() -> None:
    assert [f.where for f in faults_of("func @f() {\n  return\nfunc @g() {\n  return\n}\n")] == ["<text>:3:1"]


def test_a_file_that_is_not_ir_gives_a_bounded_number_of_faults() -> None:
    assert len(faults_of("lorem ipsum\n" * 1000)) < 100


def test_a_wide_line_is_cut_around_the_fault() -> None:
    line = f"const @c : tensor<2xi8> = hex<{'00' * 5000}> oops"
    fault = only_fault(line)
    assert len(fault.excerpt) < 500 and "oops" in fault.excerpt


@pytest.mark.parametrize("damage", ["missing", "other shape", "other bytes", "other size"])
def test_a_side_file_that_does_not_fit_is_refused(damage: str) -> None:
    data = np.arange(40, dtype=np.float32)
    digest = hash_of_array(data)
    size = 164 if damage == "other size" else 160
    blobs = {"missing": {}, "other shape": {digest: data.reshape(2, 20)}, "other bytes": {digest: data + 1}}
    text = f"const @w : tensor<40xf32> = blob<sha256:{digest[:16]}, {size} B>"
    fault = only_fault(text, blobs=blobs.get(damage, {digest: data}))
    assert fault.code == ("E320" if damage == "missing" else "E321")


def test_parsing_takes_time_linear_in_the_ops() -> None:
    def parsing(ops: int) -> Callable[[], Module]:
        lines = [f'%v{i + 1} = test.unary %v{i} {{count = 2, pair = [2, 2]}} : {T}  loc("node{i}")' for i in range(ops)]
        text = in_main(f"%v0 = test.unary %x : {T}", *lines, f"return %v{ops}")
        return lambda: parse_module(text)

    assert len(parsing(500)().main.body) == 502
    assert exponent(parsing, 500, 4000) < LINEAR


def test_what_was_parsed_prints_the_same() -> None:
    line = '%"a/b" = test.unary %x {ratio = -0.0, table = {a = [1, 2.0]}}'
    module: Module = parse_module(in_main(line, 'return %"a/b"'))
    assert print_module(parse_module(print_module(module))) == print_module(module)
    assert "{ratio = -0.0, table = {a = [1, 2.0]}}" in print_module(module)
