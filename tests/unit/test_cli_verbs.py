"""The other verbs: run, profile, opt, compare, inspect, disasm, asm, lint, list, debug."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler.evaluate.interpreter import Interpreter
from targets.mlu220.container import OfflineModel
from tests.command import Command, images, write_model

# -- run --------------------------------------------------------------------------------


def test_run_writes_the_outputs_of_all_samples(command: Command, offline: Path):
    result = command("run", offline, "--inputs", offline.with_name("images.npz"), "--output", "out.npz")
    assert result.code == 0
    assert result.out.startswith("6 samples")
    assert np.load("out.npz")["scores"].shape == (6, 4)


def test_run_is_close_to_the_float_model(command: Command, offline: Path):
    data, model = offline.with_name("images.npz"), offline.with_name("small.onnx")
    result = command("run", offline, "--inputs", data, "--against", model, "--tolerance", "0.1", "--json")
    assert result.code == 0
    told = json.loads(result.out)
    assert told["samples"] == 6
    assert 0 < told["error"]["scores"] < 0.1
    assert told["ok"] is True


def test_a_tolerance_that_is_not_met_is_exit_code_3(command: Command, offline: Path):
    data, model = offline.with_name("images.npz"), offline.with_name("small.onnx")
    result = command("run", offline, "--inputs", data, "--against", model, "--tolerance", "1e-9")
    assert result.code == 3
    assert "beyond the tolerance" in result.err


def test_the_oracle_gives_the_same_outputs(command: Command, offline: Path):
    data = offline.with_name("images.npz")
    command("run", offline, "--inputs", data, "--output", "fast.npz", "--threads", "1")
    command("run", offline, "--inputs", data, "--output", "slow.npz", "--engine", "oracle")
    assert np.array_equal(np.load("fast.npz")["scores"], np.load("slow.npz")["scores"])


def test_the_last_batch_is_filled_up_and_cut_off_again(command: Command, model_file: Path, calibration: Path):
    words = ("compile", model_file, "-o", "m.cambricon", "--calibrate", calibration, "--shape", "image=4x3x8x8")
    assert command(*words).code == 0
    result = command("run", "m.cambricon", "--inputs", calibration, "--output", "out.npz", "--against", model_file)
    assert "of 6 samples" in result.out
    assert np.load("out.npz")["scores"].shape == (6, 4)


def test_at_most_so_many_samples_are_run(command: Command, offline: Path):
    result = command("run", offline, "--inputs", offline.with_name("images.npz"), "--images", "2", "--json")
    assert json.loads(result.out)["samples"] == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--inputs", "none.npz"), "E114"),
        (("--inputs", "wrong.npz"), "E113"),
        (("--inputs", "empty.npz"), "E113"),
        (("--inputs", "."), "E113"),
        (("--inputs", "good.npz", "--tolerance", "0.1"), "E102"),
        (("--inputs", "good.npz", "--bind", "k=1"), "E102"),
        (("--inputs", "good.npz", "--against", "other.onnx"), "E115"),
        (("--inputs", "good.npz", "--output", "no/out.npz"), "E101"),
        (("--inputs", "good.npz", "--output", "good.npz"), "E101"),
        (("--inputs", "good.npz", "--against", "none.onnx"), "E201"),
    ],
)
def test_a_mistake_in_running_is_told(command: Command, offline: Path, words, code):
    images(Path("good.npz"))
    images(Path("empty.npz"), 0)
    np.savez("wrong.npz", image=np.zeros((2, 3, 5, 5), np.float32))
    x, y = (helper.make_tensor_value_info(name, 1, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph), "other.onnx")
    result = command("run", offline, *words)
    assert result.code == 1
    assert f"error[{code}]" in result.err


@pytest.mark.parametrize("verb", ["run", "profile", "disasm", "inspect"])
def test_a_damaged_file_is_refused_by_every_verb(command: Command, offline: Path, verb):
    data = bytearray(offline.read_bytes())
    data[len(data) // 2] ^= 1
    Path("damaged.cambricon").write_bytes(data)
    words = ("--inputs", offline.with_name("images.npz")) if verb == "run" else ()
    result = command(verb, "damaged.cambricon", *words)
    assert result.code == 1
    assert "checksum" in result.err


# -- profile, inspect --------------------------------------------------------------------------------


def test_profile_says_latency_and_that_it_is_a_model(command: Command, offline: Path):
    result = command("profile", offline)
    assert result.code == 0
    assert "latency" in result.out and "analytical" in result.out


def test_profile_as_json(command: Command, offline: Path):
    assert json.loads(command("profile", offline, "--json").out)


def test_inspect_reads_every_kind_of_file(command: Command, offline: Path, model_file: Path):
    command("opt", model_file, "-o", "small.mlu")
    for path, kind in ((model_file, "module"), ("small.mlu", "module"), (offline, "offline model")):
        result = command("inspect", path)
        assert result.code == 0
        assert f"kind: {kind}" in result.out
        assert json.loads(command("inspect", path, "--json").out)["inputs"][0]["name"] == "image"


# -- opt --------------------------------------------------------------------------------


def test_opt_prints_ir_that_parses_to_the_same_result(command: Command, model_file: Path, calibration: Path):
    result = command("opt", model_file, "-p", "prepare", "--inline-constants")
    assert result.code == 0
    assert "nn.batch_norm" not in result.out
    image = np.load(calibration)["image"][:1]
    wanted = Interpreter(compiler.load(model_file)).run([image])[0]
    assert np.allclose(Interpreter(compiler.parse(result.out)).run([image])[0], wanted, atol=1e-5)


def test_opt_writes_a_file_that_opt_reads(command: Command, model_file: Path):
    assert command("opt", model_file, "-p", "prepare", "-o", "a.mlu").code == 0
    printed = command("opt", "a.mlu")
    assert printed.code == 0
    assert printed.out == command("opt", model_file, "-p", "prepare").out


def test_opt_dumps_only_where_something_changed(command: Command, model_file: Path):
    result = command("opt", model_file, "-p", "simplify,fuse-batchnorm,fuse-batchnorm", "--dump-ir", "changed")
    assert result.out.count("fuse-batchnorm ----") == 1


def test_opt_stops_after_a_pass(command: Command, model_file: Path):
    assert "nn.batch_norm" in command("opt", model_file, "-p", "prepare", "--stop-after", "simplify").out
    assert "nn.batch_norm" not in command("opt", model_file, "-p", "prepare", "--stop-after", "fuse-batchnorm").out


def test_opt_counts_and_times_on_the_error_stream(command: Command, model_file: Path):
    result = command("opt", model_file, "-p", "prepare", "--pass-stats", "--time-passes", "-o", "x.mlu")
    assert result.out == ""
    assert "fuse-batchnorm" in result.err


def test_opt_tells_where_a_text_is_wrong(command: Command, model_file: Path):
    text = command("opt", model_file, "--inline-constants").out.replace("nn.relu", "nn.rellu")
    Path("wrong.mlu").write_text(text)
    result = command("opt", "wrong.mlu")
    assert result.code == 1
    assert "wrong.mlu" in result.err and "nn.relu" in result.err


# -- compare --------------------------------------------------------------------------------


def test_compare_lists_values_worst_first(command: Command, offline: Path):
    model, data = offline.with_name("small.onnx"), offline.with_name("images.npz")
    told = json.loads(command("compare", model, "--data", data, "--json").out)
    assert told["samples"] == 6 and told["after"] == "legalize"
    assert "scores" in {r["name"] for r in told["values"]}
    worst = min(told["values"], key=lambda r: r["accumulated"]["sqnr"])
    assert worst["name"] == told["worst"]
    text = command("compare", model, "--data", data, "--most", "1").out
    assert told["worst"] in text.splitlines()[3]


def test_compare_tells_whether_the_file_gives_the_bytes_of_the_module_compared(command: Command, offline: Path):
    model, data, scheme = (offline.with_name(n) for n in ("small.onnx", "images.npz", "q.toml"))
    same = command("compare", model, offline, "--data", data, "--scheme", scheme)
    assert "scores, the twin's bytes" in same.out and same.err == ""
    other = command("compare", model, "--float", "f32", offline, "--data", data, "--scheme", scheme)
    assert "scores, not the twin's bytes" in other.out and "was not made as the twin" in other.err


def test_compare_judges_an_ir_file(command: Command, offline: Path):
    model, data = offline.with_name("small.onnx"), offline.with_name("images.npz")
    command("opt", model, "-p", "prepare", "-o", "good.mlu")
    Path("bad.mlu").write_text(Path("good.mlu").read_text().replace("nn.relu", "math.abs"))
    Path("bad.safetensors").write_bytes(Path("good.safetensors").read_bytes())
    judge = ("--data", data, "--at-least", "30")
    good, bad = command("compare", model, "good.mlu", *judge), command("compare", model, "bad.mlu", *judge, "--json")
    assert (good.code, bad.code) == (0, 3)
    told = json.loads(bad.out)
    assert (told["after"], told["ok"]) == ("bad.mlu", False)
    assert told["worst_alone"] == "r"


def test_compare_takes_a_scheme(command: Command, offline: Path):
    model, data = offline.with_name("small.onnx"), offline.with_name("images.npz")
    scheme = offline.with_name("q.toml")
    assert command("compare", model, "--data", data, "--scheme", scheme).code == 0


# -- disasm, asm --------------------------------------------------------------------------------


def test_a_listing_assembles_back_to_the_same_bytes(command: Command, offline: Path):
    assert command("disasm", offline, "-o", "m.asm").code == 0
    assert command("asm", "m.asm", "-o", "m.cambricon").code == 0
    assert Path("m.cambricon").read_bytes() == offline.read_bytes()


def test_disasm_prints_and_says_what_it_leaves_out(command: Command, offline: Path):
    result = command("disasm", offline)
    assert "conv" in result.out
    assert "constants are left out" in result.err


def test_an_edited_listing_changes_the_result_and_stays_proved(command: Command, offline: Path):
    command("disasm", offline, "-o", "m.asm")
    text = Path("m.asm").read_text()
    assert "function=RELU" in text
    Path("m.asm").write_text(text.replace("function=RELU", "function=ABS"))
    assert command("asm", "m.asm", "-o", "abs.cambricon").code == 0
    data = offline.with_name("images.npz")
    assert command("run", "abs.cambricon", "--inputs", data, "--output", "abs.npz").code == 0
    command("run", offline, "--inputs", data, "--output", "relu.npz")
    assert not np.array_equal(np.load("abs.npz")["scores"], np.load("relu.npz")["scores"])


def test_a_wrong_listing_is_refused_at_its_line(command: Command, offline: Path):
    command("disasm", offline, "-o", "m.asm")
    Path("m.asm").write_text(Path("m.asm").read_text().replace("function=RELU", "function=RELUU"))
    result = command("asm", "m.asm", "-o", "m.cambricon")
    assert result.code == 1
    assert "m.asm" in result.err and "RELU" in result.err
    assert not Path("m.cambricon").exists()


@pytest.mark.parametrize("words", [("disasm", "m.cambricon", "-o", "m.cambricon"), ("asm", "m.asm", "-o", "m.asm")])
def test_an_output_never_replaces_its_input(command: Command, offline: Path, words):
    Path("m.cambricon").write_bytes(offline.read_bytes())
    command("disasm", "m.cambricon", "-o", "m.asm")
    before = Path(words[1]).read_bytes()
    assert command(*words).code == 1
    assert Path(words[1]).read_bytes() == before


# -- lint, list --------------------------------------------------------------------------------


def test_lint_of_a_good_model_is_exit_code_0(command: Command, model_file: Path):
    result = command("lint", model_file)
    assert result.code == 0
    assert "6 nodes" in result.out
    nodes = json.loads(command("lint", model_file, "--json").out)["nodes"]
    assert {n["status"] for n in nodes} <= {"converted", "folded"}


def test_lint_of_an_unsupported_model_is_exit_code_1_with_a_reason_per_node(command: Command, tmp_path: Path):
    nodes = [helper.make_node("RandomNormalLike", ["image"], ["scores"], name="noise")]
    model = write_model(tmp_path / "odd.onnx", nodes, {}, (1, 3))
    assert command("lint", model).code == 1
    result = command("lint", model, "--json")
    assert result.code == 1
    assert json.loads(result.out)["nodes"][0]["reason"]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("passes", {"simplify", "fuse-batchnorm", "prune-channels", "quantize", "schedule"}),
        ("pipelines", {"prepare", "mlu220"}),
        ("ops", {"nn.conv2d", "math.add", "graph.kernel"}),
        ("boards", {"m2", "som", "edge"}),
        ("calibrators", {"auto", "minmax", "mse"}),
        ("instructions", {"conv", "copy", "pool", "barrier"}),
    ],
)
def test_lists_name_what_there_is(command: Command, what, names):
    rows = json.loads(command("list", what, "--json").out)
    assert names <= {r["name"] for r in rows}
    text = command("list", what).out
    assert all(name in text for name in names)


def test_every_listed_pass_has_a_summary(command: Command):
    assert all(row["summary"] for row in json.loads(command("list", "passes", "--json").out))


# -- debug --------------------------------------------------------------------------------


def test_bisect_names_the_pass_and_the_rewrite(command: Command, model_file: Path):
    check = f"{sys.executable} -c \"import sys; sys.exit('batch_norm' not in open(sys.argv[1]).read())\""
    result = command("debug", "bisect", model_file, "-p", "prepare", "--check", check)
    assert result.code == 0
    assert "fuse-batchnorm" in result.out


PASS = """
from dataclasses import dataclass
from compiler.pass_manager import Pass

