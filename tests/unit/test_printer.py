"""How the IR looks as text."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from strategies import Branch, Optional, Sink, Source, Unary

from compiler.ir.core import Constant, Function, Module, Region
from compiler.ir.location import Location
from compiler.ir.printer import dense_text, is_inline, print_module, print_op
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.graph import Kernel, Return, Yield
from tests.growth import LINEAR, exponent

F32 = TensorType((2, 3), DType.F32)


def module_with(*attributes: tuple[str, object]) -> tuple[Module, Function]:
    module = Module(dict(attributes))
    return module, module.add_function(Function("main"))


def printed_constant(data: np.ndarray, quant: QuantType | None = None) -> str:
    module = Module()
    module.add_constant("c", data, quant)
    return print_module(module).splitlines()[-1]


def test_a_module_prints_header_attributes_aliases_constants_and_functions() -> None:
    module, main = module_with(("source", "net.onnx"), ("batch", 1))
    x = main.add_argument(TensorType((1, 3), DType.I8, QuantType(DType.I8, -6, 1.682119)), "x")
    module.add_constant("w.q", np.array([1.0, 0.5], np.float32))
    quant = QuantType(DType.I8, -7, axis=0, params="w.q")
    w = module.add_constant("w", np.array([[1, 2, 3], [4, 5, 6]], np.int8), quant)
    location = Location.of("n", "net.onnx")
    op = main.body.append(Optional(x, None, w, types=[F32, F32], names=["y", "z"], location=location))
    main.body.append(Return(op.results[0]))
    assert print_module(module) == (
        "// mluc ir 1\n"
        'module {source = "net.onnx", batch = 1}\n'
        "#w0 = quant<i8, position = -7, axis = 0, params = @w.q>\n"
        "#act0 = quant<i8, position = -6, scale = 1.682119>\n"
        "const @w.q : tensor<2xf32> = dense<[1.0, 0.5]>\n"
        "const @w : tensor<2x3xi8, #w0> = dense<[1, 2, 3, 4, 5, 6]>\n"
        "func @main(%x: tensor<1x3xi8, #act0>) -> (tensor<2x3xf32>) {\n"
        '  %y, %z = test.optional %x, _, @w : tensor<2x3xf32>, tensor<2x3xf32>  loc("n")\n'
        "  return %y\n"
        "}\n"
    )


def test_the_inside_of_a_kernel_is_indented_and_its_types_follow_the_brace() -> None:
    _, main = module_with()
    x = main.add_argument(F32, "x")
    inside = Region()
    a = inside.block.add_argument(F32, "a")
    t = inside.block.append(Unary(a, names=["t"])).result
    inside.block.append(Yield(t))
    kernel = main.body.append(Kernel(x, types=[F32], names=["r"], regions=[inside], schedule={"split": "rows"}))
    assert print_op(kernel) == (
        '%r = graph.kernel %x {schedule = {split = "rows"}} {\n'
        "  (%a: tensor<2x3xf32>):\n"
        "    %t = test.unary %a : tensor<2x3xf32>\n"
        "    yield %t\n"
        "} : tensor<2x3xf32>"
    )
    assert print_op(kernel, regions=False).endswith("{ ... } : tensor<2x3xf32>")


def test_several_regions_are_joined_by_braces() -> None:
    op = Branch(Source(types=[F32], names=["x"]).results[0], regions=[Region(), Region()], types=[F32], names=["y"])
    assert print_op(op).splitlines() == ["%y = test.branch %x {", "  ():", "} {", "  ():", "} : tensor<2x3xf32>"]


def test_attributes_print_in_declared_order_without_defaults_and_extras_last() -> None:
    x = Source(types=[F32], names=["x"]).results[0]
    op = Unary(x, _z=1, _a=2, to=DType.F16, ratio=1.0, count=3, flag=False, names=["y"])
    op.set_attribute("mode", "near")
    assert "{count = 3, ratio = 1.0, to = f16, _a = 2, _z = 1}" in print_op(op)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (-2.0, "-2.0"), (1e-5, "1e-05"), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan"),
        (True, "true"), ("a\"b\n", '"a\\"b\\n"'), ("ä", '"ä"'), ("\ud800", '"\\ud800"'), (DType.BF16, "bf16"),
        ((), "[]"), ([1, (2.0, "c")], '[1, [2.0, "c"]]'), ({"a": 1, "b/c": {}}, '{a = 1, "b/c" = {}}'),
        (np.float32(0.5), "0.5"), (np.int64(3), "3"),
    ],
)  # fmt: skip
def test_attribute_values_print_so_that_their_kind_shows(value: object, text: str) -> None:
    module = Module({"k": value})
    assert print_module(module).splitlines()[1] == f"module {{k = {text}}}"


def test_an_attribute_that_text_cannot_hold_shows_its_type_but_no_address() -> None:
    assert 'k = "<object>"' in print_module(Module({"k": object()}))


def test_names_that_are_not_identifiers_are_quoted() -> None:
    names = ["a/b:0", "plain_1.w-x", "with space", 'qu"ote', "7"]
    op = Source(types=[F32] * 5, names=names)
    assert print_op(op).startswith('%"a/b:0", %plain_1.w-x, %"with space", %"qu\\"ote", %7 = test.source')


def test_empty_and_repeated_names_get_suffixes_that_no_other_value_has() -> None:
    module, main = module_with()
    main.add_argument(F32, "a")
    main.body.append(Source(types=[F32] * 6, names=["a", "a_1", "", "v0", "a", ""]))
    assert "%a_2, %a_1, %v1, %v0, %a_3, %v2 = test.source" in print_module(module)


def test_the_same_names_in_two_functions_stay() -> None:
    module, _ = module_with()
    for name in ("f", "g"):
        module.add_function(Function(name)).add_argument(F32, "x")
    assert print_module(module).count("(%x: tensor<2x3xf32>)") == 2


def test_a_place_in_another_file_than_the_source_names_its_file() -> None:
    module, main = module_with(("source", "a.onnx"))
    places = Location((("", "n0"), ("a.onnx", "n1"), ("b.onnx", "n 2")))
    main.body.append(Sink(location=places))
    assert print_module(module).splitlines()[-2] == '  test.sink  loc("":"n0", "n1", "b.onnx":"n 2")'


def test_types_print_dimensions_element_type_and_quantisation() -> None:
    types = [
        TensorType((), DType.F32), TensorType((None, 0), DType.BOOL),
        TensorType((4,), DType.I16, QuantType(DType.I16, 0, 1.0, zero_point=3, step=0.1)),
    ]  # fmt: skip
    text = print_op(Source(types=types, names=["a", "b", "c"]))
    assert text.endswith(
        ": tensor<f32>, tensor<?x0xi1>, "
        "tensor<4xi16, quant<i16, position = 0, scale = 1.0, zero_point = 3, step = 0.1>>"
    )


# -- constants ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
def test_floats_print_the_shortest_text_that_keeps_every_bit(dtype: type) -> None:
    data = np.array([0.1, -0.0, 1.0, np.nan, np.inf, -np.inf], dtype)
    assert dense_text(data) == "dense<[0.1, -0.0, 1.0, nan, inf, -inf]>"


def test_a_nan_with_a_payload_prints_its_bits() -> None:
    data = np.array([0x7FC00001, 0x3F800000], np.uint32).view(np.float32)
    assert dense_text(data) == "dense<[0x7fc00001, 1.0]>"


def test_equal_elements_print_once_whatever_the_size() -> None:
    assert printed_constant(np.zeros((100, 100), np.float32)).endswith("= dense<0.0>")
    assert dense_text(np.array([0.0, -0.0], np.float32)) == "dense<[0.0, -0.0]>"
    assert dense_text(np.full(3, np.nan, np.float16)) == "dense<nan>"
    assert dense_text(np.array([True])) == "dense<true>"
    assert dense_text(np.zeros((0, 3), np.int8)) == "dense<>"


def test_large_constants_print_a_hash_and_their_size() -> None:
    data = np.arange(17, dtype=np.int16)
    module = Module()
    constant: Constant = module.add_constant("c", data)
    assert not is_inline(constant)
    assert printed_constant(data) == f"const @c : tensor<17xi16> = blob<sha256:{constant.hash[:16]}, 34 B>"


def test_inline_constants_print_numbers_up_to_a_size_and_hex_beyond() -> None:
    module = Module()
    module.add_constant("c", np.arange(17, dtype=np.int8))
    module.add_constant("d", np.arange(300, dtype=np.int16))
    lines = print_module(module, inline_constants=True).splitlines()
    assert lines[1].endswith("15, 16]>")
    assert "= hex<000001000200" in lines[2]


def test_a_constant_that_is_not_contiguous_prints_its_elements_in_row_major_order() -> None:
    data = np.arange(6, dtype=np.int8).reshape(2, 3).T
    assert dense_text(data) == "dense<[0, 3, 1, 4, 2, 5]>"


def test_printing_takes_time_linear_in_the_ops() -> None:
    def printing(ops: int) -> Callable[[], str]:
        module, main = module_with(("source", "m.onnx"))
        value = main.add_argument(F32, "x")
        for i in range(ops):
            op = Unary(value, pair=(2, 2), names=[f"layer{i}/out:0"], location=Location.of(f"node{i}", "m.onnx"))
            value = main.body.append(op).result
        main.body.append(Return(value))
        return lambda: print_module(module)

    assert len(printing(1000)().splitlines()) > 1000
    assert exponent(printing, 1000, 8000) < LINEAR
