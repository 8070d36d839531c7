"""The store beside a model of it that writes as late as the contract allows."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from changedsources import changed_sources
from cpp import FAST, ROOT, compile_cpp
from latewrites import LATE

from gen.program.structs import Addr, Move, Region, Segment, StoreEntry, StoreIo, words

ROWS, TILE = 2048, 4  # rows of the store under test, octets of a tile
SPILL = 600  # rows of DDR
RANKS = 4
RING_K, RING_V, JOINED = 1, 2, 3
LAGS = (2, 15, 32)
GUARD = 4  # cycles from a write to a read of it

# four ResultPairs that are written
WRITTEN = np.ones((4, 129), np.uint8)


def run(program, memory, latent, ys, steps, lag, depth, flags=(), spill=None, root=ROOT, drain=0):
    """(status, text, xs, rs, result, log, cycles); ``memory`` and ``spill`` are changed.
    ``drain``: cycles from the engine to the store, 0: at once.
    """
    if spill is None:
        spill = np.zeros((0, 2, 64), np.uint8)
    lib = ctypes.CDLL(str(compile_cpp(
        root / "tests/kernels/store.cpp", (*FAST, f"-DLDA_LAG={lag}", *flags)
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
    if "-DLDA_PLANT_FAULTS" in flags:
        lib.t_plant_fault(2)
    arrays = [
        segments, len(program.segments), entries, moves, io, latent, result, spill, 2 * len(spill),
        memory, plan, len(plan), ys, depth, drain, xs, rs, log, counts,
    ]  # fmt: skip
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
        # micro-slots so far; the last one that is known to be written; that wrote a row last
        self.now, self.settled, self.dirty = 0, -1, {}
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
            self.settled = self.now - 1
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

    def read(self, region, group, octet, i0, i1, when):
        """``when``: micro-slot of the execution, the first one in the lead slot; the last one of
        those before it that is written by then, as late as the flush allows.
        """
        slot, settled = when
        row, plane = place(region, group, octet, i0, i1)
        written = self.dirty.get(row, -1)
        far = written <= settled or self.now + slot - written >= self.lag + 2
        assert far, "the random program lacks a flush"
        pair = self.memory[row].copy()
        if plane is not None:
            pair[0] = pair[plane]
        return pair

    def ring(self, e, units, i0, i1, when):
        """Words of the ring weights of some units: list per unit."""
        pv = e.shape.pv_units
        for u in units:  # places of them, in joined products
            if u < pv:
                yield [self.read(e.pv_weights, u, o, i0, i1, when) for o in range(e.shape.pv_words)]
            elif e.shape.ring == RING_K:
                yield [
                    self.read(e.weights, g, octet, i0, i1, when)
                    for octet in range((u - pv) * RANKS, (u - pv + 1) * RANKS)
                    for g in range(e.weights.groups)
                ]
            else:
                yield [self.read(e.weights, u, o, i0, i1, when) for o in range(2 * e.shape.steps)]

    def settled_by(self, e, flushes, round_, tile):
        """The last micro-slot of the executions before that is written by a tile of a round (round
        0, tile -1: by the lead slot), as late as the flush allows.
        """
        if not flushes:
            return self.settled
        left = e.pending
        if tile >= 0:
            left = min(left, max(e.pending - (tile + 1) * e.pending_tile, e.pending_end))
        if round_ > 0:
            left = min(left, e.pending_end)
        return max(self.settled, self.now - 1 - left)

    def execute(self, e, i0, i1):
        s = e.shape
        flushes = e.flush == 1 or (e.flush == 2 and (i0, i1) == (0, 0))
        tiles = ceil(s.octets / TILE)
        units = list(range(s.units))
        rounds = [units[k : k + s.per_round] for k in range(0, s.units, s.per_round)]
        wide_round = min(s.per_round, s.units) // s.gates

        def reading(round_, tile):
            """Of what a tile reads in its first micro-slot; round 0, tile -1: the lead slot."""
            groups = wide_round if round_ == 0 else len(rounds[round_]) // s.gates
            slot = round_ * wide_round * tiles + max(tile, 0) * groups
            return slot, self.settled_by(e, flushes, round_, tile)

        # octets behind the lead are read beside a tile of round 0
        fill = [
            [
                self.read(e.source[n], g, o, i0, i1, reading(0, max(o - s.lead, -1) // TILE))
                for n in range(e.sources)
                for g in range(e.source[n].groups)
            ]
            for o in range(s.fill)
        ]
        # ring weights are read in the round before, those of round 1 in its last tile
        beside = [reading(0, -1), reading(0, tiles - 1)]
        beside += [reading(n, 0) for n in range(1, len(rounds) - 1)]
        loads = [
            list(self.ring(e, of_round, i0, i1, when)) if s.ring else []
            for of_round, when in zip(rounds, beside, strict=False)
        ]

        def send(octets):
            sent = [w for octet in octets for w in octet]
            self.xs += sent
            return len(sent)

        lead = send(loads[0]) + send(fill[: s.lead])
        self.steps.append((lead, 0, 0, 0))
        at, slot = s.lead, 0
        written = []
        tile_words = TILE * sum(e.source[n].groups for n in range(e.sources))
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
                        when = slot, self.settled_by(e, flushes, r, t)
                        self.rs += [self.read(e.residual, g, o, i0, i1, when) for o in octets]
                        rs = len(octets)
                    of_v = s.of_v(g)
                    # of a tile's fill, what a micro-slot reads
                    share = tile_words if not s.joined else e.pv_share if of_v else e.share
                    dest = e.pv_dest if of_v else e.dest
                    ys = len(octets) if dest.wide else len(octets) // 2
                    xs = (loaded if n == 0 else 0) + min(share, left)
                    left -= min(share, left)
                    last = r + 1 == len(rounds) and t + 1 == tiles and n + 1 == len(groups)
                    self.steps.append((xs, rs, ys, int(last)))
                    for o in octets if dest.wide else octets[::2]:
                        index = s.place(g) - (0 if of_v else s.pv_units)
                        row = place(dest, index, o, i0, i1)[0]
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
        self.settled = self.settled_by(e, flushes, len(rounds), tiles)
        self.now += slot


def check(program, seed, lag=15, depth=16, flags=(), root=ROOT, right=None, drain=0):
    """Cycles of the program, whose words are the model's; ``right``: that of the model, where it
    flushes otherwise.
    """
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, (ROWS, 2, 64), np.uint8)
    latent = rng.integers(0, 256, (program.io.input_rows, 2, 64), np.uint8)
    spill = rng.integers(0, 256, (SPILL, 2, 64), np.uint8)
    given, spilled = memory.copy(), spill.copy()
    model = Model(right or program, memory, latent, rng, spill, lag)
    ys = np.array(model.ys)
    status, text, xs, rs, result, log, cycles = run(
        program, given, latent, ys, model.steps, lag, depth, flags, spilled, root, drain
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


def with_late_writes(root):
    """Copies the store, with writes that come ``LDA_DELAY`` iterations late, or at the end of their
    loop; a flag that tells it from others.
    """
    tick = "#pragma HLS loop_tripcount min = 64 max = 65536\n        TICK(1);\n"
    write = "if (result.written) write_row<P>(memory, row_of(place, group, octet), row);"
    later = """const int to = row_of(place, group, octet);
        if (result.written) late().later([=, &memory] { write_row<P>(memory, to, row); });"""
    return changed_sources(
        root, "store.cpp",
        ("store", 2, tick, f"{tick}        late().tick(1);\n"),
        ("store", 4, "LOOP_EXIT();", "late().tick(LDA_DELAY); LOOP_EXIT();"),
        ("store_writes", 1, write, later),
        ("store_writes", 1, "namespace lda {", f"{LATE}namespace lda {{"),
    )  # fmt: skip


def entry(shape, dest, source, **more):
    values = {
        "flush": 0,
        "pending": 0,
        "pending_tile": 0,
        "pending_end": 0,
        "sources": 1,
        "weights": Region(),
        "residual": Region(),
        **more,
    }
    return StoreEntry(shape, source=(source, Region()), dest=dest, **values)


def wide(row, groups, octets):
    return Region(Addr(row), Addr(0), groups, 1, octets)
