"""Import the damaged models of a range of numbers, each within a time and all within an amount of memory; prints what
broke the rules, one line of JSON each. Run in a process of its own: `python import_mutated.py FIRST LAST`.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import compiler.evaluate.nn
import compiler.frontend.onnx.importer  # noqa: F401 - loaded before memory is limited
from compiler.errors import CompilerError
from compiler.frontend.load import load
from tests.property.onnx_mutations import mutated, seeds

SECONDS = 10
MEMORY = 1 << 30
"""Address space an import may take beyond what the interpreter and its libraries have."""


class TooLong(BaseException):
    """An import took more than its time."""


def _alarm(number: int, frame: Any) -> None:
    raise TooLong


def attempt(path: Path) -> str | None:
    """What an import did that it must not; None if it gave a module or a report."""
    signal.alarm(SECONDS)
    try:
        load(path)
    except CompilerError as fault:
        return None if fault.diagnostics and str(fault) else "an empty report"
    except TooLong:
        return f"more than {SECONDS} seconds"
    except BaseException as fault:
        return f"{type(fault).__name__}: {fault}"
    finally:
        signal.alarm(0)
    return None


def main() -> None:
    first, last = (int(word) for word in sys.argv[1:3])
    seeds()
    signal.signal(signal.SIGALRM, _alarm)
    with open("/proc/self/status") as file:
        now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for number in range(first, last):
            path.write_bytes(mutated(number))
            if (broken := attempt(path)) is not None:
                print(json.dumps({"number": number, "broken": broken}), flush=True)
    print(json.dumps({"done": last - first}))


if __name__ == "__main__":
    main()
