"""Pages and sweeps: what `profile` and `compare` show beyond their text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compiler.cli.sweep import axis
from compiler.report import charts
from compiler.report.charts import Part
from runtime.profile import profile
from runtime.session import Session
from targets.mlu220.container import OfflineModel
from targets.mlu220.hardware import load_board
from tests.command import Command, write_model

VOID = {"meta", "br", "rect", "circle", "line", "polyline", "link", "img"}


class Page(HTMLParser):
    """A page: its text, its tables as rows of cells, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = path.read_text(encoding="utf-8")
        self.addresses: list[str] = []
        self.feed(self.text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def segmented(path: Path) -> Path:
    """On the chip, on the host, on the chip again: twice; three subnets with two host segments between them."""
    random = np.random.default_rng(3)
    weights = {f"w{k}": random.normal(size=(8, c, 3, 3), scale=0.2) for k, c in enumerate((3, 8, 8))}
    nodes, value = [], "image"
    for k in range(3):
        name = "scores" if k == 2 else f"r{k}"
        nodes.append(helper.make_node("Conv", [value, f"w{k}"], [f"c{k}"], name=f"conv{k}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [name], name=f"relu{k}"))
        value = name
        if k < 2:
            value = f"s{k}"
            nodes.append(helper.make_node("Atan", [name], [value], name=f"sine{k}"))
    return write_model(path, nodes, {k: v.astype(np.float32) for k, v in weights.items()}, (1, 3, 16, 16))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline model of `segmented`; the model and data are beside it."""
    from compiler.cli.main import main

    folder = tmp_path_factory.mktemp("three")
    source = segmented(folder / "three.onnx")
    np.savez(folder / "x.npz", image=np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32))
    words = ["compile", source, "-o", folder / "three.cambricon", "--calibrate", folder / "x.npz"]
    assert main([str(w) for w in words]) == 0
    return folder / "three.cambricon"


# -- host segments ---------------------------------------------------------------------------------------------------
def test_a_model_of_three_subnets_profiles_as_one(command: Command, three: Path) -> None:
    result = command("profile", three)
    assert result.code == 0
    assert "steps        subnet0 > host0 > subnet1 > host1 > subnet2" in result.out
    for k in (0, 1):
        assert f"on the host  host{k} (not timed)" in result.out
    assert result.out.count("math.atan (1): no instruction for math.atan") == 2
    assert "8.19 kB from the board, 8.19 kB back: 0.0" in result.out


def test_totals_of_several_subnets_are_the_sums_of_their_own(three: Path) -> None:
    model = OfflineModel.load(three)
    report = profile(model, load_board(model.board))
    data = report.as_dict()
    functions: list[dict[str, float]] = data["functions"]  # type: ignore[assignment]
    assert [f["name"] for f in functions] == ["subnet0", "subnet1", "subnet2"]
    assert report.cycles == sum(f["cycles"] for f in functions)
    assert report.macs == sum(f["macs"] for f in functions)
    assert sum(report.implied_macs.values()) == 16 * 16 * 8 * 9 * (3 + 8 + 8)
    crossing = sum(s.transfer_seconds(report.board) for s in report.host)
    ends = sum(r.bytes for r in (*model.inputs, *model.outputs)) / report.board.host_bytes_per_second
    assert report.transfer_seconds == pytest.approx(crossing + ends)


def test_compile_and_inspect_tell_why_a_segment_is_on_the_host(command: Command, three: Path) -> None:
    compiled = command("compile", three.with_name("three.onnx"), "-o", "m.cambricon", "--calibrate",
                       three.with_name("x.npz"))  # fmt: skip
    assert "host1: on the host" in compiled.out and "no instruction for math.atan" in compiled.out
    assert "host0, on host, math.atan (1): no instruction for math.atan" in command("inspect", three).out


def test_segments_stand_in_the_page_too(command: Command, three: Path) -> None:
    assert command("profile", three, "--html", "r.html").code == 0
    page = Page(Path("r.html"))
    assert ["host0", "1", "8.19 kB", "8.19 kB", "0.010 ms", "math.atan (1): no instruction for math.atan"] in [
        [*row[:4], "0.010 ms", row[-1]] for row in page.rows if row[0] == "host0"
    ]


# -- pages -----------------------------------------------------------------------------------------------------------
def test_a_profile_s_page_has_every_kernel_and_fetches_nothing(command: Command, offline: Path) -> None:
    result = command("profile", offline, "--html", "r.html", "--json")
    page = Page(Path("r.html"))
    assert not page.addresses and "http" not in page.text
    (function,) = json.loads(result.out)["functions"]
    kernels = {k["name"]: k for k in function["kernels"]}
    rows = {row[-1]: row for row in page.rows if row[-1] in kernels}
    assert rows.keys() == kernels.keys()
    assert all(int(row[1]) == kernels[name]["cycles"] for name, row in rows.items())
    assert "analytical" in page.text and "[C] driver" in page.text


def test_a_comparison_s_page_has_every_value(command: Command, offline: Path) -> None:
    model, data = offline.with_name("small.onnx"), offline.with_name("images.npz")
    result = command("compare", model, offline, "--data", data, "--html", "c.html", "--json")
    assert result.code == 0
    page = Page(Path("c.html"))
    names = [v["name"] for v in json.loads(result.out)["values"]]
    assert [row[-2] for row in page.rows if row[-2:-1] and row[-2] in names] == names
    assert not page.addresses


def test_names_from_a_model_are_text_in_a_page_never_markup(command: Command, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["image"], ["scores"], name="<script>alert(1)</script>")]
    model = write_model(tmp_path / "m.onnx", nodes, {}, (1, 4))
    assert command("profile", model, "--html", "r.html").code == 0
    text = Path("r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_a_page_that_cannot_be_written_is_told_before_the_work(command: Command, offline: Path) -> None:
    result = command("profile", offline, "--html", "nowhere/r.html")
    assert result.code == 1 and "error[E101]" in result.err and result.out == ""


# -- sweeps ----------------------------------------------------------------------------------------------------------
def test_a_sweep_compiles_a_model_for_every_batch_and_number_of_cores(command: Command, model_file: Path) -> None:
    words = ("profile", model_file, "--sweep", "cores=1,2,4", "--sweep", "batch=1,4", "--html", "s.html")
    rows = json.loads(command(*words, "--json").out)["rows"]
    assert [(r["batch"], r["cores"]) for r in rows] == [(b, c) for b in (1, 4) for c in (1, 2, 4)]
    assert rows[0]["speedup"] == 1.0 and rows[-1]["speedup"] > 1.0
    assert all(r["macs"] >= r["batch"] * rows[0]["macs"] for r in rows)
    assert all(r["ddr_lower_bound"] <= r["ddr_bytes"] for r in rows)
    assert len([row for row in Page(Path("s.html")).rows if row[0].isdigit()]) == len(rows)


def test_a_sweep_s_row_is_what_the_profile_of_that_compilation_says(command: Command, model_file: Path) -> None:
    (row,) = json.loads(command("profile", model_file, "--sweep", "cores=2", "--json").out)["rows"]
    alone = json.loads(command("profile", model_file, "--cores", "2", "--json").out)
    assert (row["cycles"], row["macs"]) == (alone["cycles"], alone["macs"])
    assert row["joules_per_sample"] == pytest.approx(alone["joules"])


def test_a_sweep_is_printed_as_a_table(command: Command, model_file: Path) -> None:
    lines = command("profile", model_file, "--sweep", "cores=1,4").out.splitlines()
    assert lines[1].split()[:3] == ["cores", "batch", "ms"] and [line.split()[0] for line in lines[2:]] == ["1", "4"]


def test_ranges_that_are_made_up_are_said_to_be(command: Command, model_file: Path, calibration: Path) -> None:
    assert "ranges are made up" in command("profile", model_file).err
    assert "ranges are made up" not in command("profile", model_file, "--calibrate", calibration).err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sweep", "cores=1,2"), "made for one batch and number of cores"),
        (("--cores", "2"), "--cores: says how to compile"),
        (("--float", "f32", "--batch", "2"), "--float, --batch: says how to compile"),
    ],
)  # fmt: skip
def test_an_offline_model_cannot_be_compiled_otherwise(command: Command, offline: Path, words, told) -> None:
    result = command("profile", offline, *words)
    assert result.code == 1 and told in result.err and "help:" in result.err


def test_one_axis_is_swept_once_and_a_sweep_has_no_trace(command: Command, model_file: Path) -> None:
    assert "given twice" in command("profile", model_file, "--sweep", "cores=1", "--sweep", "cores=2").err
    assert "--trace is of one" in command("profile", model_file, "--sweep", "cores=1", "--trace", "t.json").err
    assert "leave out --cores" in command("profile", model_file, "--sweep", "cores=1,2", "--cores", "2").err


def test_a_sweep_over_more_cores_than_there_are_fails_before_it_compiles(command: Command, model_file: Path) -> None:
    told = command("profile", model_file, "--sweep", "cores=1,9").err
    assert "error[E605]" in told and "compiling for" not in told


@pytest.mark.parametrize("text", ["cores", "cores=", "cores=0", "cores=one", "threads=1,2", "batch=1,,2"])
def test_what_no_sweep_can_be_over_is_a_usage_error(command: Command, model_file: Path, text: str) -> None:
    assert command("profile", model_file, "--sweep", text).code == 2


def test_values_of_an_axis_are_taken_once() -> None:
    assert axis("batch=1,4,1") == ("batch", (1, 4))


def test_an_ir_file_of_a_quantised_module_goes_on_from_there(command: Command, offline: Path) -> None:
    model, scheme = offline.with_name("small.onnx"), offline.with_name("q.toml")
    assert command("opt", model, "-p", "prepare,quantize", "--scheme", scheme, "-o", "q.mlu").code == 0
    result = command("profile", "q.mlu", "--sweep", "cores=1,4", "--sweep", "batch=1,2", "--json")
    assert result.code == 0 and "ranges are made up" not in result.err
    rows = json.loads(result.out)["rows"]
    assert [(r["batch"], r["cores"]) for r in rows] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert rows[2]["macs"] >= 2 * rows[0]["macs"] > 0
    assert command("compile", "q.mlu", "-o", "q.cambricon").code == 0
    images = np.load(offline.with_name("images.npz"))["image"][:1]
    again = Session("q.cambricon").run(images)
    assert np.array_equal(again, Session(offline).run(images))
    assert "--scheme would come before that" in command("compile", "q.mlu", "-o", "x.cambricon", "--scheme", scheme).err


def test_an_ir_file_further_on_says_how_to_resume_it(command: Command, offline: Path) -> None:
    model, scheme = offline.with_name("small.onnx"), offline.with_name("q.toml")
    text = "prepare,quantize,convert-layout,partition"
    assert command("opt", model, "-p", text, "--scheme", scheme, "-o", "p.mlu").code == 0
    result = command("profile", "p.mlu", "--sweep", "cores=1,2")
    assert result.code == 1
    assert "is split between chip and host already" in result.err and "--pipeline" in result.err


# -- how a file was made ---------------------------------------------------------------------------------------------
def test_compare_makes_the_twin_as_the_file_was_made(command: Command, model_file: Path, calibration: Path) -> None:
    """Without a word about it: 16-bit weights, fp32, a pass before calibration."""
    made = command("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--float", "f32",
                   "--i16", "fc", "-p", "prune-magnitude{ratio=0.3}")  # fmt: skip
    assert made.code == 0, made.err
    result = command("compare", model_file, "m.cambricon", "--data", calibration, "--images", "2")
    assert result.code == 0, result.err
    assert ", the twin's bytes from m.cambricon" in result.out
    other = command("compare", model_file, "m.cambricon", "--data", calibration, "--images", "2", "--float", "f16")
    assert "not the twin's bytes" in other.out


def test_a_file_records_scheme_and_pipeline(offline: Path) -> None:
    made = OfflineModel.load(offline).metadata
    assert made["scheme"] == offline.with_name("q.toml").read_text(encoding="utf-8")
    assert made["pipeline"].startswith("quantize,convert-layout,partition,legalize")


def test_inspect_prints_the_scheme_when_asked(command: Command, offline: Path) -> None:
    assert command("inspect", offline, "--scheme").out == offline.with_name("q.toml").read_text(encoding="utf-8")
    assert "scheme: " in command("inspect", offline).out


def test_inspect_shows_the_plan_beside_its_lower_bound(command: Command, three: Path) -> None:
    out = command("inspect", three).out
    assert "workspace" in out and "lower bound" in out and "ratio 1.00" in out
    memory = json.loads(command("inspect", three, "--json").out)["memory"]
    assert all(m["workspace"] == m["lower_bound"] for m in memory)


# -- charts ----------------------------------------------------------------------------------------------------------
def test_a_strip_s_parts_fill_it_in_proportion() -> None:
    text = charts.strip([Part(1, "a", "one"), Part(3, "b", "three")], ("a", "b"), width=400)
    assert 'x="0.00" y="0.00" width="100.00"' in text and 'x="100.00" y="0.00" width="300.00"' in text


def test_a_chart_of_nothing_is_no_chart() -> None:
    assert charts.lines({"a": []}) == ""
    assert "rect" not in charts.strip([], ("a",))


def test_titles_in_charts_are_escaped() -> None:
    assert "<b>" not in charts.bars([("<b>", [Part(1, "a", "<b>")])], ("a",))
