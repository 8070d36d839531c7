"""A slow reading of docs/engine.md: executes a layer program over the stores and DDR words of all
ranks.

It knows nothing of the layer graph: only entries, addresses and bytes. Arithmetic of single values
comes from ``gen.reference``; what is tested is where values lie and in which order they come.
Writes to the store are as late as the contract allows: micro-slot m's are done before the reads of
micro-slot m + LAG + 2, or when an entry asks for a flush, but for those that may be pending.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from program_execution import Execution

from gen.program import pack_latent, unpack_result


class Emulator:
    """Stores, statistics and DDR buffers of all ranks. ``rows`` is uint8 [ranks, rows, 2, 64]."""

    def __init__(self, program, static, dynamic):
        self.program, self.ranks = program, program.engine.ranks
        # unwritten rows hold rubbish: nothing valid may depend on them
        rng = np.random.default_rng(7)
        shape = (self.ranks, program.engine.store_rows, 2, 64)
        self.rows = rng.integers(0, 256, shape, dtype=np.uint8)
        self.sums, self.row_stats = {}, {}
        self.buffers = [
            np.frombuffer(bytes(each), np.uint8).reshape(self.ranks, -1, 64)
            for each in (static, dynamic.tobytes())
        ]
        self.spill = rng.integers(0, 256, (self.ranks, program.spill_rows, 2, 64), dtype=np.uint8)
        self.parameters = []  # pp words of the last execution that they were sent for
        self.pending = deque()
        self.slot = 0

    def step(self, latent, observe=None):
        program = self.program
        self.observe = observe
        self.rows[:, span(program.input_row, program.input_rows)] = np.stack(
            pack_latent(program, latent)
        ).reshape(self.ranks, -1, 2, 64)
        for segment in program.segments:
            for i0 in range(segment.n0):
                for i1 in range(segment.n1):
                    for index in range(segment.first, segment.first + segment.count):
                        entry = program.entries[index].store
                        first = entry.moves_first
                        each = first + entry.moves_once
                        after = each + entry.moves_before
                        self.move(range(first if (i0, i1) == (0, 0) else each, after), (i0, i1))
                        Execution(self, index, i0, i1).run()
                        self.move(range(after, after + entry.moves_after), (i0, i1))
        self.settle(None)
        rows = self.rows[:, span(program.output_row, program.output_rows)]
        return unpack_result(program, list(rows.reshape(self.ranks, -1, 128)))

    def read(self, row, count):
        return list(self.rows[:, span(row, count)].reshape(self.ranks, -1, 128))

    def move(self, numbers, loop):
        """Moves between store and DDR; everything is written before."""
        for number in numbers:
            self.settle(None)
            move = self.program.moves[number]
            for piece in range(move.repeat):
                row = span(move.store.at(*loop) + piece * move.store_stride, move.rows)
                ddr = span(move.ddr.at(*loop) + piece * move.ddr_stride, move.rows)
                assert ddr.stop <= self.spill.shape[1]
                if move.put:
                    self.spill[:, ddr] = self.rows[:, row]
                else:
                    self.rows[:, row] = self.spill[:, ddr]

    def settle(self, last):
        """Writes of all micro-slots up to ``last`` (None: all) reach the store."""
        while self.pending and (last is None or self.pending[0][0] <= last):
            _, writes, done = self.pending.popleft()
            for rank, row, half, word in writes:
                self.rows[rank, row, half] = word
            if done and self.observe:
                self.observe(self, *done)


def span(first, count):
    return slice(first, first + count)
