"""The loop over descriptors, for one thread and for many. Nothing in here knows what a kernel does.

Descriptors are grouped into phases: those of a phase touch disjoint memory and may run at once. Many threads claim
chunks of a phase with an atomic counter; a phase is over when all its chunks are done, not when all threads have
arrived, so a late or preempted thread only finds the counter exhausted. Chunks write disjoint bytes that do not
depend on one another, hence the result does not depend on the number of threads.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import entry
from compiler.native.language import function
from compiler.native.memory import (
    atomic_add,
    atomic_exchange,
    atomic_load,
    call_kernel,
    call_yield,
    i64_at,
    pause,
)
from runtime.kernels.layout import CHUNKS, FIRST_CHUNK, FUNCTION, WORDS

# -- the control block: int64 words, what threads write on cache lines of its own
GENERATION, ACTIVE = 0, 16
ARENA, DESCRIPTORS, PHASES, PHASE_COUNT, COUNTERS, SCRATCH, SCRATCH_BYTES, YIELD, WORKERS, WOKEN = range(32, 42)
ASLEEP = 64
"""From here on: per thread, whether it sleeps."""
CONTROL_WORDS = 64
PHASE_WORDS = 4
"""First descriptor, end, chunks, unused."""
COUNTER_WORDS = 16
"""Per phase: chunks claimed, and half a line further chunks done."""
DONE = 64
SPINS = 1000
"""Turns of a waiting loop before the thread offers its processor to another."""
PATIENCE, TURNS = 100, 64
"""A worker looks this often for another run before it sleeps, with as many turns of a waiting loop in between: about a
tenth of a millisecond, some times what waking it takes."""


@entry(4)
def execute(arena, descriptors, count, scratch):
    """Run `count` descriptors in order on the calling thread."""
    for i in range(count):
        descriptor = descriptors + i * WORDS * 8
        d = i64_at(descriptor)
        for chunk in range(d[CHUNKS]):
            call_kernel(d[FUNCTION], arena, descriptor, chunk, scratch)


@function
def wait_for(address, value, yield_function):
    """Until the number at an address is `value`."""
    spins = 0
    while atomic_load(address) != value:
        pause()
        spins += 1
        if spins > SPINS:
            call_yield(yield_function)


@function
def run_phases(control, thread):
    c = i64_at(control)
    arena, descriptors = c[ARENA], c[DESCRIPTORS]
    scratch = c[SCRATCH] + thread * c[SCRATCH_BYTES]
    for k in range(c[PHASE_COUNT]):
        phase = i64_at(c[PHASES] + k * PHASE_WORDS * 8)
        total, i, end = phase[2], phase[0], phase[1]
        claimed = c[COUNTERS] + k * COUNTER_WORDS * 8
        while atomic_load(claimed) < total:
            chunk = atomic_add(claimed, 1)
            if chunk >= total:
                break
            while i + 1 < end and i64_at(descriptors + (i + 1) * WORDS * 8)[FIRST_CHUNK] <= chunk:
                i += 1
            descriptor = descriptors + i * WORDS * 8
            d = i64_at(descriptor)
            call_kernel(d[FUNCTION], arena, descriptor, chunk - d[FIRST_CHUNK], scratch)
            atomic_add(claimed + DONE, 1)
        wait_for(claimed + DONE, total, c[YIELD])


@entry(2)
def open_run(control, generation):
    """Reset the counters and let workers in; `generation` is odd. Parameters must stand in the control block. WOKEN
    gets the number of sleeping threads, whom the caller must wake."""
    c = i64_at(control)
    counters = i64_at(c[COUNTERS])
    for i in range(c[PHASE_COUNT] * COUNTER_WORDS):
        counters[i] = 0
    atomic_exchange(control + 8 * GENERATION, generation)
    woken = 0
    for thread in range(c[WORKERS]):
        woken += atomic_exchange(control + 8 * (ASLEEP + thread), 0)
    c[WOKEN] = woken


@entry(1)
def run_main(control):
    """Work on an open run until all phases are over, close it and wait for the workers to leave."""
    run_phases(control, 0)
    atomic_add(control + 8 * GENERATION, 1)
    wait_for(control + 8 * ACTIVE, 0, i64_at(control)[YIELD])


@function
def is_new_run(control, seen):
    """Whether a run is open that the thread has not been part of."""
    generation = atomic_load(control + 8 * GENERATION)
    return generation % 2 == 1 and generation != seen


@entry(2)
def run_worker(control, thread):
    """Join the runs that open, until there has been none for a while; then the thread counts as asleep.

    Announcing before looking makes sure that a closed run is never entered; looking once more after lying down, that
    none is slept through.
    """
    c = i64_at(control)
    asleep = control + 8 * (ASLEEP + thread)
    idle, seen = 0, 0
    while idle < PATIENCE:
        if is_new_run(control, seen):
            atomic_add(control + 8 * ACTIVE, 1)
            generation = atomic_load(control + 8 * GENERATION)
            if generation % 2 == 1:
                run_phases(control, thread)
                seen = generation
            atomic_add(control + 8 * ACTIVE, -1)
            idle = 0
        else:
            for _ in range(TURNS):
                pause()
            idle += 1
            if idle % 8 == 0:
                call_yield(c[YIELD])
            if idle == PATIENCE:
                atomic_exchange(asleep, 1)
                if is_new_run(control, seen):
                    atomic_exchange(asleep, 0)
                    idle = 0
