"""The generic software card, built once per set of flags, and runs of whole graphs on it."""

from __future__ import annotations

import ctypes
import json
from functools import cache

import numpy as np
from cpp import FAST, ROOT, compile_cpp

from gen.program import (
    DynamicBuffer,
    Engine,
    lower,
    pack_latent,
    pack_static,
    unpack_result,
    verify_program,
)
from gen.program.binary import program_bytes
from gen.program.parts import reference_part, stored_like, stored_part, written_rows
from gen.program.products import products
from gen.program.program import Program
from gen.reference import run

BUFFERS = ("weights", "dynamic", "latent", "result", "spill")
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int] * 4)
ROW = 128


class CardBuffers(ctypes.Structure):
    """hls/card/buffers.hpp."""

    _fields_ = [
        (f"{name}{what}", ctypes.c_void_p if not what else ctypes.c_uint64)
        for name in BUFFERS
        for what in ("", "_bytes")
    ]


@cache
def library(*flags: str, source: str = "hls/card/generic.cpp") -> ctypes.CDLL:
    """The generic card compiled with ``flags`` (default: as a build is compiled)."""
    path = compile_cpp(ROOT / source, flags or FAST)
    lib = ctypes.CDLL(str(path))
    pointer, size, integer = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
    lib.lda_card_new.restype = pointer
    lib.lda_card_free.argtypes = [pointer]
    lib.lda_card_ranks.argtypes = [pointer]
    lib.lda_card_step.argtypes = [pointer, pointer, integer, integer, integer]
    lib.lda_card_set_program.argtypes = [pointer, ctypes.c_char_p, size]
    for name in ("lda_card_error", "lda_card_report"):
        getattr(lib, name).restype = ctypes.c_char_p
        getattr(lib, name).argtypes = [pointer]
    lib.lda_card_cycles.restype = size
    lib.lda_card_cycles.argtypes = [pointer]
    lib.lda_card_on_entry.argtypes = [pointer, CALLBACK, pointer]
    lib.lda_card_read_rows.argtypes = [pointer, integer, integer, integer, pointer]
    lib.lda_card_set_fifo_depth.argtypes = [pointer, ctypes.c_char_p, integer]
    lib.lda_card_measure_peaks.argtypes = [pointer, integer]
    lib.lda_card_poison.argtypes = [pointer, integer]
    return lib


def ranked(ranks: int, *flags: str) -> tuple[str, ...]:
    """Flags of a card of several ranks."""
    return (*(flags or FAST), f"-DLDA_RANKS={ranks}")


class GenericCard:
    """One card. ``flags`` and ``source`` as for :func:`library`."""

    def __init__(self, *flags: str, **source: str) -> None:
        self.lib = library(*flags, **source)
        self.card = self.lib.lda_card_new()
        assert self.card

    def __del__(self) -> None:
        if getattr(self, "card", None):
            self.lib.lda_card_free(self.card)

    @property
    def ranks(self) -> int:
        return self.lib.lda_card_ranks(self.card)

    @property
    def error(self) -> str:
        return self.lib.lda_card_error(self.card).decode()

    @property
    def cycles(self) -> int:
        return self.lib.lda_card_cycles(self.card)

    @property
    def report(self) -> dict:
        return json.loads(self.lib.lda_card_report(self.card))

    def set_program(self, blob: bytes) -> int:
        return self.lib.lda_card_set_program(self.card, blob, len(blob))

    def set_depth(self, fifo: str, depth: int) -> int:
        return self.lib.lda_card_set_fifo_depth(self.card, fifo.encode(), depth)

    def measure_peaks(self) -> None:
        self.lib.lda_card_measure_peaks(self.card, 1)

    def poison(self, byte: int) -> None:
        self.lib.lda_card_poison(self.card, byte)

    def step(
        self, weights, dynamic, latent, result, spill=None, reload: bool = True, steps: int = 1
    ) -> int:
        """One start; every argument is a list of contiguous uint8 arrays, one per rank."""
        buffers = (CardBuffers * len(weights))()
        given = [weights, dynamic, latent, result, *([spill] if spill else [])]
        for rank, of_rank in enumerate(zip(*given, strict=True)):
            for name, each in zip(BUFFERS, of_rank, strict=False):
                assert each.dtype == np.uint8 and each.flags.c_contiguous
                setattr(buffers[rank], name, each.ctypes.data)
                setattr(buffers[rank], f"{name}_bytes", each.nbytes)
        return self.lib.lda_card_step(self.card, buffers, len(weights), int(reload), steps)

    def read_rows(self, rank: int, row: int, count: int) -> np.ndarray:
        """Rows of the store of a rank, uint8 [count, 128]."""
        rows = np.zeros((count, ROW), dtype=np.uint8)
        self.lib.lda_card_read_rows(self.card, rank, row, count, rows.ctypes.data)
        return rows


