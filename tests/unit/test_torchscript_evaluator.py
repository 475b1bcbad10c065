"""Symbolic evaluation of TorchScript code, on archives made by hand: no torch is needed here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from tests.torchscript_archives import Instance, QTensor, forward, imported

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5


def names(module: Module) -> list[str]:
    return [op.op_name for op in module.main.body if op.op_name != "graph.return"]


def run(module: Module, *inputs: np.ndarray) -> list[np.ndarray]:
    return Interpreter(module).run(list(inputs))


def result(body: str, x: np.ndarray = X, root: Any = None, more: str = "", **options: Any) -> np.ndarray:
    """What `forward` with this body gives for x."""
    module = imported(forward(body, more=more), root, shapes={"x": x.shape}, **options)
    return run(module, x)[0]


def fault(body: str, message: str, root: Any = None, more: str = "", **options: Any) -> str:
    with pytest.raises(CompilerError, match=message) as caught:
        imported(forward(body, more=more), root, shapes={"x": X.shape}, **options)
    return str(caught.value)


# -- what folds --------------------------------------------------------------------------------------------------------
def test_ifs_on_attributes_fold() -> None:
    body = "if self.flag:\n  y = torch.relu(x)\nelse:\n  y = torch.tanh(x)\nreturn y"
    for flag, op in ((True, "nn.relu"), (False, "math.tanh")):
        assert names(imported(forward(body), {"flag": flag}, shapes={"x": (2,)})) == [op]


def test_ifs_on_shapes_fold_with_the_shape_given() -> None:
    body = "if torch.gt((torch.size(x))[-1], 4):\n  y = torch.relu(x)\nelse:\n  y = torch.tanh(x)\nreturn y"
    assert names(imported(forward(body), shapes={"x": (1, 5)})) == ["nn.relu"]
    assert names(imported(forward(body), shapes={"x": (1, 4)})) == ["math.tanh"]


def test_for_loops_unroll() -> None:
    body = "y = x\nfor _0 in range(3):\n  i = torch.__derive_index(_0, 2, 5)\n  y = torch.add(y, i)\nreturn y"
    np.testing.assert_array_equal(result(body), X + 2 + 7 + 12)


def test_while_loops_run_until_their_condition_is_false() -> None:
    body = """
y = x
i = 0
_0 = True
while _0:
  y1 = torch.mul(y, 2)
  i1 = torch.add(i, 1)
  _0, y, i = torch.lt(i1, 4), y1, i1
