"""The generic software card, built once per set of flags, and runs of whole graphs on it."""

from __future__ import annotations

import ctypes
import json
from functools import cache

import numpy as np
from cpp import BASE_FLAGS, FAST, ROOT, compile_cpp

from gen.program import (
    DynamicBuffer,
    Engine,
    extract,
    lower,
    pack_latent,
    pack_static,
    unpack_result,
    verify_program,
)
from gen.program.binary import program_bytes
from gen.program.program import Program

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)


@cache
def library(*flags: str) -> ctypes.CDLL:
    """The generic card compiled with ``flags`` (default: as a build is compiled)."""
    path = compile_cpp(ROOT / "hls/card/generic.cpp", flags or FAST)
    lib = ctypes.CDLL(str(path))
    lib.lda_card_new.restype = ctypes.c_void_p
    lib.lda_card_free.argtypes = [ctypes.c_void_p]
    lib.lda_card_step.argtypes = [ctypes.c_void_p] + [ctypes.c_void_p, ctypes.c_uint64] * 4
    lib.lda_card_set_program.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64]
    for name in ("lda_card_error", "lda_card_report"):
        getattr(lib, name).restype = ctypes.c_char_p
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.lda_card_cycles.restype = ctypes.c_uint64
    lib.lda_card_cycles.argtypes = [ctypes.c_void_p]
    lib.lda_card_on_entry.argtypes = [ctypes.c_void_p, CALLBACK, ctypes.c_void_p]
    lib.lda_card_read_rows.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    lib.lda_card_set_fifo_depth.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    lib.lda_card_measure_peaks.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return lib


class GenericCard:
    """One card. ``flags`` as for :func:`library`."""

    def __init__(self, *flags: str) -> None:
        self.lib = library(*flags)
        self.card = self.lib.lda_card_new()
        assert self.card

    def __del__(self) -> None:
        if getattr(self, "card", None):
            self.lib.lda_card_free(self.card)

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

    def step(self, weights, dynamic, latent, result) -> int:
        """One step; every argument is a contiguous uint8 array."""
        buffers = []
        for each in (weights, dynamic, latent, result):
            assert each.dtype == np.uint8 and each.flags.c_contiguous
            buffers += [each.ctypes.data, each.nbytes]
        return self.lib.lda_card_step(self.card, *buffers)

    def read_rows(self, row: int, count: int) -> np.ndarray:
        rows = np.zeros((count, 64), dtype=np.uint8)
        self.lib.lda_card_read_rows(self.card, row, count, rows.ctypes.data)
        return rows


class GraphRun:
    """A graph lowered for the generic card, with its buffers."""

    def __init__(self, qgraph, inputs, engine: Engine | None = None) -> None:
        self.qgraph = qgraph
        self.program: Program = lower(qgraph, engine or Engine())
        verify_program(self.program)
        self.weights = np.frombuffer(pack_static(qgraph, self.program), dtype=np.uint8)
        dynamic = DynamicBuffer(self.program)
        dynamic.set_step(inputs.step_bias)
        dynamic.set_prompt(inputs.prompt_q)
        self.dynamic = dynamic.data
        self.latent = pack_latent(self.program, inputs.latent_q)
        self.result = np.zeros((self.program.output_rows, 64), dtype=np.uint8)
        self.blob = program_bytes(self.program)

    def on(self, card: GenericCard) -> np.ndarray:
        """The output tensor of one step on a card."""
        assert card.set_program(self.blob) == 0, card.error
        status = card.step(self.weights, self.dynamic, self.latent, self.result)
        assert status == 0, card.error
        return unpack_result(self.program, self.result)

    def layers_on(self, card: GenericCard) -> dict[str, np.ndarray]:
        """What every layer stores, by name, as ``gen.reference.run`` observes it."""
        stored: dict[str, np.ndarray] = {}
        parts: dict[str, list[np.ndarray]] = {}

        def entry_done(_context, entry: int, _i0: int, _i1: int) -> None:
            made = self.program.entries[entry]
            tensor = self.program.tensors[made.dest]
            values = extract(self.program, made.dest, card.read_rows(tensor.row, tensor.rows))
            stored[made.layer] = values
            parts.setdefault(made.layer, []).append(values)

        callback = CALLBACK(entry_done)
        card.lib.lda_card_on_entry(card.card, callback, None)
        try:
            self.on(card)
        finally:
            card.lib.lda_card_on_entry(card.card, CALLBACK(), None)
        for layer in self.qgraph.graph.layers:
            info = self.qgraph.graph.tensors[layer.dest]
            if info.role == "scores":  # [loops, 1, tokens, h, w] -> [batch, heads, pixels, tokens]
                loops = np.stack([p.reshape(info.channels, -1).T for p in parts[layer.name]])
                batch = self.program.batch
                stored[layer.name] = loops.reshape(batch, -1, *loops.shape[1:])
        return stored