class GraphRun:
    """A graph lowered for the generic card, with its buffers."""

    def __init__(self, qgraph, inputs, engine: Engine | None = None) -> None:
        self.qgraph, self.inputs = qgraph, inputs
        self.program: Program = lower(qgraph, engine or Engine())
        verify_program(self.program)
        ranks = self.program.ranks
        static = np.frombuffer(pack_static(qgraph, self.program), dtype=np.uint8)
        self.weights = list(static.reshape(ranks, -1))
        dynamic = DynamicBuffer(self.program, qgraph)
        dynamic.set_step(inputs.step_bias)
        dynamic.set_affine(inputs.step_affine)
        dynamic.set_prompt(inputs.prompt_q)
        self.dynamic = list(dynamic.data)
        self.latent = pack_latent(self.program, inputs.latent_q)
        self.result = [
            np.zeros((self.program.output_rows, ROW), dtype=np.uint8) for _ in range(ranks)
        ]
        # what an earlier step left there must not matter
        self.spill = [
            np.full((self.program.spill_rows, ROW), 0xA5, dtype=np.uint8) for _ in range(ranks)
        ]
        self.blob = program_bytes(self.program)

    def on(self, card: GenericCard, reload: bool = True) -> np.ndarray:
        """The output tensor of one step on a card."""
        assert card.set_program(self.blob) == 0, card.error
        status = card.step(self.weights, self.dynamic, self.latent, self.result, self.spill, reload)
        assert status == 0, card.error
        return unpack_result(self.program, self.result)

    def first_difference(self, card: GenericCard) -> str | None:
        """Name of the first layer of which an execution stores something else than the reference
        says.
        """
        expected: dict[str, np.ndarray] = {}
        result = run(
            self.qgraph,
            *self.inputs.args(),
            observe=expected.__setitem__,
            step_affine=self.inputs.step_affine,
        )
        wrong: list[str] = []
        seen: set[str] = set()
        written: dict[tuple[int, ...], dict[int, list[np.ndarray]]] = {}

        def entry_done(_context, rank: int, index: int, i0: int, i1: int) -> None:
            made = products(self.program.entries[index])
            rows = written.setdefault((index, i0, i1), {})
            rows[rank] = [card.read_rows(rank, *written_rows(each, i0, i1)) for each in made]
            if len(rows) < self.program.ranks:
                return
            for number, entry in enumerate(made):
                parts = [rows[each][number] for each in sorted(rows)]
                want = reference_part(self.program, entry, i0, i1, expected[entry.layer])
                got = stored_like(stored_part(self.program, entry, parts), want)
                seen.add(entry.layer)
                if got.dtype != want.dtype or not np.array_equal(got, want):
                    wrong.append(entry.layer)

        callback = CALLBACK(entry_done)
        card.lib.lda_card_on_entry(card.card, callback, None)
        try:
            got = self.on(card)
        finally:
            card.lib.lda_card_on_entry(card.card, CALLBACK(), None)
        assert seen == set(expected), "a layer was never reported"
        if not wrong:
            np.testing.assert_array_equal(got, result)
        return wrong[0] if wrong else None
