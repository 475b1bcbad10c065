"""Write the small archives in `tests/data/torch_export`, with inputs and torch's own answers beside them (.npz).

Run where torch is installed: `python -m tests.data.make_torch_export`. The tests that read them need no torch.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._export.serde.serialize import serialize

from tests.exported_networks import networks

FOLDER = Path(__file__).with_name("torch_export")
FILES = {"mobilenet": "core", "attention": "training", "gru": "core", "unet": "training", "counter": "core",
         "writer": "training", "lstm": "old layout"}  # fmt: skip
"""Network → dialect, or the layout before torch 2.8 (in training dialect)."""


def without_sources(program: bytes) -> bytes:
    """The program without its stack traces, which name the files of the machine it was made on."""
    data = json.loads(program)
    for node in data["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return json.dumps(data, separators=(",", ":")).encode()


def current_layout(program: Any) -> bytes:
    saved, buffer = io.BytesIO(), io.BytesIO()
    torch.export.save(program, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            is_program = "/models/" in info.filename
            kind = zipfile.ZIP_DEFLATED if info.filename.endswith(".json") else zipfile.ZIP_STORED
            content = without_sources(content) if is_program else content
            if "/sample_inputs/" not in info.filename:
                target.writestr(zipfile.ZipInfo(info.filename), content, kind)
    return buffer.getvalue()


def old_layout(program: Any) -> bytes:
    artifact, buffer = serialize(program), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        members = {
            "version": b"8.2", "serialized_exported_program.json": without_sources(artifact.exported_program),
            "serialized_state_dict.pt": artifact.state_dict, "serialized_constants.pt": artifact.constants,
        }  # fmt: skip
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    made = networks()
    for name, how in FILES.items():
        network, inputs = made[name]
        program = torch.export.export(network, inputs)
        program = program.run_decompositions() if how == "core" else program
        content = old_layout(program) if how == "old layout" else current_layout(program)
        (FOLDER / f"{name}.pt2").write_bytes(content)
        with torch.no_grad():
            answers = network(*inputs)
        listed = answers if isinstance(answers, tuple) else (answers,)
        arrays = {f"input{i}": x.numpy() for i, x in enumerate(inputs)}
        arrays |= {f"output{i}": a.numpy() for i, a in enumerate(listed)}
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