return y
"""
    np.testing.assert_array_equal(result(body), X * 16)


def test_methods_and_functions_are_followed_and_give_nodes_the_path_of_their_module() -> None:
    code = {
        "__torch__": forward("a = self.a\ninner = getattr(self, \"0\")\nreturn (inner).forward((a).forward(x, ), )"),
        "__torch__/nn": (
            "class Act(Module):\n  def forward(self: __torch__.nn.Act, x: Tensor) -> Tensor:\n"
            "    _0 = __torch__.fn.twice(x, k=self.k)\n    return torch.relu(_0)\n"
        ),
        "__torch__/fn": "def twice(x: Tensor, k: int=2) -> Tensor:\n  return torch.mul(x, k)\n",
    }
    root = {"a": Instance("nn.Act", {"k": 3}), "0": Instance("nn.Act", {"k": 5})}
    module = imported(code, root, shapes={"x": X.shape})
    assert [op.name for op in module.main.body][:-1] == ["a.mul", "a", "0.mul", "0"]
    assert next(iter(module.main.body)).location.nodes == {"a.mul"} or "a.mul" in str(module.main.body.first.location)
    np.testing.assert_array_equal(run(module, X)[0], np.maximum(np.maximum(X * 3, 0) * 5, 0))


def test_constants_of_a_class_are_attributes_of_its_objects() -> None:
    code = forward("return torch.mul(x, self.k)").replace("__parameters__ = []", "k : Final[int] = 7")
    np.testing.assert_array_equal(run(imported(code, shapes={"x": X.shape}), X)[0], X * 7)


def test_weights_keep_the_path_of_their_attribute() -> None:
    w = np.ones((3, 3), np.float32)
    module = imported(forward("return torch.matmul(x, self.w)"), {"w": w}, shapes={"x": X.shape})
    assert list(module.constants) == ["w"]


def test_half_and_double_weights_become_f32() -> None:
    for dtype in (np.float16, np.float64):
        out = result("return torch.mul(x, self.w)", root={"w": np.full(3, 0.5, dtype)})
        np.testing.assert_array_equal(out, X * 0.5)


def test_the_archives_constants_are_found_by_number() -> None:
    module = imported(
        forward("return torch.add(torch.mul(x, CONSTANTS.c1), CONSTANTS.c0)"), shapes={"x": X.shape},
        constants=[np.float32([1.0]), np.float32([4.0])],
    )  # fmt: skip
    np.testing.assert_array_equal(run(module, X)[0], X * 4 + 1)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("torch.add(2, 3)", 5), ("torch.floordiv(7, 2)", 3), ("torch.div(7, 2)", 3.5), ("torch.remainder(-1, 4)", 3),
        ("torch.len([1, 2, 3])", 3), ("torch.len(annotate(List[int], []))", 0), ("ops.prim.max(2, 5)", 5),
        ("torch.__range_length(2, 10, 3)", 3), ("int(2.75)", 2), ("float(3)", 3), ("torch.neg(4)", -4),
        ("torch.pow(2, 10)", 1024), ("(torch.size(x))[1]", 3), ("torch.dim(x)", 2), ("torch.numel(x)", 6),
        ("torch.add([1], [2, 3])[2]", 3), ("torch.mul([5], 3)[2]", 5), ("{\"a\": 4}[\"a\"]", 4),
        ("torch.len(\"abc\")", 3), ("(1, (2, 3))[1][0]", 2), ("unchecked_cast(int, 9)", 9), ("torch.sqrt(16)", 4),
        ("int(ops.prim.NumToTensor(torch.size(x, 1)))", 3), ("torch.floor(2.5)", 2), ("torch.ceil(2.5)", 3),
        ("int(torch.eq([1, 2], [1, 2]))", 1), ("int(torch.__contains__([8, 9], 9))", 1), ("torch.__and__(6, 3)", 2),
        ("int(torch.__isnot__(x, None))", 1), ("int(torch.__is__(None, None))", 1), ("-3", -3), ("[1, 2, 3][1:][0]", 2),
        ("int(isinstance(x, Tensor))", 1), ("int(isinstance(2, (float, str)))", 0), ("int(hasattr(self, \"w\"))", 1),
        ("torch.len(torch.items({\"a\": 1}))", 1), ("torch.get({\"a\": 1}, \"b\", 6)", 6), ("torch.stride(x, 0)", 3),
        ("torch.index([4, 5], 5)", 1), ("torch.__lshift__(1, 4)", 16), ("ops.prim.dtype(x)", 6), ("torch.abs(-2)", 2),
    ],
)  # fmt: skip
def test_numbers_lists_and_text_are_computed_at_import(expression: str, value: float) -> None:
    out = result(f"return torch.mul(x, {expression})", np.ones((2, 3), np.float32), {"w": 1})
    np.testing.assert_array_equal(out, np.full((2, 3), value, np.float32))


def test_lists_of_tensors_are_filled_and_joined() -> None:
    body = """
_0 = annotate(List[Tensor], [])
for i in range(2):
  _1 = torch.append(_0, torch.mul(x, i))
