"""Importing model files in processes of their own, to see time and memory apart from those of the tests. Not tests."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

MEASURE = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
limit = {limit!r}
{prepare}
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
before = peak()
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
start = time.perf_counter()
used = time.process_time()
answer = ""
{run}
cpu_seconds, seconds = time.process_time() - used, time.perf_counter() - start
print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds, before=before, peak=peak(), answer=answer)))
"""

IMPORT = (
    "import compiler.frontend.onnx.importer\nfrom compiler.errors import CompilerError\n"
    "from compiler.frontend.load import load\nfrom compiler.frontend.onnx.registry import load_converters\n"
    "from compiler.evaluate import tensor\nload_converters()",
    """
try:
    module = load({path!r}, {shapes!r})
except CompilerError as fault:
    answer = str(fault)
""",
)
ONNXRUNTIME = (
    "import onnxruntime\noptions = onnxruntime.SessionOptions()\noptions.log_severity_level = 4",
    "session = onnxruntime.InferenceSession({path!r}, options, providers=['CPUExecutionProvider'])",
)


@dataclass(frozen=True)
class Cost:
    """What an import took; `peak` includes `before`, what the interpreter and its libraries take. Bytes, seconds."""

    seconds: float
    cpu_seconds: float
    before: int
    peak: int
    answer: str = ""

    @property
    def grown(self) -> int:
        return self.peak - self.before


def cost(
    path: Path, how: tuple[str, str] = IMPORT, shapes: dict[str, tuple] | None = None, limit: int = 0,
    timeout: float = 120.0,
) -> Cost:  # fmt: skip
    """Run an import in a process of its own; `limit`: bytes of address space it may have. Raises where it dies."""
    prepare, run = how
    text = MEASURE.format(root=str(ROOT), limit=limit, prepare=prepare, run=run.format(path=str(path), shapes=shapes))
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout, check=False)
    if found.returncode:
        raise AssertionError(f"importing {path.name} ended with {found.returncode}: {found.stderr[-2000:]}")
    return Cost(**json.loads(found.stdout.splitlines()[-1]))
