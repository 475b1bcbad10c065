"""The proof against a brute-force happens-before relation, and against every kind of damage to a correct program."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import DMA, EMPTY, INPUT, NRAM, OUTPUT, SRAM, VECTOR, check, copy, double_buffered, program, relu

from compiler.errors import CompilerError
from runtime.oracle import Memories, execute
from targets.mlu220 import isa
from targets.mlu220.check import check_programs

CORES = 2
OUTPUT_BYTES = 8


# -- every wait matters ----------------------------------------------------------------------------------------------
TILES = 5
CORRECT = double_buffered(TILES)
WAITS = [k for k, instruction in enumerate(CORRECT) if isinstance(instruction, isa.Wait)]


def test_the_double_buffered_program_is_safe():
    check(program(*CORRECT), inputs=[TILES * 256], outputs=[TILES * 256])


@pytest.mark.parametrize("removed", WAITS)
def test_removing_any_wait_of_a_double_buffered_program_is_a_race(removed):
    body = CORRECT[:removed] + CORRECT[removed + 1 :]
    with pytest.raises(CompilerError) as refused:
        check(program(*body), inputs=[TILES * 256], outputs=[TILES * 256])
    assert {d.code for d in refused.value.diagnostics} <= {"E716", "E717"}
    assert any(d.code == "E716" for d in refused.value.diagnostics)


@pytest.mark.parametrize("weakened", WAITS[1:])
def test_waiting_for_one_signal_less_is_a_race(weakened):
    body = list(CORRECT)
    old = body[weakened]
    if old.value == 1:
        return
    body[weakened] = isa.Wait(queue=old.queue, counter=old.counter, value=old.value - 1)
    with pytest.raises(CompilerError, match="E716"):
        check(program(*body), inputs=[TILES * 256], outputs=[TILES * 256])


# -- brute force -----------------------------------------------------------------------------------------------------
addresses = st.sampled_from([0, 4, 8])
places = st.tuples(st.sampled_from([NRAM, SRAM, OUTPUT]), addresses)
sources = places | st.just((INPUT, 0))
works = st.one_of(
    st.tuples(st.just("copy"), places, sources, st.sampled_from([4, 6])),
    st.tuples(st.just("relu"), addresses, addresses),
)
queues = st.sampled_from([DMA, VECTOR])
orders = st.one_of(
    st.tuples(st.just("signal"), queues),
    st.tuples(st.just("signal"), queues),
    st.tuples(st.just("wait"), queues, st.integers(0, 5), st.integers(0, 9)),
    st.tuples(st.just("wait"), queues, st.integers(0, 5), st.integers(0, 9)),
    st.tuples(st.just("barrier"), st.sampled_from([1, 2, 3])),
)
steps = st.lists(st.tuples(st.integers(0, CORES - 1), works | orders), min_size=4, max_size=20)


def build(generated: list[tuple[int, tuple]], prepared: bool) -> list[list[isa.Instruction]]:
    """A program per core. Most waits are for a signal that was generated before them, most barriers stand in all their
    cores; illegal instructions are left out. `prepared`: all memory is written before and the output after it."""
    bodies: list[list[isa.Instruction]] = [[] for _ in range(CORES)]
    sent: list[tuple[int, int]] = []
    for core, (kind, *rest) in generated:
        if kind == "copy":
            bodies[core].append(copy(*rest))
        elif kind == "relu":
            bodies[core].append(relu(*rest, 1))
        elif kind == "signal":
            counter = 3 * core + rest[0]
            sent.append((counter, 1 + sum(c == counter for c, _ in sent)))
            bodies[core].append(isa.Signal(queue=rest[0], counter=counter))
        elif kind == "wait" and sent:
            counter, value = sent[rest[2] % len(sent)] if rest[2] < 9 else (rest[1], 1)
            bodies[core].append(isa.Wait(queue=rest[0], counter=counter, value=value))
        elif kind == "barrier":
            for member in range(CORES):
                if rest[0] >> member & 1:
                    bodies[member].append(isa.Barrier(mask=rest[0]))
    bodies = [[i for i in body if not list(i.check()) and fits(i)] for body in bodies]
    if prepared:
        meet = isa.Barrier(mask=3)
        fill = [copy((NRAM, 0), (INPUT, 0), 14), copy((SRAM, 0), (INPUT, 0), 14), copy((OUTPUT, 0), (INPUT, 0), 8)]
        bodies = [[*(fill if core == 0 else fill[:1]), meet, *body] for core, body in enumerate(bodies)]
    return bodies


def fits(i: isa.Instruction) -> bool:
    """Whether a copy stays inside the output."""
    ends = [a.offset + i.run for a in (i.dst, i.src) if a.space == OUTPUT] if isinstance(i, isa.Copy) else []
    return all(end <= OUTPUT_BYTES for end in ends)


def touched(core: int, i: isa.Instruction) -> list[tuple[tuple, bool]]:
    """((memory, byte), is write) of an instruction, written down independently of its footprints."""
    if isinstance(i, isa.Copy):
        areas = [(i.src, i.run, False), (i.dst, i.run, True)]
    elif isinstance(i, isa.Unary):
        areas = [(isa.Address(NRAM, i.src), 4, False), (isa.Address(NRAM, i.dst), 4, True)]
    else:
        return []
    result = []
    for address, run, write in areas:
        memory = (address.space, core if address.space == NRAM else 0)
        result += [((memory, address.offset + k), write) for k in range(run)]
    return result


def reference(programs: list[list[isa.Instruction]]) -> str:
    """safe, hangs, race, unwritten or incomplete, by an explicit graph and its transitive closure."""
    nodes = [(core, row) for core, body in enumerate(programs) for row in range(len(body))]
    index = {node: k for k, node in enumerate(nodes)}
    before = np.zeros((len(nodes), len(nodes)), bool)

    def queues(i: isa.Instruction) -> set[int]:
        if isinstance(i, isa.Barrier):
            return {0, 1, 2}
        return {int(i.queue)} if i.unit is isa.Unit.CONTROL else {int(i.unit)}

    signals_of: dict[int, list[int]] = {}
    meetings: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for core, body in enumerate(programs):
        met = 0
        for row, i in enumerate(body):
            for earlier in range(row):
                if queues(body[earlier]) & queues(i):
                    before[index[core, earlier], index[core, row]] = True
            if isinstance(i, isa.Signal):
                signals_of.setdefault(i.counter, []).append(index[core, row])
            if isinstance(i, isa.Barrier) and i.mask == 3:
                meetings.setdefault((met, i.mask), []).append((core, row))
                met += 1
    for core, body in enumerate(programs):
        for row, i in enumerate(body):
            if isinstance(i, isa.Wait):
                sent = signals_of.get(i.counter, [])
                if len(sent) < i.value:
                    return "hangs"
                before[sent[i.value - 1], index[core, row]] = True
    for meeting in meetings.values():
        if len(meeting) != CORES:
            return "hangs"
        (a, b) = (index[m] for m in meeting)
        for x, y in ((a, b), (b, a)):  # what is before one is before what follows the other, and the reverse
            before[:, y] |= before[:, x]
            before[y] |= before[x]
    for k in range(len(nodes)):
        before |= np.outer(before[:, k], before[k])
    if before.diagonal().any():
        return "hangs"
    return verdict(programs, nodes, before)


def verdict(programs, nodes, before) -> str:
    """What the accesses of ordered nodes amount to."""
    accesses: dict[tuple, list[tuple[int, bool]]] = {}
    for k, (core, row) in enumerate(nodes):
        for place, write in touched(core, programs[core][row]):
            accesses.setdefault(place, []).append((k, write))
    unwritten = False
    for ((space, _), _), seen in accesses.items():
        for (a, a_writes), (b, b_writes) in itertools.combinations(seen, 2):
            if a != b and (a_writes or b_writes) and not before[a, b] and not before[b, a]:
                return "race"
        for reader, writes in seen:
            if not writes and space != INPUT:
                unwritten |= not any(w and before[k, reader] for k, w in seen)
    if unwritten:
        return "unwritten"
    written = {place for place, seen in accesses.items() if any(w for _, w in seen)}
    complete = all(((OUTPUT, 0), k) in written for k in range(OUTPUT_BYTES))
    return "safe" if complete else "incomplete"


def found(programs: list[list[isa.Instruction]]) -> str:
    """The proof's answer in the words of `reference`."""
    try:
        check(*(program(*body) for body in programs), inputs=[16], outputs=[OUTPUT_BYTES])
    except CompilerError as refused:
        codes = {d.code for d in refused.diagnostics}
        for code, word in (("E715", "hangs"), ("E716", "race"), ("E717", "unwritten"), ("E718", "incomplete")):
            if code in codes:
                return word
        raise
    return "safe"


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from([True, True, True, False]))
def test_the_proof_agrees_with_a_brute_force_happens_before_relation(generated, prepared):
    programs = build(generated, prepared)
    assert found(programs) == reference(programs)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_proof_agrees_with_brute_force_on_damaged_correct_programs(data):
    body = double_buffered(2, 4)
    for _ in range(data.draw(st.integers(0, 3))):
        k = data.draw(st.integers(0, len(body) - 1))
        body = body[:k] + body[k + 1 :]
    programs = [body, []]
    assert found(programs) == reference(programs)