_2 = torch.append(_0, x)
a, b, c, = _0
return torch.cat([b, c], 1)
"""
    np.testing.assert_array_equal(result(body), np.concatenate([X, X], 1))


def test_what_a_division_means_depends_on_the_version_of_the_file() -> None:
    body = "return torch.mul(x, torch.div(self.a, self.b))"
    root = {"a": np.array([7]), "b": np.array([2])}
    np.testing.assert_array_equal(result(body, root=root, version=3), X * 3)
    np.testing.assert_array_equal(result(body, root=root, version=4), X * 3.5)


# -- results -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("expression", "outputs"),
    [
        ("x", ("output",)), ("(x, torch.relu(x))", ("output.0", "output.1")),
        ("{\"out\": x, \"aux\": torch.relu(x)}", ("out", "aux")), ("[x, (x, None)]", ("output.0", "output.1.0")),
        ("(x, 3, \"text\", True)", ("output.0", "output.1")),
    ],
)  # fmt: skip
def test_outputs_are_called_after_their_place_in_the_result(expression: str, outputs: tuple[str, ...]) -> None:
    module = imported(forward(f"return {expression}"), shapes={"x": (2,)})
    assert module.main.output_names == outputs


def test_named_tuples_name_their_outputs() -> None:
    more = "class P(NamedTuple):\n  scores : Tensor\n  boxes : Tensor\n"
    module = imported(
        forward("p = __torch__.P(x, torch.neg(x))\nreturn __torch__.P((p).boxes, (p)[0])", more=more),
        shapes={"x": (2,)},
    )
    assert module.main.output_names == ("scores", "boxes")
    np.testing.assert_array_equal(run(module, np.float32([1, 2]))[0], [-1, -2])


def test_a_network_without_tensors_is_refused() -> None:
    fault("return 3.5 if False else None", "gives no tensor")


# -- writing in place --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ("_0 = torch.add_(y, 1)", lambda y: y + 1),
        ("_0 = torch.copy_(torch.select(y, 1, 1), CONSTANTS.c0)", lambda y: put(y, np.s_[:, 1], 9)),
        ("_0 = torch.fill_(torch.slice(torch.slice(y), 1, 0, None, 2), 7)", lambda y: put(y, np.s_[:, ::2], 7)),
        ("_0 = torch.mul_(torch.slice(y, 1, 1, 3), 2)", lambda y: put(y, np.s_[:, 1:3], y[:, 1:3] * 2)),
        ("_0 = torch.zero_(torch.select(torch.t(y), 0, 2))", lambda y: put(y, np.s_[:, 2], 0)),
        ("_0 = torch.neg_(torch.view(y, [-1]))", lambda y: -y),
        ("_0 = torch.add_(torch.select(torch.select(y, 0, 1), 0, 0), 5)", lambda y: put(y, np.s_[1, 0], y[1, 0] + 5)),
        ("a, b, c = torch.unbind(y, 1)\n_0 = torch.zero_(b)", lambda y: put(y, np.s_[:, 1], 0)),
        ("_0 = torch.add_(torch.permute(y, [1, 0]), 3)", lambda y: y + 3),
        ("_0 = torch.zero_(torch.clone(y))", lambda y: y),
        ("_0 = torch.zero_(torch.reshape(torch.t(y), [6]))", lambda y: y),
        ("_0 = torch.relu_(torch.detach(y))", lambda y: np.maximum(y, 0)),
    ],
)  # fmt: skip
def test_writing_through_views_reaches_what_they_are_views_of(writes: str, expected: Any) -> None:
    out = result(f"y = torch.mul(x, 1.5)\n{writes}\nreturn y", constants=[np.array(9.0, np.float32)])
    np.testing.assert_array_equal(out, expected(X * np.float32(1.5)))


def put(y: np.ndarray, where: Any, value: Any) -> np.ndarray:
    changed = y.copy()
    changed[where] = value
    return changed


def test_a_view_taken_before_a_write_shows_it() -> None:
    body = "y = torch.mul(x, 2)\nv = torch.select(y, 0, 1)\n_0 = torch.add_(y, 10)\nreturn v"
    np.testing.assert_array_equal(result(body), X[1] * 2 + 10)


def test_writing_to_an_expanded_tensor_is_refused() -> None:
    fault("y = torch.expand(torch.slice(x, 0, 0, 1), [4, 3])\n_0 = torch.add_(y, 1)\nreturn y", "expanded tensor")


# -- inputs ------------------------------------------------------------------------------------------------------------
def test_shapes_come_from_the_archive_where_tracing_recorded_them() -> None:
    traced = [np.zeros((1, 4), np.float32), (np.zeros(2, np.int64), np.zeros(3, np.float32))]
    body = "a, b, = y\nreturn torch.sum(torch.mul(x, torch.sum(b)))"
    code = forward(body, "x: Tensor,\n    y: Tuple[Tensor, Tensor]")
    module = imported(code, traced=traced)
    assert [(a.name, a.type.shape, str(a.type.dtype)) for a in module.main.arguments] == [
        ("x", (1, 4), "f32"), ("y.0", (2,), "i64"), ("y.1", (3,), "f32"),
    ]  # fmt: skip
    module = imported(forward("return x"), traced=traced[:1], shapes={"x": (8, 2)})
    assert module.main.arguments[0].type.shape == (8, 2)


def test_missing_shapes_and_values_are_asked_for_at_once() -> None:
    parameters = ("x: Tensor", "sr: int", "scale: float", "deep: bool", "y: List[Tensor]")
    code = forward("return torch.mul(x, sr)", ",\n    ".join(parameters))
    with pytest.raises(CompilerError) as caught:
        imported(code)
    text = str(caught.value)
    for part in ("--shape x=", "--bind sr=16000", "'scale' is a number", "--bind deep=true", "--shape y.0="):
        assert part in text


def test_numbers_and_flags_are_bound_or_left_to_their_defaults() -> None:
    code = forward(
        "if flag:\n  y = torch.mul(x, k)\nelse:\n  y = x\nreturn y", "x: Tensor,\n    k: int,\n    flag: bool=True"
    )
    module = imported(code, shapes={"x": X.shape}, bindings={"k": 3})
    np.testing.assert_array_equal(run(module, X)[0], X * 3)
    module = imported(code, shapes={"x": X.shape}, bindings={"k": 3, "flag": False})
    np.testing.assert_array_equal(run(module, X)[0], X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bindings": {"k": [1, 2]}}, "not an integer"), ({"bindings": {"q": 1, "k": 1}}, "'q', which is not an input"),
        ({"shapes": {"k": (1,)}, "bindings": {"k": 1}}, "is an integer, not a tensor"),
        ({"shapes": {"z": (1,), "x": (1,)}, "bindings": {"k": 1}}, "'z', which is not an input"),
    ],
)  # fmt: skip
def test_what_the_user_names_wrongly_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        imported(forward("return torch.mul(x, k)", "x: Tensor,\n    k: int"), **options)


def test_lists_dictionaries_and_optional_tensors_are_inputs_when_their_shapes_are_given() -> None:
    code = forward(
        "y = torch.add(xs[0], torch.mul(xs[1], d[\"k\"]))\nif torch.__isnot__(o, None):\n"
        "  z = torch.add(y, unchecked_cast(Tensor, o))\nelse:\n  z = y\nreturn z",
        "xs: List[Tensor],\n    d: Dict[str, Tensor],\n    o: Optional[Tensor]=None",
    )
    shapes = {"xs.0": (2,), "xs.1": (2,), "d.k": (2,)}
    one, two, three = np.float32([1, 2]), np.float32([3, 4]), np.float32([5, 6])
    module = imported(code, shapes=shapes)
    np.testing.assert_array_equal(run(module, one, two, three)[0], one + two * three)
    module = imported(code, shapes=shapes | {"o": (2,)})
    np.testing.assert_array_equal(run(module, one, two, three, one)[0], one + two * three + one)


def test_an_input_that_picks_rows_holds_integers() -> None:
    code = forward("return torch.embedding(self.w, torch.squeeze(ids, 0))", "ids: Tensor")
    code2 = forward("return torch.embedding(self.w, ids)", "ids: Tensor")
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    module = imported(code2, {"w": table}, shapes={"ids": (3,)})
    assert str(module.main.arguments[0].type.dtype) == "i64"
    np.testing.assert_array_equal(run(module, np.array([3, 0, 1]))[0], table[[3, 0, 1]])
    module = imported(code, {"w": table}, traced=[np.zeros((1, 3), np.int64)])
    np.testing.assert_array_equal(run(module, np.array([[3, 0, 1]]))[0], table[[3, 0, 1]])


# -- saved states and packed parameters --------------------------------------------------------------------------------
def test_objects_saved_by_a_state_of_their_own_get_it_back() -> None:
    more = (
        "class L(Module):\n  k : int\n  def __setstate__(self: __torch__.L, state: Tuple[int, int]) -> NoneType:\n"
        "    self.k = torch.mul((state)[0], (state)[1])\n    return None\n"
    )
    root = {"l": Instance("L", state=(3, 4))}
    np.testing.assert_array_equal(result("l = self.l\nreturn torch.mul(x, l.k)", root=root, more=more), X * 12)


WEIGHT = QTensor(np.array([[[[2]]], [[[-3]]]], np.int8), 0.5, 0)
SETTINGS = [2, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0]
NUMBERS = [np.array([v]) for v in (1, 1)], [np.array([v]) for v in (0, 0)], [np.array([v]) for v in (1, 1)]


@pytest.mark.parametrize(
    "state",
    [
        (WEIGHT, np.float32([1, 2]), *NUMBERS, np.array([1])),
        ("2", [np.array(SETTINGS, np.int16), WEIGHT], [np.float32([1, 2])]),
        (("2", [np.array(SETTINGS, np.int16), WEIGHT], [np.float32([1, 2])]),),
        (3, SETTINGS, [None, WEIGHT, np.float32([1, 2])]),
    ],
)  # fmt: skip
def test_every_form_of_packed_convolutions_is_read(state: Any) -> None:
    packed = Instance("torch.classes.quantized.Conv2dPackedParamsBase", state=state)
    body = (
        "q = torch.quantize_per_tensor(x, 0.25, 10, 13)\n"
        "return torch.dequantize(ops.quantized.conv2d(q, CONSTANTS.c0, 0.5, 20))"
    )
    x = np.float32([[[[0.5, -1.0]]]])
    out = result(body, x, constants=[packed])
    np.testing.assert_array_equal(out, [[[[1.5, 0.0]], [[1.0, 3.5]]]])


def test_packed_linear_layers_keep_their_integers_and_scales() -> None:
    packed = Instance(
        "torch.classes.quantized.LinearPackedParamsBase", state=(QTensor(np.int8([[1, -2, 4]]), 0.5, 0), None)
    )
    module = imported(
        forward("return ops.quantized.linear_dynamic(x, CONSTANTS.c0, True)"), constants=[packed], shapes={"x": (2, 3)}
    )
    weight = next(c for c in module.constants.values() if c.type.quant is not None)
    assert weight.type.quant.real_step == 0.5 and weight.data.dtype == np.int8
    np.testing.assert_allclose(run(module, X)[0], X @ np.float32([[0.5], [-1.0], [2.0]]))


def test_layers_packed_for_mobile_cpus_are_clamped() -> None:
    w, b = np.float32([[1, 1, 1]]), np.float32([1])
    packed = Instance("torch.classes.xnnpack.LinearOpContext", state=(w, b, 0.0, None))
    out = result("return ops.prepacked.linear_clamp_run(x, CONSTANTS.c0)", constants=[packed])
    np.testing.assert_allclose(out, np.maximum(X.sum(1, keepdims=True) + 1, 0))


def test_other_classes_of_torch_are_refused_by_name_when_they_are_used() -> None:
    other = Instance("torch.classes.tensorrt.Engine", state=("x",))
    fault("return (CONSTANTS.c0).forward(x)", r"class tensorrt\.Engine", constants=[other])


# -- faults ------------------------------------------------------------------------------------------------------------
def test_everything_unsupported_is_reported_at_once_with_node_names() -> None:
    text = fault(
        """
