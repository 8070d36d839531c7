"""A software card opened for inspection: every entry can be observed, every row read.

``host.swcard`` drives the same shared object behind pyxrt's calls; this is the tests' and
``gen.verify``'s view of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.card_library import (
    CALLBACK,
    DEADLOCK,
    DONE,
    INSPECTION,
    LEFTOVER,
    PROGRAM,
    STEP,
    TOO_SMALL,
    card_buffers,
    load_card,
)
from gen.program.binary import program_bytes
from gen.program.io import pack_latent, unpack_result
from gen.program.layout import ROW, WORD
from gen.program.parts import written_rows
from gen.program.products import products
from gen.program.program import Entry, Program
from gen.program.sampler import result_words

Bytes = NDArray[np.uint8]
EntryObserver = Callable[[Entry, int, int, Sequence[Bytes]], None]

__all__ = ["DEADLOCK", "DONE", "LEFTOVER", "TOO_SMALL", "CsimCard", "CsimError"]


class CsimError(RuntimeError):
    """The card did not finish a step. ``code`` is DEADLOCK, LEFTOVER or TOO_SMALL."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class CsimCard:
    """One software card running ``program``; ``generic``: it takes the program at run time.

    Raises:
        RuntimeError: not a software card.
    """

    def __init__(self, library: Path, program: Program, generic: bool = False) -> None:
        self._library = load_card(library, STEP, INSPECTION, *([PROGRAM] if generic else []))
        self.program = program
        # rows that the program keeps in DDR during a step, of every rank
        self.spill = [np.zeros((program.spill_rows, ROW), np.uint8) for _ in range(program.ranks)]
        self._card: int | None = self._library.lda_card_new()
        if not self._card:
            raise RuntimeError(f"{library}: no memory for the software card")
        if generic:
            blob = program_bytes(program)
            if self._library.lda_card_set_program(self._card, blob, len(blob)):
                raise RuntimeError(self.error)
        ranks = int(self._library.lda_card_ranks(self._card))
        if ranks != program.ranks:
            raise RuntimeError(f"{library}: {ranks} ranks, the program is for {program.ranks}")

    @property
    def error(self) -> str:
        """What went wrong in the last step, or an empty string."""
        return (self._library.lda_card_error(self._card) or b"").decode()

    @property
    def cycles(self) -> int:
        """Modelled clock cycles of the last step."""
        return int(self._library.lda_card_cycles(self._card))

    @property
    def report(self) -> dict[str, Any]:
        """The card's report of the last step."""
        value: dict[str, Any] = json.loads(self._library.lda_card_report(self._card) or b"{}")
        return value

    def set_fifo_depth(self, name: str, depth: int) -> None:
        """Change a FIFO's depth for the next steps.

        Raises:
            ValueError: no such FIFO, or a depth below 1.
        """
        if self._library.lda_card_set_fifo_depth(self._card, name.encode(), depth):
            raise ValueError(self.error)

    def measure_peaks(self, on: bool = True) -> None:
        """Record the highest fill of every FIFO."""
        self._library.lda_card_measure_peaks(self._card, int(on))

    def poison(self, byte: int) -> None:
        """Fill all memories of the kernels with a byte: what a step does not write is unknown."""
        self._library.lda_card_poison(self._card, byte)

    def rows(self, tensor: str) -> list[Bytes]:
        """Rows of a stored tensor as they are now: uint8 [rows, 128] of every rank."""
        place = self.program.tensors[tensor]
        return [self._rows(rank, place.row, place.rows) for rank in range(self.program.ranks)]

    def _rows(self, rank: int, row: int, count: int) -> Bytes:
        data = np.empty((count, ROW), dtype=np.uint8)
        self._library.lda_card_read_rows(self._card, rank, row, count, data.ctypes.data)
        return data

    def step(
        self,
        weights: Bytes,
        dynamic: Bytes,
        latent: NDArray[np.int8],
        observe: EntryObserver | None = None,
        reload: bool = True,
    ) -> NDArray[np.int16]:
        """Run the program once; ``observe(entry, i0, i1, rows)`` is called after every execution,
        for each of its products (``gen.program.products``), with the rows
        (``gen.program.parts.written_rows``) of every rank, as they were when that rank had written
        its last word.

        ``weights`` and ``dynamic`` are uint8 [ranks, bytes]; ``latent`` int8 and the result int16
        [batch, channels, height, width]. ``reload``: weights that stay on the card are read anew.

        Raises:
            CsimError: a deadlock, leftover tokens, or a buffer that is too small.
            Exception: whatever ``observe`` raised.
        """
        rows = pack_latent(self.program, latent)
        result, _ = self.start(weights, dynamic, rows, 1, observe, reload)
        return result

    def start(
        self,
        weights: Bytes,
        dynamic: Sequence[Bytes] | Bytes,
        latent: Sequence[Bytes],
        steps: int,
        observe: EntryObserver | None = None,
        reload: bool = True,
    ) -> tuple[NDArray[np.int16], list[Bytes]]:
        """Run ``steps`` steps in one start: the last one's result, and the result buffers.

        ``dynamic`` and ``latent``, the ranks' buffers, hold what gen.program.sampler says.

        Raises:
            CsimError: a deadlock, leftover tokens, or a buffer that is too small.
            Exception: whatever ``observe`` raised.
        """
        raised: list[BaseException] = []

        written: dict[tuple[int, int, int], dict[int, list[Bytes]]] = {}

        def call(_: object, rank: int, entry: int, i0: int, i1: int) -> None:
            if observe is None or raised:
                return
            try:
                made = products(self.program.entries[entry])
                rows = written.setdefault((entry, i0, i1), {})
                rows[rank] = [self._rows(rank, *written_rows(each, i0, i1)) for each in made]
                if len(rows) == self.program.ranks:
                    del written[entry, i0, i1]
                    by_rank = (rows[each] for each in sorted(rows))
                    for each, of_ranks in zip(made, zip(*by_rank, strict=True), strict=True):
                        observe(each, i0, i1, of_ranks)
            except BaseException as error:
                raised.append(error)

        callback = CALLBACK(call) if observe else CALLBACK()
        ranks = self.program.ranks
        words = result_words(self.program, steps)
        results = [np.zeros((words, WORD), np.uint8) for _ in range(ranks)]
        arrays = [
            [np.ascontiguousarray(each) for each in rank]
            for rank in zip(weights, dynamic, latent, strict=True)
        ]
        buffers = card_buffers(
            [[*rank, *out] for rank, *out in zip(arrays, results, self.spill, strict=True)]
        )
        self._library.lda_card_on_entry(self._card, callback, None)
        code = int(self._library.lda_card_step(self._card, buffers, ranks, int(reload), steps))
        self._library.lda_card_on_entry(self._card, CALLBACK(), None)
        if raised:
            raise raised[0]
        if code != DONE:
            raise CsimError(code, self.error)
        rows = 2 * self.program.output_rows
        return unpack_result(self.program, [each[:rows] for each in results]), results

    def close(self) -> None:
        """Give the card's memory back."""
        if self._card:
            self._library.lda_card_free(self._card)
            self._card = None

    def __del__(self) -> None:
        if getattr(self, "_card", None):
            self.close()