# -- damage ----------------------------------------------------------------------------------------------------------
def mutated(rng: np.random.Generator) -> list[np.ndarray]:
    """A correct program of two cores with one to three of its words replaced."""
    rows = [program(*double_buffered(3, core=0)), program(*double_buffered(3, core=1)), EMPTY.copy()]
    rows[2] = program(copy((SRAM, 0), (INPUT, 0), 64), copy((SRAM, 64), (SRAM, 0), 32))
    for _ in range(rng.integers(1, 4)):
        victim = rows[rng.integers(0, 3)]
        row, word = rng.integers(0, len(victim)), rng.integers(0, isa.ROW_WORDS if rng.random() < 0.2 else 16)
        old = int(victim[row, word])
        values = [
            0,
            1,
            -1,
            2**31 - 1,
            -(2**31),
            old + 1,
            old - 1,
            old * 2,
            int(rng.integers(0, 64)),
            2**24,
            0x100,
            0x200,
        ]
        victim[row, word] = np.int64(values[rng.integers(0, len(values))]).astype(np.int32)
    return rows


def survives(seed: int) -> bool:
    """Whether a damaged program is proven; if so the oracle must run it without leaving any memory."""
    rows = mutated(np.random.default_rng(seed))
    try:
        proof = check_programs(rows, cores=2, inputs=[1536], outputs=[1536])
    except CompilerError as refused:
        assert refused.diagnostics
        return False
    memories = Memories.create(cores=2, inputs=[np.zeros(1536, np.uint8)], outputs=[1536])
    for core, row in proof.order.tolist():
        execute(rows[min(core, 2)][row], core, memories)
    return True


def test_a_damaged_program_is_refused_or_runs_within_its_memory():
    outcomes = {survives(seed) for seed in range(1000)}
    assert outcomes == {True, False}


@pytest.mark.slow
def test_ten_thousand_damaged_programs_never_crash():
    assert {survives(seed) for seed in range(10_000, 20_000)} == {True, False}


def test_rows_of_random_words_never_crash():
    rng = np.random.default_rng(11)
    opcodes = list(isa.INSTRUCTIONS)
    for _ in range(300):
        rows = rng.integers(-(2**31), 2**31, (5, isa.ROW_WORDS)).astype(np.int32)
        if rng.random() < 0.8:
            rows = np.where(rng.random(rows.shape) < 0.7, rng.integers(0, 4, rows.shape), rows).astype(np.int32)
        rows[:, 0] = rng.choice(opcodes, 5)
        for k in range(5):
            rows[k, isa.INSTRUCTIONS[int(rows[k, 0])].width :] = 0
        with pytest.raises(CompilerError):
            check_programs([rows, EMPTY], cores=1, inputs=[64], outputs=[64])
