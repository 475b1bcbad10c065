"""ONNX's own test cases through the frontend and the evaluator: which pass, which do not and why, which have no place.

Run as a script it rewrites `onnx_passing.txt`, the list that must not shrink, `onnx_operators.json`, the figures by
operator, and `docs/supported-operators.md` from them: `python tests/conformance/onnx_cases.py`. What is compared, and
how closely, is what onnx's own runner does. Many cases feed as graph inputs what real models hold as constants (shapes,
axes, numbers of rounds): where a case needs that, its inputs after the first are made initialisers.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnx
from onnx import numpy_helper

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from tests.conformance.onnx_places import place_of
from tests.conformance.onnx_scope import DISPUTED, operator_of, out_of_scope
from tests.light_models import DIRECTORY as LIGHT

HERE = Path(__file__).parent
PASSING = HERE / "onnx_passing.txt"
FIGURES = HERE / "onnx_operators.json"


# -- the cases ---------------------------------------------------------------------------------------------------------
@cache
def all_cases() -> dict[str, Any]:
    """Cases by name; generating those of single nodes takes the onnx package some seconds."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {case.name: case for case in collect_testcases(None)}
    cases.update({case.name: case for kind in ("simple", "pytorch-operator", "pytorch-converted")
                  for case in _stored_cases(kind)})  # fmt: skip
    cases.update({case.name: case for case in _light_cases()})
    return cases


def _stored_cases(kind: str) -> Iterator[Any]:
    """Cases kept as files of the onnx package."""
    from onnx.backend.test import loader

    for case in loader.load_model_tests(kind=kind):
        folder = Path(case.model_dir)
        model = onnx.load(str(folder / "model.onnx"))
        sets = [(_tensors(data, "input"), _tensors(data, "output")) for data in sorted(folder.glob("test_data_set_*"))]
        yield type(case)(**{**vars_of(case), "model": model, "data_sets": sets})


def _light_cases() -> Iterator[Any]:
    """Topologies whose weights are all alike, with the input that onnx's runner makes for them."""
    from onnx.backend.test.case.model import collect_testcases

    for case in collect_testcases():
        if not (case.url or "").startswith("onnx/backend/test/data/light/"):
            continue
        path = LIGHT / Path(case.url).name
        model = onnx.load(str(path))
        weights = {t.name for t in model.graph.initializer}
        shapes = [[d.dim_value or 1 for d in i.type.tensor_type.shape.dim]
                  for i in model.graph.input if i.name not in weights]  # fmt: skip
        inputs = [(np.arange(np.prod(s)).reshape(s) / np.prod(s)).astype(np.float32) for s in shapes]
        outputs = [onnx.load_tensor(str(path.with_name(f"{path.stem}_output_0.pb")))]
        yield type(case)(**{**vars_of(case), "model": model, "data_sets": [(inputs, outputs)]})


def vars_of(case: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(case).items() if not k.startswith("_")}


def _tensors(folder: Path, kind: str) -> list[onnx.TensorProto]:
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
    return [onnx.load_tensor(str(p)) for p in paths]


# -- running one -------------------------------------------------------------------------------------------------------
def problem(case: Any, folder: Path, seen: list[Module] | None = None) -> str | None:
    """Why a case does not pass, as one line; None if it passes. Modules it was imported as are added to `seen`."""
    types = {i.type.WhichOneof("value") for i in (*case.model.graph.input, *case.model.graph.output)}
    if types != {"tensor_type"}:
        return f"interface of {', '.join(sorted(str(t) for t in types - {'tensor_type'}))}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for inputs, outputs in case.data_sets:
                _run(case, inputs, outputs, folder, seen)
        except CompilerError as fault:
            first = fault.diagnostics[0]
            return f"{first.code} {first.op}: {first.message}"
        except AssertionError as fault:
            return "wrong: " + " ".join(str(fault).split()).partition(" First ")[0].partition(" Max ")[0]
        except Exception as fault:
            return f"CRASH {type(fault).__name__}: {fault}"
    return None


