"""store: what it reads in which order, and that its writes lag behind without a wrong row."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import pytest
from cpp import FAST, ROOT, compile_cpp

from gen.program.structs import Addr, Move, Region, Segment, Shape, StoreEntry, StoreIo, words

ROWS, TILE = 2048, 4  # rows of the store under test, octets of a tile
SPILL = 600  # rows of DDR
RANKS = 4
RING_K, RING_V, JOINED = 1, 2, 3
LAGS = (2, 15, 32)


# four ResultPairs that are written
WRITTEN = np.ones((4, 129), np.uint8)


def run(program, memory, latent, ys, steps, lag, depth, flags=(), spill=None):
    """(status, text, xs, rs, result, log, cycles); ``memory`` and ``spill`` are changed."""
    if spill is None:
        spill = np.zeros((0, 2, 64), np.uint8)
    lib = ctypes.CDLL(str(compile_cpp(
        ROOT / "tests/kernels/store.cpp", (*FAST, f"-DLDA_LAG={lag}", *flags)
    )))  # fmt: skip
    segments = np.array([w for s in program.segments for w in words(s)], np.int32)
    entries = np.array([w for e in program.entries for w in words(e)], np.int32)
    moves = np.array([w for m in program.moves for w in words(m)], np.int32)
    io = np.array(list(words(program.io)), np.int32)
    plan = np.array(steps, np.int32)
    assert ys.nbytes == 129 * plan[:, 2].sum()
    xs = np.zeros((plan[:, 0].sum(), 2, 64), np.uint8)
    rs = np.zeros((plan[:, 1].sum(), 2, 64), np.uint8)
    result = np.zeros((program.io.output_rows, 2, 64), np.uint8)
    log = np.zeros((len(program.executions()), 3), np.int32)
    counts = np.zeros(4, np.int32)
    text = ctypes.create_string_buffer(400)
    if flags:
        lib.t_plant_fault(2)
    arrays = [segments, len(program.segments), entries, moves, io, latent, result, spill,
              2 * len(spill), memory, plan, len(plan), ys, depth, xs, rs, log, counts]  # fmt: skip
    status = lib.t_store(
        *(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arrays),
        text, 400,
    )  # fmt: skip
    if status == 0:
        assert counts[:3].tolist() == [len(xs), len(rs), len(log)]
    return status, text.value.decode(), xs, rs, result, log, int(counts[3])


@dataclass
class Program:
    segments: list[Segment]
    entries: list[StoreEntry]
    io: StoreIo
    moves: list[Move] = field(default_factory=list)

    def executions(self):
        return [
            (k, i0, i1)
            for s in self.segments
            for i0 in range(s.n0)
            for i1 in range(s.n1)
            for k in range(s.first, s.first + s.count)
        ]


def place(region, group, octet, i0, i1):
    """(row, plane or None if both) of an octet."""
    absolute = region.octet.at(i0, i1) + octet
    row = region.row.at(i0, i1) + group * region.group_rows
    return (row + absolute, None) if region.wide else (row + absolute // 2, absolute % 2)


class Model:
    """The contract, one execution after the other, every write at once."""

    def __init__(self, program, memory, latent, rng, spill=None, lag=15):
        self.rng, self.memory, self.spill, self.lag = rng, memory, spill, lag
        self.xs, self.rs, self.ys, self.steps, self.flushed = [], [], [], [], []
        io = program.io
        memory[io.input_row : io.input_row + io.input_rows] = latent
        # micro-slots so far; those that have written rows which may still be on their way
        self.now, self.dirty = 0, {}
        for k, i0, i1 in program.executions():
            e = program.entries[k]
            moves = program.moves[e.moves_first :]
            before, after = e.moves_once + e.moves_before, e.moves_after
            self.move(moves[0 if (i0, i1) == (0, 0) else e.moves_once : before], i0, i1)
            self.execute(e, i0, i1)
            self.move(moves[before : before + after], i0, i1)
        self.result = memory[io.output_row : io.output_row + io.output_rows].copy()

    def move(self, moves, i0, i1):
        for move in moves:
            self.dirty = {}
            for piece in range(move.repeat):
                row = move.store.at(i0, i1) + piece * move.store_stride
                ddr = move.ddr.at(i0, i1) + piece * move.ddr_stride
                assert ddr + move.rows <= len(self.spill)
                assert row + move.rows <= len(self.memory)
                inside, outside = slice(row, row + move.rows), slice(ddr, ddr + move.rows)
                if move.put:
                    self.spill[outside] = self.memory[inside]
                else:
                    self.memory[inside] = self.spill[outside]

    def read(self, region, group, octet, i0, i1, slot=0):
        """``slot``: micro-slot of the execution, the first one in the lead slot."""
        row, plane = place(region, group, octet, i0, i1)
        far = row not in self.dirty or self.now + slot - self.dirty[row] >= self.lag + 2
        assert far, "the random program lacks a flush"
        pair = self.memory[row].copy()
        if plane is not None:
            pair[0] = pair[plane]
        return pair

    def ring(self, e, units, i0, i1):
        """Words of the ring weights of some units: list per unit."""
        pv = e.shape.pv_units
        for u in units:
            if u < pv:
                yield [self.read(e.pv_weights, u, o, i0, i1) for o in range(e.shape.pv_words)]
            elif e.shape.ring == RING_K:
                yield [
                    self.read(e.weights, g, octet, i0, i1)
                    for octet in range((u - pv) * RANKS, (u - pv + 1) * RANKS)
                    for g in range(e.weights.groups)
                ]
            else:
                yield [self.read(e.weights, u, o, i0, i1) for o in range(2 * e.shape.steps)]

    def execute(self, e, i0, i1):
        s = e.shape
        if e.flush == 1 or (e.flush == 2 and (i0, i1) == (0, 0)):
            self.dirty = {}
        tiles = ceil(s.octets / TILE)
        units = list(range(s.units))
        rounds = [units[k : k + s.per_round] for k in range(0, s.units, s.per_round)]
        # octets behind the lead are read beside a tile of round 0
        wide_round = min(s.per_round, s.units) // s.gates

        def beside(octet):
            return max(0, octet - s.lead) // TILE * wide_round

        fill = [
            [
                self.read(e.source[n], g, o, i0, i1, beside(o))
                for n in range(e.sources)
                for g in range(e.source[n].groups)
            ]
            for o in range(s.fill)
        ]
        loads = [list(self.ring(e, r, i0, i1)) for r in rounds] if s.ring else [[] for _ in rounds]

        def send(octets):
            sent = [w for octet in octets for w in octet]
            self.xs += sent
            return len(sent)

        lead = send(loads[0]) + send(fill[: s.lead])
        self.steps.append((lead, 0, 0, 0))
        at, slot = s.lead, 0
        written = []
        # of a tile's fill, what a micro-slot reads: joined ones read as much as they write
        tile_words = TILE * sum(e.source[n].groups for n in range(e.sources))
        share = ceil(tile_words / s.units) if s.pv_units else tile_words
        for r, of_round in enumerate(rounds):
            groups = [u // s.gates for u in of_round[:: s.gates]]
            due = (
                [w for unit in loads[r + 1] for w in unit] if s.ring and r + 1 < len(rounds) else []
            )
            rows = len(rounds[r + 1]) * s.steps if due else 0
            sent = 0
            for t in range(tiles):
                octets = range(t * TILE, min((t + 1) * TILE, s.octets))
                loaded, filled = 0, []
                if r == 0:
                    filled = fill[at : at + TILE]
                    at += TILE
                    need = rows if t + 1 == tiles else 0
                else:
                    need = min(rows, (t + 1) * ceil(rows / tiles))
                # K arrives for one rank after the other: a row needs its whole unit
                grain = (s.steps, s.ring_words) if s.ring == RING_K else (1, 2)
                upto = ceil(need / grain[0]) * grain[1]
                # those of round 1 come behind the fill, and the last tile of a round has none of it
                left = send(filled)
                loaded = send([due[sent:upto]])
                sent = max(sent, upto)
                for n, g in enumerate(groups):
                    rs = 0
                    if e.residual.groups:
                        self.rs += [self.read(e.residual, g, o, i0, i1, slot) for o in octets]
                        rs = len(octets)
                    of_v = g < s.pv_units
                    dest = e.pv_dest if of_v else e.dest
                    ys = len(octets) if dest.wide else len(octets) // 2
                    xs = (loaded if n == 0 else 0) + min(share, left)
                    left -= min(share, left)
                    last = r + 1 == len(rounds) and t + 1 == tiles and n + 1 == len(groups)
                    self.steps.append((xs, rs, ys, int(last)))
                    for o in octets if dest.wide else octets[::2]:
                        row = place(dest, g - (0 if of_v else s.pv_units), o, i0, i1)[0]
                        written.append((row, self.now + slot))
                    slot += 1
                assert left == 0
        assert at >= s.fill
        for row, when in written:
            word = self.rng.integers(0, 256, (2, 64), np.uint8)
            held = self.rng.random() < 0.9
            self.ys.append(np.append(word, np.uint8(held)))
            if held:
                self.memory[row] = word
            self.dirty[row] = when
        self.now += slot


def region(rng, base, rows, groups, octets, wide, loops=(1, 1), step=0):
    """A region of ``octets`` octets in ``rows`` rows from ``base`` on, shifted in its tensor."""
    first = 2 * int(rng.integers(0, 4))
    group_rows = (first + octets) // (1 if wide else 2)
    need = groups * group_rows + (loops[0] * loops[1] - 1) * step
    row = base + int(rng.integers(0, rows - need + 1))
    s1 = step
    return Region(Addr(row, s1 * loops[1], s1), Addr(first), groups, wide, group_rows)


def random_entry(rng, read_base, write_base, loops, flush, ring=0):
    wide = [int(rng.integers(0, 2)) for _ in range(4)]
    gates = 2 if ring == 0 and rng.random() < 0.3 else 1
    out_groups = int(rng.integers(1, 9))
    per_round = gates * int(rng.integers(1, 5))
    octets = 2 * int(rng.integers(1, 12))
    fill = 2 * int(rng.integers(1, 12))
    tiles = ceil(octets / TILE)
    lead = max(0, fill - tiles * TILE + int(rng.integers(0, 6)))
    lead = min(fill, max(lead, 1))
    sources = int(rng.integers(1, 3))
    local = int(rng.integers(1, 4))
    steps = int(rng.integers(1, 5)) if ring != RING_K else ceil(local * RANKS / 2)
    ring_words = {0: 0, RING_K: RANKS * local, RING_V: 2 * steps}[ring]
    step = 3

    def some(groups, octets, wide, base=read_base):
        return region(rng, base, 1024, groups, octets, wide, loops, step)

    weights = Region()
    if ring == RING_K:
        weights = some(local, out_groups * RANKS, 0)
    elif ring == RING_V:
        weights = some(out_groups, 2 * steps, 0)
    shape = Shape(out_groups * gates, per_round, gates, octets, steps, lead, fill, ring, ring_words)
    residual = some(out_groups, octets, 1) if not ring and rng.random() < 0.5 else Region()
    source = tuple(
        some(int(rng.integers(1, 4)), fill, wide[n]) if n < sources else Region() for n in range(2)
    )
    dest = some(out_groups, octets, wide[3], write_base)
    return StoreEntry(shape, flush, 0, 0, sources, source, weights, residual, dest)


def random_joined(rng, read_base, write_base, loops, flush):
    """A product with V beside one with K, of regions of their own."""
    units = [int(n) for n in rng.integers(1, 8, 2)]
    octets, local, step = 2 * int(rng.integers(1, 12)), int(rng.integers(1, 4)), 3
    pv_words = 2 * int(rng.integers(1, 8))
    lead = int(rng.integers(1, octets + 1))
    shape = Shape(
        sum(units), sum(units), 1, octets, ceil(local * RANKS / 2), lead, octets, RING_K,
        RANKS * local, pv_units=units[0], pv_steps=pv_words // 2, pv_words=pv_words,
    )  # fmt: skip

    def some(groups, octets, wide, base=read_base, rows=1024):
        return region(rng, base, rows, groups, octets, int(wide), loops, step)

    source = tuple(some(int(n), octets, rng.integers(2)) for n in rng.integers(1, 7, 2))
    wide = rng.integers(0, 2, 2)
    return StoreEntry(
        shape, flush, 0, 0, 2, source,
        weights=some(local, units[1] * RANKS, 0), residual=Region(),
        dest=some(units[1], octets, wide[0], write_base, 512),
        pv_weights=some(units[0], pv_words, 0),
        pv_dest=some(units[0], octets, wide[1], write_base + 512, 512),
    )  # fmt: skip


def random_program(rng, segments=6, joined=0.0):
    """Segments that read one half of the store and write the other one, in turns."""
    made, entries = [], []
    half = 0
    for _ in range(segments):
        loops = tuple(int(n) for n in rng.integers(1, 4, 2))
        count = int(rng.integers(1, 3))
        flush = 0 if half == 0 and not entries else 2
        for k in range(count):
            bases, waits = (1024 * half, 1024 * (1 - half)), flush if k == 0 else 0
            if joined and rng.random() < joined:
                entries.append(random_joined(rng, *bases, loops, waits))
            else:
                ring = int(rng.integers(0, 3))
                entries.append(random_entry(rng, *bases, loops, waits, ring))
        made.append(Segment(len(entries) - count, count, *loops))
        half = 1 - half if rng.random() < 0.7 else half
        if half != (entries[-1].dest.row.base < 1024):
            half = int(entries[-1].dest.row.base < 1024) ^ 1
    return Program(made, entries, StoreIo(3, 40, 1500, 33))


def check(program, seed, lag=15, depth=16, flags=()):
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (ROWS, 2, 64), np.uint8)
    latent = rng.integers(0, 256, (program.io.input_rows, 2, 64), np.uint8)
    spill = rng.integers(0, 256, (SPILL, 2, 64), np.uint8)
    given, spilled = memory.copy(), spill.copy()
    model = Model(program, memory, latent, rng, spill, lag)
    ys = np.array(model.ys)
    status, text, xs, rs, result, log, cycles = run(
        program, given, latent, ys, model.steps, lag, depth, flags, spilled
    )
    assert status == 0, text
    np.testing.assert_array_equal(spilled, spill)
    # of narrow octets only b[0] counts
    narrow = np.array([row[1] for row in xs]) != np.array([row[1] for row in model.xs])
    np.testing.assert_array_equal(xs[:, 0], np.array(model.xs)[:, 0])
    assert not narrow.any()
    np.testing.assert_array_equal(rs, np.array(model.rs).reshape(rs.shape))
    np.testing.assert_array_equal(given, memory)
    np.testing.assert_array_equal(result, model.result)
    np.testing.assert_array_equal(log, program.executions())
    return cycles


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed):
    rng = np.random.default_rng(seed)
    lag = LAGS[seed % 3]
    check(random_program(rng), seed, lag, depth=int(rng.integers(1, 60)))


@pytest.mark.parametrize("seed", range(24))
def test_random_joined_products(seed):
    rng = np.random.default_rng([seed, JOINED])
    lag = LAGS[seed % 3]
    program = random_program(rng, joined=1.0 if seed < 6 else 0.6)
    check(program, seed, lag, depth=int(rng.integers(1, 60)))


def joined_loop(tiles, of_v, of_k, lead=TILE, runs=4):
    """Pairs (item, head) one after the other: logits are read tile by tile as they are written over
    with those of the next pair, and never waited for.
    """
    octets, units = TILE * tiles, of_v + of_k
    shape = Shape(units, units, 1, octets, 2, lead, octets, RING_K, RANKS, pv_units=of_v,
                  pv_steps=8, pv_words=16)  # fmt: skip
    logits = wide(100, of_k, octets)
    one = entry(
        shape, logits, logits, pv_weights=Region(Addr(1400, 0, 8), Addr(0), of_v, 0, 8 * runs),
        weights=Region(Addr(1800, 0, 0), Addr(0, 0, RANKS * of_k), 1, 0, 200),
        pv_dest=Region(Addr(900, 0, octets // 2), Addr(0), of_v, 0, octets // 2 * runs),
    )  # fmt: skip
    one = replace(one, sources=2, source=(logits, wide(0, 1, octets)))
    return Program([Segment(0, 1, 1, runs)], [one], StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("depth", [0, 1, 16, 80])
@pytest.mark.parametrize(("tiles", "of_v", "of_k", "lag"), [
    (6, 1, 3, 15), (9, 2, 3, 34), (4, 1, 1, 3), (8, 1, 4, 29), (3, 3, 5, 7), (10, 1, 1, 15),
])  # fmt: skip
def test_logits_are_read_as_they_are_written_over(tiles, of_v, of_k, lag, depth):
    """The last of a tile is written (tiles - 2) * units + 1 micro-slots before it is read."""
    assert (tiles - 2) * (of_v + of_k) + 1 >= lag + 2
    check(joined_loop(tiles, of_v, of_k), 3, lag, depth)


@pytest.mark.parametrize(("tiles", "of_v", "of_k"), [(6, 1, 3), (3, 3, 5), (10, 1, 1)])
def test_logits_of_a_tile_too_early_lack_a_flush(tiles, of_v, of_k):
    lag = (tiles - 2) * (of_v + of_k) - 1
    check(joined_loop(tiles, of_v, of_k), 3, lag)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k), 3, lag + 1)
    # and earlier still, a tile is read in the lead
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(joined_loop(tiles, of_v, of_k, lead=2 * TILE), 3, lag)


def test_joined_products_read_as_much_as_they_write():
    """Not all of a tile's fill in one micro-slot: writes would stand still, then reads."""
    cycles = []
    for tiles in (9, 29):
        octets = TILE * tiles
        shape = Shape(10, 10, 1, octets, 2, 4, octets, RING_K, RANKS, pv_units=2, pv_steps=8,
                      pv_words=16)  # fmt: skip
        sources = (wide(0, 7, octets), Region(Addr(900), Addr(0), 3, 0, octets // 2))
        one = entry(
            shape, Region(Addr(1100), Addr(0), 8, 0, octets // 2), sources[0],
            weights=Region(Addr(1800), Addr(0), 1, 0, 100),
            pv_weights=Region(Addr(1900), Addr(0), 2, 0, 8),
            pv_dest=Region(Addr(1600), Addr(0), 2, 0, octets // 2),
        )  # fmt: skip
        one = replace(one, sources=2, source=sources)
        cycles.append(check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 5))
    # a share is 4 of 40 words
    assert abs(cycles[1] - cycles[0] - 20 * 10 * 4) <= 20


def random_move(rng, loops):
    """Pieces of up to three bursts, in the store one behind the other or far apart."""
    rows, repeat = int(rng.integers(1, 90)), int(rng.integers(1, 5))
    apart = rows + int(rng.integers(0, 20)), rows + int(rng.integers(0, 20))
    steps = [int(n) for n in rng.integers(0, 4, 2)]
    reach = sum(step * (loop - 1) for step, loop in zip(steps, loops, strict=True))
    store, ddr = (
        Addr(int(rng.integers(0, size - repeat * stride - reach)), *steps)
        for size, stride in zip((ROWS, SPILL), apart, strict=True)
    )
    return Move(int(rng.integers(0, 2)), rows, repeat, *apart, store, ddr)


def with_moves(rng, program):
    """The program with random moves before and after its executions."""
    moves, entries = [], []
    for segment in program.segments:
        for k in range(segment.first, segment.first + segment.count):
            counts = [int(n) for n in rng.integers(0, 3, 3) * (rng.random(3) < 0.6)]
            first = len(moves)
            moves += [random_move(rng, (segment.n0, segment.n1)) for _ in range(sum(counts))]
            entries.append(
                replace(
                    program.entries[k],
                    moves_first=first,
                    moves_once=counts[0],
                    moves_before=counts[1],
                    moves_after=counts[2],
                )
            )
    return replace(program, entries=entries, moves=moves)


@pytest.mark.parametrize("seed", range(24))
def test_random_moves(seed):
    rng = np.random.default_rng(100 + seed)
    lag = LAGS[seed % 3]
    check(
        with_moves(rng, random_program(rng, joined=0.3 * (seed % 2))),
        seed,
        lag,
        depth=int(rng.integers(1, 60)),
    )


@pytest.mark.parametrize(("put", "cycles_per_row"), [(0, 2 * 1.093), (1, 2 * 1.236)])
def test_moves_run_at_the_speed_of_the_memory(put, cycles_per_row):
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = entry(shape, wide(100, 1, 4), wide(0, 1, 4))
    times = []
    for rows in (40, 540):
        move = Move(put, rows, 1, 0, 0, Addr(1000), Addr(7))
        made = replace(one, moves_before=1)
        times.append(
            check(Program([Segment(0, 1)], [made], StoreIo(0, 1, 0, 1), [move]), 5, depth=4)
        )
    assert abs(times[1] - times[0] - 500 * cycles_per_row) < 0.01 * 500 * cycles_per_row


def test_a_move_beyond_the_spill_buffer_is_refused():
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = replace(entry(shape, wide(100, 1, 4), wide(0, 1, 4)), moves_before=1)
    for put, done in ((0, "read"), (1, "written")):
        move = Move(put, 3, 2, 3, 3, Addr(0), Addr(0))
        program = Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1), [move])
        status, text, *_ = run(
            program, np.zeros((ROWS, 2, 64), np.uint8), np.zeros((1, 2, 64), np.uint8),
            WRITTEN, [(4, 0, 0, 0), (0, 0, 4, 1)], 15, 36,
            spill=np.zeros((5, 2, 64), np.uint8),
        )  # fmt: skip
        assert status != 0
        assert text == f"buffer spill: word 11 is {done}, it has 10"


def entry(shape, dest, source, **more):
    values = {
        "flush": 0,
        "pending": 0,
        "pending_tile": 0,
        "sources": 1,
        "weights": Region(),
        "residual": Region(),
        **more,
    }
    return StoreEntry(shape, source=(source, Region()), dest=dest, **values)


def wide(row, groups, octets):
    return Region(Addr(row), Addr(0), groups, 1, octets)


@pytest.mark.parametrize("ring", [RING_K, RING_V])
def test_ring_weights_of_more_words_than_the_fifos_hold(ring):
    """They come as mac loads them: earlier, the store would stand still and fill ys."""
    octets, groups, per_round = 48, 12, 3
    steps = 10 if ring == RING_K else 60
    local = 5
    weights = Region(Addr(1300), Addr(0), local if ring == RING_K else groups, 0, 2 * 30)
    shape = Shape(groups, per_round, 1, octets, steps, 4, octets, ring,
                  RANKS * local if ring == RING_K else 2 * steps)  # fmt: skip
    one = entry(shape, wide(700, groups, octets), wide(0, 2, octets), weights=weights)
    check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 1, lag=15, depth=16)


