"""The same model, scheme and options give the same file: in any process, under any hash seed, with any number of
threads.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiler import driver
from compiler.frontend.load import load
from tests.endtoend.core_models import CORE_MODELS
from tests.journeys import random_inputs
from tests.random_networks import random_network

ROOT = Path(__file__).parents[2]

COMPILE = """
import hashlib, sys
from pathlib import Path
from compiler import driver
from compiler.frontend.load import load
from tests.random_networks import random_network
source, scheme, output = sys.argv[1:]
module = random_network(int(source), 10) if source.isdecimal() else load(source)
model = driver.compile_model(driver.prepare(module, crash_directory=None), scheme=Path(scheme), crash_directory=None)
model.save(output)
print(hashlib.sha256(Path(output).read_bytes()).hexdigest())
"""


def compiled_elsewhere(source: str, scheme: Path, output: Path, seed: str, threads: str) -> str:
    """The digest of the file that another process makes."""
    numbers = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads
    )
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, source, str(scheme), str(output)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **numbers, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_reproducible(source: str, scheme: Path, folder: Path) -> str:
    digests, twins = set(), set()
    for seed, threads in (("1", "1"), ("77", "4")):
        (folder / seed).mkdir()
        digests.add(compiled_elsewhere(source, scheme, folder / seed / "m.cambricon", seed, threads))
        twins.add((folder / seed / "m.cambricon_twins").read_bytes())
    assert len(digests) == len(twins) == 1
    return digests.pop()


@pytest.mark.parametrize("seed", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_two_processes_make_the_same_file_of_a_random_network(seed: int, tmp_path: Path) -> None:
    module = driver.prepare(random_network(seed, 10), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module, 7)], "minmax")
    scheme.save(tmp_path / "q.toml")
    digest = assert_reproducible(str(seed), tmp_path / "q.toml", tmp_path)
    here = driver.compile_model(module, scheme=scheme, crash_directory=None)
    here.save(tmp_path / "here.cambricon")
    assert hashlib.sha256((tmp_path / "here.cambricon").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "file",
    [
        "mnist_8.onnx",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("squeezenet_imagenet.onnx", "silero_vad_16k_static.onnx")),
    ],
)
def test_two_processes_make_the_same_file_of_a_real_model(file: str, models: Path, data: Path, tmp_path: Path) -> None:
    (model,) = (m for m in CORE_MODELS if m.file == file)
    module = driver.prepare(load(models / file, model.shapes), crash_directory=None)
    driver.calibrate(module, [model.inputs(data)], "minmax").save(tmp_path / "q.toml")
    assert_reproducible(str(models / file), tmp_path / "q.toml", tmp_path)


def test_calibration_is_reproducible_on_one_machine() -> None:
    module = driver.prepare(random_network(4, 10), crash_directory=None)
    batches = [random_inputs(module, seed) for seed in (1, 2, 3)]
    texts = {driver.calibrate(module, batches, "mse").to_toml() for _ in range(2)}
    assert len(texts) == 1
