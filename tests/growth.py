"""How the time of a call grows with the size of what it is given: a ratio of two runs means the same on every machine,
however busy."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

ROUNDS = 3
LINEAR = 1.6
"""Below this, time is not quadratic: what is linear comes to 1.0 to 1.2 on an idle machine, to 1.5 on a crowded one."""


def exponent(prepare: Callable[[int], Callable[[], object]], small: int, large: int) -> float:
    """The slope of log time over log size: 1 where time is linear in the size, 2 where it is quadratic.

    `prepare(size)` gives the call to be timed. Each size is timed several times in turn, the shortest counts.
    """
    calls = {size: prepare(size) for size in (small, large)}
    best = dict.fromkeys(calls, math.inf)
    gc.collect()
    gc.disable()  # its work grows with what other tests have left behind
    try:
        for _ in range(ROUNDS):
            for size, call in calls.items():
                start = time.process_time()
                call()
                best[size] = min(best[size], time.process_time() - start)
    finally:
        gc.enable()
    return math.log(best[large] / best[small]) / math.log(large / small)
