"""Write the small archives in `tests/data/torchscript`, with inputs and torch's own answers beside them (.npz).

Run where torch is installed: `python -m tests.data.make_torchscript`. The tests that read them need no torch.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from tests import torch_networks as networks

FOLDER = Path(__file__).with_name("torchscript")
FILES = {
    "convnet.pt": (networks.convnet, "trace"), "scripted.jit": (
        lambda: (networks.Scripted().eval(), (torch.randn(2, 4),)), "script"),
    "attention.pt": (networks.SCRIPTED["attention"], "freeze"), "lstm.pt": (networks.SCRIPTED["lstm"], "script"),
    "quantised.ptl": (lambda: networks.quantised("qnnpack"), "mobile"), "dynamic.ptl": (networks.dynamic, "mobile"),
}  # fmt: skip


def without_sources(archive: bytes) -> bytes:
    """The archive without its debug members, which name the files of the machine it was made on."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            if not info.filename.endswith(".debug_pkl"):
                kind = zipfile.ZIP_DEFLATED if info.filename.endswith(".py") else zipfile.ZIP_STORED
                target.writestr(zipfile.ZipInfo(info.filename), source.read(info), kind)
    return buffer.getvalue()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (make, how) in FILES.items():
        torch.manual_seed(0)
        case = make()
        (FOLDER / name).write_bytes(without_sources(networks.saved(case, how)))
        with torch.no_grad():
            answers = networks.flat(case[0](*case[1]))
        arrays = {f"input{i}": x.numpy() for i, x in enumerate(case[1])}
        arrays |= {f"output{i}": np.asarray(a) for i, a in enumerate(answers)}
        np.savez(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