a = torch.nosuch(x)
b = torch.relu(a)
if bool(torch.sum(x)):
  c = ops.custom.thing(x)
else:
  c = b
d = torch.noway(c, 3)
return torch.add(b, d)
""",
        "nosuch",
    )
    for part in ("aten::nosuch", "custom::thing", "aten::noway", "node 'a'"):
        assert part in text


DECIDED = "torch.gt(torch.sum(x), 0)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"if bool({DECIDED}):\n  return x\ny = torch.neg(x)\nreturn y", "returns in one of two branches"),
        (f"while bool({DECIDED}):\n  return x\nreturn x", "returns from inside a loop"),
        (f"if bool({DECIDED}):\n  y = x\nelse:\n  y = None\nreturn y", "'y' is a tensor or None"),
        (f"l = [x]\nwhile bool({DECIDED}):\n  _0 = torch.append(l, x)\n  x = torch.neg(x)\nreturn l[0]",
         "'l' is a list of 1 or a list of 2"),
        (f"if bool({DECIDED}):\n  y = torch.unsqueeze_(x, 0)\nelse:\n  y = x\nreturn y",
         "shape of a variable in place"),
        (f"y = x\nwhile bool({DECIDED}):\n  y = torch.sum(y)\nreturn y", "gives tensor<2x3xf32> or tensor<f32>"),
        (f"while bool({DECIDED}):\n  ops.prim.RaiseException(\"never\")\nreturn x", "refuses what it is given: never"),
    ],
)
def test_what_the_data_cannot_decide_is_refused_by_name(body: str, message: str) -> None:
    fault(body, message)


def test_what_only_a_branch_reads_is_no_result_of_it() -> None:
    body = f"if bool({DECIDED}):\n  t = 'a'\n  y = torch.relu(x)\nelse:\n  t = 3\n  y = torch.neg(x)\nreturn y"
    module = imported(forward(body), shapes={"x": X.shape})
    assert names(module) == ["reduce.sum", "math.greater", "graph.if"]
    np.testing.assert_array_equal(run(module, X)[0], -X if X.sum() <= 0 else np.maximum(X, 0))


def test_what_a_loop_leaves_alone_stays_known() -> None:
    body = f"n = 2\ni = 0\nwhile bool({DECIDED}):\n  x = torch.sub(x, n)\n  i = torch.add(i, 1)\nreturn [x, i, n]"
    module = imported(forward(body), shapes={"x": X.shape})
    (loop,) = [op for op in module.main.body if op.op_name == "graph.loop"]
    assert loop.attributes["carried"] == 2
    found, rounds, n = run(module, X + 5)
    np.testing.assert_allclose(found, X + 5 - 2 * rounds)
    assert rounds == 3 and n == 2


def test_a_network_that_refuses_its_inputs_says_so_in_its_own_words() -> None:
    body = """
