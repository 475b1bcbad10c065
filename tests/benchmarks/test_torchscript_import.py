"""Reading TorchScript archives beside `torch.jit.load`: time in one process, interleaved, and peak memory in a process
each. Run with `--benchmark-enable -s --models DIR`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.frontend.load import load

ARCHIVES = {
    "mobilenet_v2_imagenet.pt": {}, "mobilenet_v2_int8_qnnpack.pt": {"x": (1, 3, 224, 224)},
    "resnet20_cifar10.pt": {}, "vit_mnist.pt": {}, "vit_mnist_int8dyn.ptl": {"img": (1, 1, 28, 28)},
    "silero_vad.jit": {"x": (1, 512)},
}  # fmt: skip
READ = """
import re
{first}
def peak():
    return re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
before = peak()
{then}
print(before, peak())
"""
OURS = """
from compiler.frontend.torchscript import importer
from compiler.frontend.aten.registry import load_converters
from compiler.frontend.load import load
load_converters()
"""


@pytest.fixture(scope="module", autouse=True)
def only_when_enabled(request: pytest.FixtureRequest) -> None:
    options = request.config.option
    if options.benchmark_disable and not options.benchmark_enable:
        pytest.skip("benchmarks are off; give --benchmark-enable")


def bindings(name: str) -> dict[str, int]:
    return {"sr": 16000} if name.startswith("silero") else {}


@pytest.mark.parametrize("name", ARCHIVES)
def test_import_time_beside_torch(name: str, models: Path, show: Callable[..., None]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = [], []
    for _ in range(6):
        start = time.perf_counter()
        load(models / name, ARCHIVES[name], bindings(name))
        middle = time.perf_counter()
        torch.jit.load(str(models / name))
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    show(f"{name}: {min(ours) * 1e3:.0f} ms, torch.jit.load {min(theirs) * 1e3:.0f} ms")
    assert min(ours) < 20 * min(theirs)


def peak(first: str, then: str) -> tuple[float, float]:
    """Memory in MB at its highest before and after reading."""
    code = READ.format(first=first, then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    before, after = map(int, done.stdout.split()[-2:])
    return before / 1024, after / 1024


@pytest.mark.parametrize("name", ["mobilenet_v2_imagenet.pt", "silero_vad.jit"])
def test_import_memory_beside_torch(name: str, models: Path, show: Callable[..., None]) -> None:
    pytest.importorskip("torch")
    path = models / name
    ours = peak(OURS, f"load({str(path)!r}, {ARCHIVES[name]!r}, {bindings(name)!r})")
    theirs = peak("import torch", f"torch.jit.load({str(path)!r})")
    show(f"{name}: {ours[0]:.0f} to {ours[1]:.0f} MB, torch {theirs[0]:.0f} to {theirs[1]:.0f} MB")
    assert ours[1] < theirs[1]