def _run(case: Any, inputs: list[Any], outputs: list[Any], folder: Path, seen: list[Module] | None) -> None:
    arrays = [_array(a) for a in inputs]
    module, free = _import(case.model, arrays, folder)
    if seen is not None:
        seen.append(module)
    found = Interpreter(module).run(free)
    assert len(found) == len(outputs), "number of outputs"
    for ours, theirs in zip(found, outputs, strict=True):
        expected = _held(_array(theirs))
        assert ours.shape == expected.shape, f"shape {ours.shape}, expected {expected.shape}"
        assert ours.dtype == expected.dtype, f"type {ours.dtype}, expected {expected.dtype}"
        halves = expected.dtype.name == "bfloat16"
        rtol = max(case.rtol, 2**-6) if halves else case.rtol  # onnx's own runner: two units in the last place
        wide = np.float64 if expected.dtype.kind in "fV" else expected.dtype
        np.testing.assert_allclose(ours.astype(wide), expected.astype(wide), rtol=rtol, atol=case.atol)


def _array(given: Any) -> np.ndarray:
    return numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)


def _held(array: np.ndarray) -> np.ndarray:
    """Integers of 2 and 4 bits as a module takes and gives them: one a byte."""
    holder = {"int2": np.int8, "int4": np.int8, "uint2": np.uint8, "uint4": np.uint8}.get(array.dtype.name)
    return array if holder is None else array.astype(holder)


def _bindings(arrays: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Which inputs to make constants, fewest first: none; integers and booleans after the first; all after the first;
    the first too where it holds integers or is one of several single numbers, so is no picture or sound."""
    integers = [i for i, a in enumerate(arrays) if a.dtype.kind in "biu"]
    yield []
    yield [i for i in integers if i]
    yield list(range(1, len(arrays)))
    if 0 in integers or all(a.ndim == 0 for a in arrays):
        yield list(range(len(arrays)))


def _import(model: onnx.ModelProto, arrays: list[np.ndarray], folder: Path) -> tuple[Module, list[np.ndarray]]:
    """The module with as few inputs made constants as needed, and the arrays of the inputs that are left."""
    declined: CompilerError | None = None
    tried: list[list[int]] = []
    for bound in _bindings(arrays):
        if bound in tried:
            continue
        tried.append(bound)
        try:
            return _imported(model, arrays, bound, folder)
        except CompilerError as fault:
            declined = declined or fault
    assert declined is not None
    raise declined


def _imported(
    model: onnx.ModelProto, arrays: list[np.ndarray], bound: list[int], folder: Path
) -> tuple[Module, list[np.ndarray]]:
    """The module with the inputs `bound` made constants, and the arrays of the others."""
    given = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in given][: len(arrays)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(arrays[i], names[i]) for i in bound)
    path = folder / "case.onnx"
    path.write_bytes(copy.SerializeToString())
    free = [i for i in range(len(arrays)) if i not in bound]
    return load(path, {names[i]: arrays[i].shape for i in free}), [_held(arrays[i]) for i in free]


def _places(case: Any, module: Module, folder: Path) -> Iterator[str]:
    """Where a passing case runs: as it is, and with its inputs after the first as constants, which weights are."""
    yield place_of(module)
    arrays = [_array(a) for a in case.data_sets[0][0]]
    if 1 < len(arrays) == len(module.main.arguments):
        try:
            yield place_of(_imported(case.model, arrays, list(range(1, len(arrays))), folder)[0])
        except CompilerError:
            return  # an operator that takes no constants there has one place


# -- figures -----------------------------------------------------------------------------------------------------------
def main() -> None:
    operators: dict[str, dict[str, Any]] = defaultdict(lambda: {"passed": 0, "failed": {}, "out": Counter(),
                                                                "places": Counter()})  # fmt: skip
    passing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, case in sorted(all_cases().items()):
            row, outside, seen = operators[operator_of(case)], out_of_scope(case), []
            reason = problem(case, Path(folder), seen)
            if reason is None:
                passing.append(name)
            if outside is not None:
                row["out"][outside] += 1
            elif reason is None:
                row["passed"] += 1
                row["places"].update(_places(case, seen[0], Path(folder)))
            else:
                row["failed"][name] = DISPUTED.get(name, reason)
    PASSING.write_text("\n".join(passing) + "\n")
    FIGURES.write_text(json.dumps(operators, indent=1, sort_keys=True) + "\n")
    _write_page()
    passed = sum(r["passed"] for r in operators.values())
    failed = sum(len(r["failed"]) for r in operators.values())
    lines = [f"{name}: {why}" for row in operators.values() for name, why in row["failed"].items()]
    share = passed / (passed + failed)
    sys.stdout.write("\n".join([*lines, f"in scope: {passed} of {passed + failed} pass, {share:.1%}", ""]))


def _write_page() -> None:
    """The page that shows the figures."""
    path = HERE.parents[1] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    (path.parent / "supported-operators.md").write_text(generate.operators(), encoding="utf-8")


if __name__ == "__main__":
    main()
