"""The proof against a brute-force happens-before relation, and against every kind of damage to a correct program."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import isa_strategies
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import DMA, EMPTY, INPUT, NRAM, OUTPUT, SRAM, VECTOR, check, copy, double_buffered, program, relu

from compiler.errors import CompilerError
from runtime.oracle import Memories, execute, run_function
from targets.mlu220 import isa
from targets.mlu220.check import check_function, check_programs
from targets.mlu220.container_records import DeviceFunction

CORES = 2
OUTPUT_BYTES = 8


class Area(NamedTuple):
    """Bytes that an instruction touches. `memory`: (space, core or 0)."""

    memory: tuple[int, int]
    places: np.ndarray
    write: bool


Touch = Callable[[int, isa.Instruction], list[Area]]


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


def touched(core: int, i: isa.Instruction) -> list[Area]:
    """What a generated copy or relu touches, written down independently of its footprints."""
    if isinstance(i, isa.Copy):
        areas = [(i.src, i.run, False), (i.dst, i.run, True)]
    elif isinstance(i, isa.Unary):
        areas = [(isa.Address(NRAM, i.src), 4, False), (isa.Address(NRAM, i.dst), 4, True)]
    else:
        return []
    return [
        Area((a.space, core if a.space == NRAM else 0), np.arange(a.offset, a.offset + run), write)
        for a, run, write in areas
    ]


def footprint(core: int, i: isa.Instruction) -> list[Area]:
    """What any instruction touches, by its footprints."""
    a = isa.footprints(i.encode()[None])
    result = []
    for k in range(len(a)):
        places = np.arange(a.run[k])
        for count, stride in zip(a.counts[k], a.strides[k], strict=True):
            places = np.add.outer(stride * np.arange(count), places).reshape(-1)
        private = a.space[k] in (NRAM, isa.WRAM)
        result.append(Area((int(a.space[k]), core if private else 0), a.base[k] + places, bool(a.write[k])))
    return result


def queues_of(i: isa.Instruction) -> set[int]:
    if isinstance(i, isa.Barrier):
        return {0, 1, 2}
    return {int(i.queue)} if i.unit is isa.Unit.CONTROL else {int(i.unit)}


def reference(programs: dict[int, list[isa.Instruction]], outputs: list[int], touch: Touch = touched) -> str:
    """safe, hangs, race, unwritten or incomplete, by an explicit graph and its transitive closure."""
    node: dict[tuple[int, int], int] = {}
    meetings: dict[tuple[int, int], int] = {}  # (mask, how many before with this mask) → node
    members: dict[int, int] = {}
    for core, body in programs.items():
        for row, i in enumerate(body):
            node[core, row] = k = len(node) + len(meetings)
            if isinstance(i, isa.Barrier):
                earlier = sum(isinstance(j, isa.Barrier) and j.mask == i.mask for j in body[:row])
                node[core, row] = k = meetings.setdefault((i.mask, earlier), k)
                members[k] = members.get(k, 0) | 1 << core
    if any(members[k] != mask for (mask, _), k in meetings.items()):
        return "hangs"
    before = np.zeros((len(node) + len(meetings), len(node) + len(meetings)), bool)
    for (core, row), k in node.items():
        i = programs[core][row]
        for earlier in range(row):
            before[node[core, earlier], k] |= bool(queues_of(programs[core][earlier]) & queues_of(i))
        if isinstance(i, isa.Wait):
            sent = [
                m
                for (c, r), m in node.items()
                if isinstance(s := programs[c][r], isa.Signal) and s.counter == i.counter
            ]
            if len(sent) < i.value:
                return "hangs"
            before[sent[i.value - 1], k] = True
    for k in range(len(before)):
        before |= np.outer(before[:, k], before[k])
    if before.diagonal().any():
        return "hangs"
    areas = [(k, area) for (core, row), k in node.items() for area in touch(core, programs[core][row])]
    return verdict(areas, before, outputs)


def verdict(areas: list[tuple[int, Area]], before: np.ndarray, outputs: list[int]) -> str:
    """What the accesses of ordered nodes amount to."""
    for (a, first), (b, second) in itertools.combinations(areas, 2):
        free = a == b or before[a, b] or before[b, a] or not (first.write or second.write)
        if not free and first.memory == second.memory and len(np.intersect1d(first.places, second.places)):
            return "race"
    for reader, read in areas:
        if not (read.write or isa.is_input(read.memory[0]) or read.memory[0] == isa.CONSTANTS):
            writers = [x.places for k, x in areas if x.write and x.memory == read.memory and before[k, reader]]
            if len(np.setdiff1d(read.places, np.concatenate([[], *writers]))):
                return "unwritten"
    for k, size in enumerate(outputs):
        written = [x.places for _, x in areas if x.write and x.memory == (OUTPUT + k, 0)]
        if len(np.unique(np.concatenate([[], *written]))) < size:
            return "incomplete"
    return "safe"


def found(programs: dict[int, list[isa.Instruction]], **sizes) -> str:
    """The proof's answer in the words of `reference`."""
    cores = max(core for core in programs if core != isa.MEMORY_CORE) + 1
    rows = [program(*programs.get(core, [])) for core in [*range(cores), isa.MEMORY_CORE]]
    try:
        check_programs(rows, cores=cores, **sizes)
    except CompilerError as refused:
        codes = {d.code for d in refused.diagnostics}
        for code, word in (("E715", "hangs"), ("E716", "race"), ("E717", "unwritten"), ("E718", "incomplete")):
            if code in codes:
                return word
        raise
    return "safe"