@dataclass(frozen=True, kw_only=True)
class Fragile(Pass):
    \"\"\"Crashes, until it is mended.\"\"\"
    name = "fragile"

    def run(self, module, ctx):
        BODY
"""


def test_replay_crashes_again_until_the_pass_is_mended(command: Command, model_file: Path):
    Path("fragile.py").write_text(PASS.replace("BODY", "raise RuntimeError('here')"))
    assert command("opt", model_file, "-p", "simplify,fragile", "--load-pass", "fragile.py").code == 70
    replay = ("debug", "replay", "crash-fragile.mlu", "--load-pass", "fragile.py")
    assert command(*replay).code == 70
    Path("fragile.py").write_text(PASS.replace("BODY", "return None"))
    result = command(*replay)
    assert result.code == 0
    assert "runs through" in result.out


def test_models_written_by_disasm_and_asm_carry_the_same_records(command: Command, offline: Path):
    command("disasm", offline, "-o", "m.asm")
    command("asm", "m.asm", "-o", "m.cambricon")
    assert OfflineModel.load("m.cambricon").inputs == OfflineModel.load(offline).inputs


def test_opt_does_not_replace_the_model_it_reads(command: Command, model_file: Path):
    before = model_file.read_bytes()
    result = command("opt", model_file, "-p", "prepare", "-o", model_file)
    assert result.code == 1 and "the output would replace an input" in result.err
    assert model_file.read_bytes() == before


def test_outputs_that_are_no_numbers_never_meet_a_tolerance(command: Command, offline: Path, tmp_path: Path):
    (record,) = OfflineModel.load(offline).inputs
    np.savez(tmp_path / "nan.npz", **{record.name: np.full((2, *record.shape[1:]), np.nan, np.float32)})
    float_model = next(p for p in offline.parent.iterdir() if p.suffix == ".onnx")
    result = command("run", offline, "--inputs", tmp_path / "nan.npz", "--against", float_model, "--tolerance", "0.5")
    assert result.code == 3
    assert f"input {record.name!r} holds NaN" in result.err


def test_passes_that_compile_runs_later_are_refused_before(command: Command, model_file: Path, tmp_path: Path):
    result = command("compile", model_file, "-o", tmp_path / "m.cambricon", "-p", "simplify,mlu220")
    assert result.code == 1 and "-p runs before calibration" in result.err


def test_images_taken_as_they_are_bring_a_warning(command: Command, offline: Path, tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    result = command("run", offline, "--inputs", tmp_path / "photos")
    assert "warning[E116] images are taken as they are" in result.err


def test_every_method_of_calibration_is_listed_with_what_it_does(command: Command):
    from passes.quantization.observers import METHODS
    from passes.quantization.trials import CANDIDATES

    rows = {row["name"]: row["summary"] for row in json.loads(command("list", "calibrators", "--json").out)}
    assert list(rows) == ["auto", *METHODS]
    assert all(len(summary) > 10 for summary in rows.values())
    assert {name for name, summary in rows.items() if summary.endswith("*")} == set(CANDIDATES)


def test_another_network_than_the_file_was_made_of_is_told(command: Command, offline: Path):
    other = write_model(Path("other.onnx"), [helper.make_node("Relu", ["image"], ["scores"])], {}, (1, 4))
    data = offline.with_name("images.npz")
    for words in (("compare", other, offline, "--data", data), ("run", offline, "--inputs", data, "--against", other)):
        result = command(*words)
        assert result.code == 1 and "error[E115] does not take the inputs of the offline model" in result.err