def test_rounds_longer_than_the_lag():
    """The fill of a tile arrives although nothing behind it is read for a whole round."""
    octets = 24
    shape = Shape(20, 20, 1, octets, 1, 4, octets, 0, 0)
    one = entry(shape, wide(100, 20, octets), wide(0, 1, octets))
    check(Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1)), 1, lag=11, depth=0)


def chain(flush):
    """Two layers, the second one of which reads what the first one writes."""
    shape = Shape(2, 2, 1, 8, 3, 4, 8, 0, 0)
    entries = [
        entry(shape, wide(100, 2, 8), wide(0, 2, 8)),
        entry(shape, wide(200, 2, 8), wide(100, 2, 8), flush=flush),
    ]
    return Program([Segment(0, 1), Segment(1, 1)], entries, StoreIo(0, 1, 0, 1))


def test_a_missing_flush_reads_old_rows():
    check(chain(1), 3)
    check(chain(2), 3)
    with pytest.raises(AssertionError, match="lacks a flush"):
        check(chain(0), 3)
    rng = np.random.default_rng(3)
    memory = rng.integers(0, 256, (ROWS, 2, 64), np.uint8)
    latent = rng.integers(0, 256, (1, 2, 64), np.uint8)
    given = memory.copy()
    model = Model(chain(1), memory, latent, rng)
    status, _, xs, *_ = run(chain(0), given, latent, np.array(model.ys), model.steps, 32, 40)
    assert status == 0
    assert (xs != np.array(model.xs)).any()


