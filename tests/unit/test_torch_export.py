"""Archives of torch.export are read where torch is not installed, and damaged or foreign ones are refused clearly."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.lint import lint
from compiler.frontend.load import load
from compiler.frontend.torch_export import schema
from compiler.frontend.torch_export.nodes import operator_of

DATA = Path(__file__).parents[1] / "data" / "torch_export"
NAMES = sorted(p.stem for p in DATA.glob("*.pt2"))


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def write(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def edited(name: str, path: Path, edit: Callable[[Any], None]) -> Path:
    """An archive of the test data with its program changed."""
    content = members(DATA / f"{name}.pt2")
    (program,) = (m for m in content if "/models/" in m)
    data = json.loads(content[program])
    edit(data)
    content[program] = json.dumps(data).encode()
    return write(path / "edited.pt2", content)


def fault_of(path: Path, **options: Any) -> str:
    with pytest.raises(CompilerError) as caught:
        load(path, **options)
    return "\n".join(d.render() for d in caught.value.diagnostics)


# -- archives that are sound -------------------------------------------------------------------------------------------
def test_there_are_archives_to_read() -> None:
    assert len(NAMES) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_computes_what_torch_computed(name: str) -> None:
    module, arrays = load(DATA / f"{name}.pt2"), np.load(DATA / f"{name}.npz")
    inputs = [arrays[k] for k in arrays if k.startswith("input")]
    for value in module.attributes.get("first_state", {}).values():
        inputs.append(np.full(module.main.arguments[-1].type.static_shape, value, np.float32))
    found = Interpreter(module).run(inputs)
    expected = [arrays[k] for k in arrays if k.startswith("output")]
    assert len(found) - len(module.attributes.get("state", {})) == len(expected)
    for ours, theirs in zip(found, expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from compiler.frontend.load import load; "
        f"load({str(DATA / 'mobilenet.pt2')!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_values_and_weights_keep_the_names_of_the_model() -> None:
    module = load(DATA / "mobilenet.pt2")
    assert "stem.0.weight" in module.constants
    assert [a.name for a in module.main.arguments] == ["x"]
    names = {r.name for op in module.ops() for r in op.results}
    assert {"convolution", "relu"} <= names


def test_lint_lists_every_node_that_matters_with_its_fate() -> None:
    report = lint(DATA / "unet.pt2")
    assert report.ok
    assert {n.operator for n in report.nodes} >= {"aten::conv2d", "aten::conv_transpose2d", "aten::batch_norm"}


def test_state_is_named_after_the_buffer() -> None:
    module = load(DATA / "counter.pt2")
    assert module.attributes["state"] == {"mean.next": "mean"}
    assert module.attributes["first_state"] == {"mean": 0.5}


# -- archives that are not ---------------------------------------------------------------------------------------------
def test_a_newer_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    path = edited("writer", tmp_path, lambda d: d["schema_version"].update(major=99))
    assert "version 99" in fault_of(path)


def test_an_operator_without_converter_is_named_with_its_node(tmp_path: Path) -> None:
    def rename(data: Any) -> None:
        for node in data["graph_module"]["graph"]["nodes"]:
            node["target"] = node["target"].replace("aten.relu", "mine.strange")

    text = fault_of(edited("mobilenet", tmp_path, rename))
    assert "mine::strange" in text and "node 'relu'" in text
    report = lint(edited("mobilenet", tmp_path, rename))
    assert not report.ok
    fates = {n.name: n.status for n in report.nodes}
    assert fates["relu"] == "unsupported"
    assert "converted" in fates.values(), "nodes behind it are looked at by their declared types"


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    content = members(DATA / "mobilenet.pt2")
    (table,) = (m for m in content if m.endswith("weights_config.json"))
    entries = json.loads(content[table])
    del entries["config"]["head.weight"]
    content[table] = json.dumps(entries).encode()
    assert "'head.weight' is missing" in fault_of(write(tmp_path / "m.pt2", content))


def test_a_weight_that_reaches_past_its_storage_is_refused(tmp_path: Path) -> None:
    content = members(DATA / "mobilenet.pt2")
    (table,) = (m for m in content if m.endswith("weights_config.json"))
    entries = json.loads(content[table])
    entries["config"]["head.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 10**9
    content[table] = json.dumps(entries).encode()
    assert "'head.weight'" in fault_of(write(tmp_path / "m.pt2", content))


def test_an_undefined_name_is_a_fault_of_the_program(tmp_path: Path) -> None:
    def cut(data: Any) -> None:
        data["graph_module"]["graph"]["nodes"] = data["graph_module"]["graph"]["nodes"][1:]

    assert "nothing computes it" in fault_of(edited("mobilenet", tmp_path, cut))


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    def complexify(data: Any) -> None:
        data["graph_module"]["graph"]["tensor_values"]["x"]["dtype"] = 10

    assert "complex64" in fault_of(edited("writer", tmp_path, complexify))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a/data.pkl": b"", "a/code/m.py": b""}, "TorchScript archive"),
        ({"a/data.pkl": b""}, "is of torch.save"), ({"a/x": b""}, "holds no exported program"),
        ({"a/data/aotinductor/m.so": b""}, "compiled code only"), ({"a/byteorder": b"big"}, "big-endian"),
        ({"a/models/m.json": b"{"}, "damaged"), ({"a/models/m.json": b"[]"}, "no exported program"),
        ({"a/models/m.json": b"{}", "a/models/n.json": b"{}"}, "2 models"), ({"../x/y": b""}, "outside the archive"),
    ],
)  # fmt: skip
def test_other_archives_are_told_apart(content: dict[str, bytes], told: str, tmp_path: Path) -> None:
    assert told in fault_of(write(tmp_path / "m.pt2", content))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n", b"hello"])
def test_files_that_are_no_archives_are_told_apart(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(content)
    assert ("E220" if b"lfs" in content else "E201") in fault_of(tmp_path / "m.pt2")


# -- mutations ---------------------------------------------------------------------------------------------------------
def survives(path: Path) -> None:
    """Whatever the file holds, it is read or refused, never a crash."""
    try:
        load(path)
    except CompilerError as fault:
        assert fault.diagnostics


@pytest.mark.parametrize("name", ["writer", "counter", "lstm"])
def test_truncated_files_are_refused(name: str, tmp_path: Path) -> None:
    content = (DATA / f"{name}.pt2").read_bytes()
    for size in range(0, len(content), max(len(content) // 25, 1)):
        (tmp_path / "m.pt2").write_bytes(content[:size])
        assert fault_of(tmp_path / "m.pt2")


@pytest.mark.parametrize("name", ["writer", "counter", "gru", "lstm"])
def test_flipped_bytes_never_crash(name: str, tmp_path: Path) -> None:
    content, generator = (DATA / f"{name}.pt2").read_bytes(), random.Random(1)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 4, 30))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "m.pt2").write_bytes(damaged)
        survives(tmp_path / "m.pt2")


STRANGE: tuple[Any, ...] = (None, -1, 0, 2**70, 1e30, "", "x", [], {}, True, [[]], {"as_int": -5},
                             {"as_tensor": {"name": "x"}})  # fmt: skip


def mutated(data: Any, generator: random.Random) -> Any:
    """The data with one thing in it replaced, dropped, or repeated."""
    path, at = [], data
    while isinstance(at, dict | list) and at and (len(path) < 3 or generator.random() < 0.85):
        key = generator.choice(list(at)) if isinstance(at, dict) else generator.randrange(len(at))
        path.append((at, key))
        at = at[key]
    if not path:
        return data
    holder, key = path[-1]
    how = generator.random()
    if how < 0.6:
        holder[key] = deepcopy(generator.choice(STRANGE))
    elif how < 0.8:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, deepcopy(holder[generator.randrange(len(holder))]))
    else:
        holder[key] = deepcopy(holder[generator.choice(list(holder))])
    return data


@pytest.mark.parametrize("name", ["writer", "counter", "gru", "attention"])
def test_programs_that_are_not_of_the_schema_never_crash(name: str, tmp_path: Path) -> None:
    content, generator = members(DATA / f"{name}.pt2"), random.Random(2)
    tables = [m for m in content if m.endswith(".json")]
    originals = {m: content[m] for m in tables}
    for _ in range(150):
        member = generator.choice([m for m in tables if "/models/" in m] * 3 + tables)
        data = json.loads(originals[member])
        for _ in range(generator.choice((1, 1, 3))):
            mutated(data, generator)
        survives(write(tmp_path / "m.pt2", {**content, member: json.dumps(data).encode()}))


# -- the schema --------------------------------------------------------------------------------------------------------
def test_targets_are_operators_of_the_table() -> None:
    assert operator_of("torch.ops.aten.add.Tensor") == ("aten::add", "Tensor")
    assert operator_of("torch.ops.quantized_decomposed.quantize_per_tensor.default")[0].startswith("quantized_d")
    assert operator_of("_operator.mul") == ("aten::mul", "")
    assert operator_of("my.function") == ("my.function", "")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"as_int": 3}, 3), ({"as_ints": [1, 2]}, [1, 2]), ({"as_none": True}, None),
        ({"as_float": "-Infinity"}, -np.inf), ({"as_bool": False}, False), ({"as_scalar_type": 7}, 6),
        ({"as_sym_ints": [{"as_int": 2}, {"as_name": "s"}]}, [2, schema.Name("s")]),
        ({"as_optional_tensors": [{"as_none": True}, {"as_tensor": {"name": "x"}}]}, [None, schema.Name("x")]),
        ({"as_int": None, "as_string": "same"}, "same"), ({"as_device": {"type": "cpu"}}, None),
    ],
)  # fmt: skip
def test_arguments_are_python_values(data: Any, value: Any) -> None:
    assert schema.argument(data) == value


@pytest.mark.parametrize("data", [{}, [], {"as_int": "1"}, {"as_ints": 3}, {"as_tensor": {}}, {"as_scalar_type": 99}])
def test_arguments_of_no_kind_are_broken(data: Any) -> None:
    with pytest.raises(schema.Broken):
        schema.argument(data)


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("Symbol('s77', positive=True, integer=True)", "s77"), ("s0", "s0"), ("2*s0", "?"),
        ("Mul(Integer(2), Symbol('s1'))", "?"),
    ],
)  # fmt: skip
def test_open_dimensions_have_the_names_of_their_symbols(expression: str, name: str) -> None:
    assert schema.dimension({"as_expr": {"expr_str": expression, "hint": None}}) == name


def test_a_pickle_in_the_old_layout_may_not_name_what_it_likes(tmp_path: Path) -> None:
    content, inner = members(DATA / "lstm.pt2"), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    content["serialized_state_dict.pt"] = inner.getvalue()
    assert "posix" in fault_of(write(tmp_path / "m.pt2", content))
