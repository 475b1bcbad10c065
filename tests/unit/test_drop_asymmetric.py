"""Imported activations that the chip has no type for get one it has: 8 bits, 16 bits, or reals within their range."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.pass_manager import PassContext, run_pipeline

U8 = "quant<u8, position = -2, scale = 0.5, step = 0.5, zero_point = 10>"
I8 = "quant<i8, position = -1, scale = 1.0>"


def module(*lines: str, result: str = "f32", quant: str = U8) -> Module:
    body = "\n".join(f"  {line}".replace("Q>", f"{quant}>") for line in lines)
    return parse_module(f"// mluc ir 1\nfunc @main(%x: tensor<1x4xf32>) -> (tensor<1x4x{result}>) {{\n{body}\n}}\n")


def passed(source: Module, to: str = "reals") -> tuple[Module, PassContext]:
    context = PassContext()
    return run_pipeline(source, f"drop-asymmetric{{to={to}}}", ctx=context), context


def names(found: Module) -> list[str]:
    return [op.op_name for op in found.main.body]


STORE = "%q = quant.quantize %x : tensor<1x4xu8, Q>"
READ = ("%y = quant.dequantize %q : tensor<1x4xf32>", "return %y")
X = np.float32([[-20.0, -3.26, 1.13, 300.0]])


def test_a_value_becomes_reals_clipped_to_the_range_of_its_integers() -> None:
    source = module(STORE, *READ)
    found, _ = passed(source)
    assert names(found) == ["math.clip", "graph.return"]
    np.testing.assert_allclose(Interpreter(found).run([X])[0], [[-5.0, -3.26, 1.13, 122.5]], rtol=1e-6)
    np.testing.assert_allclose(Interpreter(found).run([X])[0], Interpreter(source).run([X])[0], atol=0.25)


def test_the_name_of_the_value_stays() -> None:
    found, _ = passed(module(STORE, *READ))
    assert found.main.body.first is not None and found.main.body.first.results[0].name == "q"


def test_what_is_rectified_already_is_clipped_above_only() -> None:
    quant = U8.replace(", zero_point = 10", "")
    lines = ["%r = nn.relu %x : tensor<1x4xf32>", STORE.replace("%x", "%r"), *READ]
    found, _ = passed(module(*lines, quant=quant))
    clip = next(op for op in found.main.body if op.op_name == "math.clip")
    assert clip.attributes == {"high": 127.5}


def test_moves_of_stored_integers_move_the_reals() -> None:
    found, _ = passed(module(
        STORE, "%t = tensor.reshape %q {shape = [4, 1]} : tensor<4x1xu8, Q>",
        "%u = tensor.concat %t, %t {axis = 0} : tensor<8x1xu8, Q>",
        "%s = tensor.slice %u {starts = [0, 0], sizes = [4, 1]} : tensor<4x1xu8, Q>",
        "%d = quant.dequantize %s : tensor<4x1xf32>", "%y = tensor.reshape %d {shape = [1, 4]} : tensor<1x4xf32>",
        "return %y",
    ))  # fmt: skip
    assert all(v.type.quant is None for op in found.main.body for v in op.results)
    np.testing.assert_allclose(Interpreter(found).run([X])[0], [[-5.0, -3.26, 1.13, 122.5]], rtol=1e-6)


def test_integers_the_chip_has_stay() -> None:
    source = module("%q = quant.quantize %x : tensor<1x4xi8, Q>", *READ, quant=I8)
    assert names(passed(source)[0]) == names(source)


def test_integers_that_leave_the_network_stay() -> None:
    source = module(STORE, "return %q", result=f"u8, {U8}")
    found, context = passed(source)
    assert names(found) == names(source) and not context.diagnostics


def test_what_is_lost_is_said_per_tensor() -> None:
    _, context = passed(module(STORE, *READ))
    (told,) = context.diagnostics
    assert told.code == "E530" and "0.9 bits coarser" in told.message
    chip = "signed 8 bits over its range have steps of 0.964567"
    assert told.notes == (f"'q': u8 with steps of 0.5 and zero point 10; {chip}",)


@pytest.mark.parametrize("stored", ["u8", "i8"])
def test_a_zero_point_alone_is_reason_enough(stored: str) -> None:
    quant = f"quant<{stored}, position = -2, scale = 0.5, step = 0.5, zero_point = 3>"
    store = f"%q = quant.quantize %x : tensor<1x4x{stored}, Q>"
    assert names(passed(module(store, *READ, quant=quant))[0]) == ["math.clip", "graph.return"]


# -- as integers of the chip -------------------------------------------------------------------------------------------
def test_sixteen_bits_hold_the_same_integers() -> None:
    source = module(STORE, *READ)
    found, context = passed(source, "i16")
    assert names(found) == ["math.clip", "quant.quantize", "quant.dequantize", "graph.return"]
    x = np.linspace(-30, 300, 400, dtype=np.float32).reshape(100, 4)
    for row in x:
        np.testing.assert_array_equal(*(Interpreter(m).run([row[None]])[0] for m in (source, found)))
    assert not context.diagnostics


def test_eight_bits_cover_the_same_range() -> None:
    source = module(STORE, *READ)
    found, context = passed(source, "i8")
    stored = next(op for op in found.main.body if op.op_name == "quant.quantize").results[0]
    assert (stored.name, str(stored.type.dtype), stored.type.quant.zero_point) == ("q", "i8", 0)
    assert stored.type.quant.real_step == pytest.approx(122.5 / 127)
    for row in np.linspace(-30, 300, 40, dtype=np.float32).reshape(10, 4):
        wanted, got = (Interpreter(m).run([row[None]])[0] for m in (source, found))
        np.testing.assert_allclose(got, wanted, atol=0.25 + 122.5 / 254)
    assert context.diagnostics[0].code == "E530"


def test_a_rectifier_that_was_only_in_the_zero_point_stays_one() -> None:
    source = module(STORE, *READ, quant=U8.replace(", zero_point = 10", ""))
    found, _ = passed(source, "i8")
    assert names(found)[0] == "math.clip" and found.main.body.first.attributes == {"low": 0.0}  # type: ignore[union-attr]


def test_a_range_that_is_nearly_symmetric_needs_no_clip() -> None:
    found, _ = passed(module(STORE, *READ, quant=U8.replace("zero_point = 10", "zero_point = 128")), "i8")
    assert names(found) == ["quant.quantize", "quant.dequantize", "graph.return"]


def test_the_whole_compilation_can_ask_for_another_form() -> None:
    context = PassContext(options={"asymmetric": "i16"})
    found = run_pipeline(module(STORE, *READ), "drop-asymmetric", ctx=context)
    assert any(str(v.type.dtype) == "i16" for op in found.main.body for v in op.results)


def test_what_the_pipeline_says_wins_over_the_compilation() -> None:
    context = PassContext(options={"asymmetric": "i8"})
    found = run_pipeline(module(STORE, *READ), "drop-asymmetric{to=reals}", ctx=context)
    assert names(found) == ["math.clip", "graph.return"]