@pytest.mark.parametrize("pending", [(0, 0), (18, 18), (18, 2), (18, 3), (7, 1)])
@pytest.mark.parametrize("depth", [1, 80])
def test_tiles_follow_the_layer_before(pending, depth):
    """The lead slot reads what the first tile has written, every tile what the next one has."""
    check(long_chain(*pending), 3, lag=32, depth=depth)


def long_chain(pending, pending_tile):
    """Two layers of two output groups and ten tiles."""
    octets = 40
    shape = Shape(2, 2, 1, octets, 3, 4, octets, 0, 0)
    later = {"flush": 1, "pending": pending, "pending_tile": pending_tile}
    entries = [
        entry(shape, wide(100, 2, octets), wide(0, 2, octets)),
        entry(shape, wide(200, 2, octets), wide(100, 2, octets), **later),
    ]
    return Program([Segment(0, 1), Segment(1, 1)], entries, StoreIo(0, 1, 0, 1))


@pytest.mark.parametrize("pending", [(19, 19), (18, 1)])
def test_tiles_that_are_too_early_read_old_rows(pending):
    with pytest.raises(AssertionError, match="not equal"):
        check(long_chain(*pending), 3, lag=32, depth=80)


def test_an_execution_that_flushes_leaves_nothing_pending():
    """Later iterations of a segment rely on the flush of its first one."""
    octets = 40
    first = entry(Shape(2, 2, 1, octets, 3, 4, octets, 0, 0), wide(100, 2, octets),
                  wide(0, 2, octets))  # fmt: skip
    source = Region(Addr(100), Addr(0, 0, octets // 2), 2, 1, octets)
    dest = Region(Addr(200), Addr(0, 0, octets // 2), 2, 1, octets)
    half = Shape(2, 2, 1, octets // 2, 3, 4, octets // 2, 0, 0)
    later = entry(half, dest, source, flush=2, pending=18, pending_tile=2)
    program = Program([Segment(0, 1), Segment(1, 1, 1, 2)], [first, later], StoreIo(0, 1, 0, 1))
    check(program, 3, lag=32, depth=80)


def test_following_tile_by_tile_is_faster():
    cycles = [check(long_chain(*each), 3, lag=32, depth=80) for each in ((0, 0), (18, 18), (18, 2))]
    assert cycles[0] > cycles[1] > cycles[2]


def test_without_a_flush_executions_overlap():
    """Independent layers follow each other without waiting for the engine's pipeline."""
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    source, dest = wide(0, 1, 4), Region(Addr(100, 0, 4), Addr(0), 1, 1, 4)
    overlapping = entry(shape, dest, source)
    loop = [Segment(0, 1, 1, 20)]
    io = StoreIo(0, 1, 0, 1)
    fast = check(Program(loop, [overlapping], io), 5, depth=4)
    slow = check(Program(loop, [replace(overlapping, flush=1)], io), 5, depth=4)
    assert fast < 0.75 * slow


def test_a_planted_fault_is_seen():
    rng = np.random.default_rng(0)
    program = random_program(rng)
    for each in (program, joined_loop(6, 2, 3)):
        check(each, 0, flags=())
        with pytest.raises(AssertionError, match="not equal"):
            check(each, 0, flags=("-DLDA_PLANT_FAULTS",))


def test_a_row_outside_of_the_store_is_refused():
    shape = Shape(1, 1, 1, 4, 1, 4, 4, 0, 0)
    one = entry(shape, wide(ROWS - 2, 1, 4), wide(0, 1, 4))
    program = Program([Segment(0, 1)], [one], StoreIo(0, 1, 0, 1))
    memory = np.zeros((ROWS, 2, 64), np.uint8)
    steps = [(4, 0, 0, 0), (0, 0, 4, 1)]
    status, text, *_ = run(
        program, memory, np.zeros((1, 2, 64), np.uint8), WRITTEN, steps, 15, 36
    )  # fmt: skip
    assert status != 0
    assert "a row outside of the activation store" in text
