"""Random layer programs for the store alone."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
from storemodel import RANKS, RING_K, RING_V, ROWS, SPILL, TILE, Model, Program

from gen.program.structs import Addr, Move, Region, Segment, Shape, StoreEntry, StoreIo


def region(rng, base, rows, groups, octets, wide, loops=(1, 1), step=0):
    """A region of ``octets`` octets in ``rows`` rows from ``base`` on, shifted in its tensor."""
    first = 2 * int(rng.integers(0, 4))
    group_rows = (first + octets) // (1 if wide else 2)
    need = groups * group_rows + (loops[0] * loops[1] - 1) * step
    row = base + int(rng.integers(0, rows - need + 1))
    s1 = step
    return Region(Addr(row, s1 * loops[1], s1), Addr(first), groups, wide, group_rows)


def random_entry(rng, read_base, write_base, loops, flush, ring=0, rows=1024):
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
        return region(rng, base, rows, groups, octets, wide, loops, step)

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
    return StoreEntry(shape, flush, 0, 0, 0, sources, source, weights, residual, dest)


def random_turns(rng, of_v, of_k):
    """How far units with V are apart, if the last unit is to be one with K."""
    most = (of_v + of_k - 2) // (of_v - 1) if of_v > 1 else of_v + of_k
    return int(rng.integers(1, most + 1))


def random_shares(rng, words, of_v, of_k):
    """Of a micro-slot with V and of one with K: all words of a tile, sometimes more."""
    with_v = int(rng.integers(0, ceil(words / of_v) + 1))
    with_k = max(0, ceil((words - of_v * with_v) / of_k))
    return with_v, with_k + int(rng.integers(0, 3) * (rng.random() < 0.3))


def random_joined(rng, read_base, write_base, loops, flush, rows=1024):
    """A product with V beside one with K, of regions of their own."""
    units = int(rng.integers(1, 5)), int(rng.integers(1, 12))
    octets, local, step = 2 * int(rng.integers(1, 12)), int(rng.integers(1, 4)), 3
    pv_words = 2 * int(rng.integers(1, 8))
    lead = int(rng.integers(1, octets + 1))
    shape = Shape(
        sum(units), sum(units), 1, octets, ceil(local * RANKS / 2), lead, octets, RING_K,
        RANKS * local, pv_units=units[0], pv_every=random_turns(rng, *units),
        pv_steps=pv_words // 2, pv_words=pv_words,
    )  # fmt: skip

    def some(groups, octets, wide, base=read_base, rows=rows):
        return region(rng, base, rows, groups, octets, int(wide), loops, step)

    source = tuple(some(int(n), octets, rng.integers(2)) for n in rng.integers(1, 7, 2))
    wide = rng.integers(0, 2, 2)
    shares = random_shares(rng, TILE * sum(each.groups for each in source), *units)
    return StoreEntry(
        shape, flush, 0, 0, 0, 2, source,
        weights=some(local, units[1] * RANKS, 0), residual=Region(),
        dest=some(units[1], octets, wide[0], write_base, min(rows, 512)),
        pv_weights=some(units[0], pv_words, 0),
        pv_dest=some(units[0], octets, wide[1], write_base + 512, min(rows, 512)),
        pv_share=shares[0], share=shares[1],
    )  # fmt: skip


def random_program(rng, segments=6, joined=0.0, rows=1024):
    """Segments that read one half of the store and write the other one, in turns; ``rows`` each."""
    made, entries = [], []
    half = 0
    for _ in range(segments):
        loops = tuple(int(n) for n in rng.integers(1, 4, 2))
        count = int(rng.integers(1, 3))
        flush = 0 if half == 0 and not entries else 2
        for k in range(count):
            bases, waits = (1024 * half, 1024 * (1 - half)), flush if k == 0 else 0
            if joined and rng.random() < joined:
                entries.append(random_joined(rng, *bases, loops, waits, rows))
            else:
                ring = int(rng.integers(0, 3))
                entries.append(random_entry(rng, *bases, loops, waits, ring, rows))
        made.append(Segment(len(entries) - count, count, *loops))
        half = 1 - half if rng.random() < 0.7 else half
        if half != (entries[-1].dest.row.base < 1024):
            half = int(entries[-1].dest.row.base < 1024) ^ 1
    return Program(made, entries, StoreIo(3, 40, 1500, 33))


def holds(program, lag):
    """Whether nothing is read before it is written."""
    rng = np.random.default_rng(0)
    memory = np.zeros((ROWS, 2, 64), np.uint8)
    latent = np.zeros((program.io.input_rows, 2, 64), np.uint8)
    try:
        Model(program, memory, latent, rng, np.zeros((SPILL, 2, 64), np.uint8), lag)
    except AssertionError as error:
        assert "lacks a flush" in str(error)
        return False
    return True


def with_entry(program, k, **changed):
    entries = list(program.entries)
    entries[k] = replace(entries[k], **changed)
    return replace(program, entries=entries)


def with_pending(rng, program, lag):
    """The program with flushes that leave as many micro-slots pending as is allowed; those that are
    more than at the end are written tile by tile of round 0.
    """
    for k, entry in enumerate(program.entries):
        flush, tile = int(rng.integers(1, 3)), int(rng.integers(6))
        more = tile * int(rng.integers(ceil(entry.shape.octets / TILE) + 1))
        end, found = 0, program
        for step in (0, 16, 8, 4, 2, 1, 1):
            left = end + step
            made = with_entry(
                program, k, flush=flush, pending=min(left + more, lag), pending_tile=tile,
                pending_end=left,
            )  # fmt: skip
            if left <= lag and holds(made, lag):
                end, found = left, made
            elif step == 0:
                break
        program = found
    return program


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
