"""Lint tells the fate of every node, with reasons, without compiling."""

from __future__ import annotations

import json
from pathlib import Path

from compiler.frontend.lint import lint
from compiler.ir.core import Op

from .onnx_graphs import model, node, random, write


def sample(folder: Path, *extra: object) -> Path:
    nodes = [
        node("Shape", ["x"], ["s"], name="shape"), node("Reshape", ["x", "s"], ["r"], name="reshape"),
        node("Relu", ["r"], ["h"], name="relu"), node("Conv", ["h", "w"], ["y"], name="conv"), *extra,
    ]  # fmt: skip
    outputs = [n.output[0] for n in extra] or ["y"]  # type: ignore[attr-defined]
    return write(model(nodes, {"x": (1, 2, 4, 4)}, outputs, {"w": random(2, 2, 1, 1)}), folder)


def test_every_node_has_a_fate(tmp_path: Path) -> None:
    report = lint(sample(tmp_path))
    assert {n.name: n.status for n in report.nodes} == {
        "shape": "folded", "reshape": "folded", "relu": "converted", "conv": "converted"
    }  # fmt: skip
    assert report.ok
    assert report.render().splitlines()[0] == "model.onnx: 4 nodes"


def test_unsupported_nodes_come_with_reason_and_remedy(tmp_path: Path) -> None:
    drawn = node("RandomNormalLike", ["y"], ["d"], name="drawn")
    report = lint(sample(tmp_path, drawn, node("Neg", ["d"], ["z"], name="neg")))
    assert not report.ok
    status = {n.name: n.status for n in report.nodes}
    assert (status["drawn"], status["neg"]) == ("unsupported", "blocked")
    text = "unsupported: RandomNormalLike: this operator is not supported\n  nodes (1): drawn\n  help:"
    assert text in report.render()


class OnlyConvolutions:
    """A target for the test."""

    def supports(self, op: Op) -> str | None:
        return None if op.op_name == "nn.conv2d" else "only convolutions run here"


def test_a_target_s_reasons_are_reported_as_host_nodes(tmp_path: Path) -> None:
    report = lint(sample(tmp_path), OnlyConvolutions())
    assert {n.name: n.reason for n in report.nodes if n.status == "host"} == {"relu": "only convolutions run here"}
    assert report.ok
    assert "host: Relu: only convolutions run here" in report.render()


def test_the_report_is_plain_data(tmp_path: Path) -> None:
    found = json.loads(json.dumps(lint(sample(tmp_path)).as_dict()))
    assert found["counts"] == {"folded": 2, "converted": 2}
    assert found["nodes"][3] == {"name": "conv", "op": "Conv", "status": "converted", "reason": "", "help": ""}


def test_faults_of_the_graph_are_part_of_the_report(tmp_path: Path) -> None:
    report = lint(write(model(node("Relu", ["nothing"], ["y"]), {"x": (1,)}), tmp_path))
    assert not report.ok
    assert [f.code for f in report.faults] == ["E213"]
    assert not report.nodes