SIZES = dict(inputs=[16], outputs=[OUTPUT_BYTES])


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from([True, True, True, False]))
@example([(0, ("relu", 4, 0)), (0, ("copy", (isa.SRAM, 0), (isa.NRAM, 0), 6))], False)  # unwritten bytes, then a race
def test_the_proof_agrees_with_a_brute_force_happens_before_relation(generated, prepared):
    programs = dict(enumerate(build(generated, prepared)))
    assert found(programs, **SIZES) == reference(programs, SIZES["outputs"])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_proof_agrees_with_brute_force_on_damaged_correct_programs(data):
    body = double_buffered(2, 4)
    for _ in range(data.draw(st.integers(0, 3))):
        k = data.draw(st.integers(0, len(body) - 1))
        body = body[:k] + body[k + 1 :]
    assert found({0: body}, **SIZES) == reference({0: body}, SIZES["outputs"])


# -- programs of every instruction -----------------------------------------------------------------------------------
def decoded(function: DeviceFunction) -> dict[int, list[isa.Instruction]]:
    ids = [*range(function.cores), isa.MEMORY_CORE]
    return {c: [isa.decode(row) for row in rows] for c, rows in zip(ids, function.programs, strict=True)}


@settings(max_examples=40, deadline=None)
@given(isa_strategies.programs(max_length=8), st.data())
def test_the_proof_agrees_with_brute_force_when_a_wait_or_barrier_is_lost(made, data):
    function, programs = made.function, decoded(made.function)
    places = [
        (c, k) for c, body in programs.items() for k, i in enumerate(body) if isinstance(i, isa.Wait | isa.Barrier)
    ]
    if places and data.draw(st.integers(0, 9)):
        core, row = data.draw(st.sampled_from(places))
        programs[core] = programs[core][:row] + programs[core][row + 1 :]
    outputs = [record.bytes for record in function.outputs]
    sizes = dict(
        inputs=[r.bytes for r in function.inputs], constants=made.constants.nbytes, workspace=function.workspace
    )
    assert found(programs, outputs=outputs, **sizes) == reference(programs, outputs, footprint)


def another_order(function: DeviceFunction, seed: int) -> list[tuple[int, int]]:
    """A random serial order that the queues allow, by running counters and barriers."""
    rng, programs = np.random.default_rng(seed), decoded(function)
    waiting = {
        (core, queue): [k for k, i in enumerate(body) if queue in queues_of(i)]
        for core, body in programs.items()
        for queue in range(3)
    }
    counters = dict.fromkeys(range(isa.COUNTERS), 0)

    def at_barrier(core: int, mask: int) -> bool:
        heads = {tuple(waiting[core, queue][:1]) for queue in range(3)}
        return len(heads) == 1 and () not in heads and programs[core][heads.pop()[0]] == isa.Barrier(mask=mask)

    def ready(core: int, queue: int) -> bool:
        i = programs[core][waiting[core, queue][0]]
        if isinstance(i, isa.Barrier):
            return all(at_barrier(member, i.mask) for member in programs if i.mask >> member & 1)
        return not isinstance(i, isa.Wait) or counters[i.counter] >= i.value

    order: list[tuple[int, int]] = []
    while any(waiting.values()):
        choices = [key for key, rows in waiting.items() if rows and ready(*key)]
        core, queue = choices[rng.integers(0, len(choices))]
        row = waiting[core, queue][0]
        i = programs[core][row]
        if isinstance(i, isa.Barrier):
            for member in (m for m in programs if i.mask >> m & 1):
                order.append((member, waiting[member, 0][0]))
                for q in range(3):
                    del waiting[member, q][0]
            continue
        if isinstance(i, isa.Signal):
            counters[i.counter] += 1
        del waiting[core, queue][0]
        order.append((core, row))
    return order


@settings(max_examples=25, deadline=None)
@given(isa_strategies.programs(max_length=8), st.integers(0, 2**32 - 1))
def test_a_proven_function_gives_the_same_bytes_in_any_order_and_on_any_memory(made, seed):
    proof = check_function(made.function, made.constants.nbytes)
    inputs = isa_strategies.random_inputs(seed, special=True)
    first = run_function(made.function, made.constants, inputs, proof.order)
    second = run_function(made.function, made.constants, inputs, another_order(made.function, seed), poison=0xFF)
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]


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