if torch.ne((torch.size(x))[0], 5):
  ops.prim.RaiseException(torch.format("want 5, got {}", 2), "builtins.ValueError")
return x
"""
    text = fault(body, "E213")
    assert "want 5, got 2" in text and "--shape" in text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os\nreturn x", "Import"), ("return nothing", "'nothing' has no value"),
        ("return (lambda: x)()", "Lambda"), ("return [y for y in x]", "ListComp"),
        ("def f():\n  pass\nreturn x", "FunctionDef"), ("x.y = 3\nreturn x", "sets attribute"),
        ("return __import__(\"os\")", "'__import__' has no value"), ("return eval(\"1\")", "'eval' has no value"),
        ("return x.__class__.__bases__", "attribute|has no"), ("del x\nreturn x", "Delete"),
        ("return torch.format(\"{0.__class__}\", x)", "no tensor"), ("global x\nreturn x", "Global"),
        ("return self.missing", "bound|no tensor|attribute"), ("a, b = x, x, x\nreturn a", "takes 2 values"),
        ("try:\n  pass\nexcept:\n  pass\nreturn x", "Try"), ("return CONSTANTS.c5", "no constant 'c5'"),
        ("return __torch__.a.b(x)", "does not define"), ("return (self).nope(x)", "no method 'nope'"),
    ],
)  # fmt: skip
def test_what_torchscript_does_not_write_is_refused(body: str, message: str) -> None:
    fault(body, message)


def test_code_that_is_no_python_is_refused() -> None:
    with pytest.raises(CompilerError, match=r"code/__torch__\.py is not code"):
        imported("class M(:\n", shapes={"x": (1,)})
    with pytest.raises(CompilerError, match="has no method forward"):
        imported("class M(Module):\n  pass\n", shapes={"x": (1,)})


STATEMENTS, LONG, WIDE = "runs for more than [0-9]+ statements", "too long", "does not fit 64 bits|shifts by"
ELEMENTS, NESTED = "makes a tensor of [0-9]+ elements", "nested more than|not code that TorchScript writes"


HOSTILE_CODE = [
    ("while True:\n  pass\nreturn x", STATEMENTS), ("for i in range(1000000000):\n  pass\nreturn x", STATEMENTS),
    ("y = [1]\nfor i in range(2000000000):\n  _0 = torch.append(y, i)\nreturn x", STATEMENTS),
    ("y = [1]\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x", LONG),
    ("y = \"a\"\nfor i in range(100):\n  y = torch.add(y, y)\nreturn x", LONG),
    ("y = torch.mul([0], 100000000000)\nreturn x", LONG),
    ("y = 3\nfor i in range(100):\n  y = torch.mul(y, y)\nreturn x", WIDE),
    ("return torch.mul(x, torch.pow(10, 100000000000))", WIDE),
    ("return torch.mul(x, torch.__lshift__(1, 1000000000000))", WIDE),
    ("return torch.zeros([1000000, 1000000, 1000000])", ELEMENTS), ("return torch.arange(1000000000000)", ELEMENTS),
    ("y = torch.expand(x, [1000000000000, 2, 3])\nz = torch.zero_(y)\nreturn z", ELEMENTS),
    ("return torch.ones_like(torch.expand(x, [99999999, 2, 3]))", ELEMENTS),
    ("y = CONSTANTS.c0\nfor i in range(100):\n  y = torch.cat([y, y])\nreturn y", "too much from constants alone"),
    ("y = (x, x)\nfor i in range(100):\n  y = (y, y)\nreturn y", "gives too many tensors"),
    ("y = [x]\n_0 = torch.append(y, y)\nreturn torch.cat(y)", "lists in lists in lists"),
    ("return (self).forward(x)", "calls are nested too deeply"),
    ("y = x\nwhile True:\n  y = torch.relu(y)\nreturn y", "computes more than [0-9]+ nodes"),
    ("return " + "torch.relu(" * 160 + "x" + ")" * 160, NESTED), ("return " + "-" * 5000 + "1", NESTED),
    ("return " + "(" * 5000, NESTED),
]  # fmt: skip
"""Bodies without end or bound, and what stops each."""


def stopped(body: str, bound: str) -> None:
    with pytest.raises(CompilerError, match=bound):
        imported(forward(body), shapes={"x": (2, 3)}, constants=[np.ones(8, np.float32)])


@pytest.mark.parametrize(("body", "bound"), HOSTILE_CODE)
def test_code_without_end_or_bound_is_stopped_by_the_bound_it_runs_into(body: str, bound: str) -> None:
    stopped(body, bound)


def test_hooks_of_the_network_itself_run_before_and_after_it() -> None:
    more = (
        "  def before(self: __torch__.M, inp: Tuple[Tensor]) -> Tuple[Tensor]:\n    return (torch.mul((inp)[0], 3),)\n"
        "  def after(self: __torch__.M, inp: Tuple[Tensor], out: Tensor) -> Tensor:\n"
        "    return torch.add(out, (inp)[0])\n"
    )
    code = forward("return torch.add(x, 1)", more=more).replace(
        "__parameters__ = []", "__forward_pre_hooks__ = [\"before\", ]\n  __forward_hooks__ = [\"after\", ]"
    )
    np.testing.assert_array_equal(run(imported(code, shapes={"x": X.shape}), X)[0], X * 6 + 1)
