"""The static DDR buffer: weights, scales, tables and biases in the order of ``wload``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import BLOCK, GROUP, SUB, Stored, up_to
from gen.program.program import Entry, Program
from gen.program.structs import BUFFER_STATIC
from gen.program.words import (
    Bytes,
    bias_words,
    gamma_beta_words,
    grouped_rows,
    header_word,
    scale_words,
    weight_words,
)
from gen.qlayers import QGraph, QLayer

Int64 = NDArray[np.int64]


def row_lanes(dest: Stored, qlayer: QLayer) -> Int64:
    """Physical channel, within one execution's destination, of every weight row of one half."""
    rows = len(qlayer.bias) // (2 if qlayer.layer.gate == "geglu" else 1)
    if qlayer.layer.heads:
        return np.arange(rows, dtype=np.int64)
    lanes = dest.physical_channels()
    assert rows == len(lanes), f"{qlayer.layer.name}: {rows} rows for {len(lanes)} channels"
    return lanes


def input_columns(sources: list[Stored]) -> Int64:
    """Reduction column (sub * 16 + lane) of every logical input channel of all sources."""
    columns, start = [], 0
    for source in sources:
        columns.append(start + source.physical_channels())
        start += up_to(source.physical, SUB)
    return np.concatenate(columns)


def static_weight_words(qlayer: QLayer, entry: Entry, program: Program) -> Bytes:
    """The ws words of a layer with static weights: uint8 [words, 64]."""
    assert qlayer.weight is not None
    rows, inputs, kh, kw = qlayer.weight.shape
    shape = entry.mac.shape
    columns = input_columns([program.tensors[name] for name in entry.sources])
    assert inputs == len(columns), f"{entry.layer}: {inputs} inputs for {len(columns)} channels"
    lanes = row_lanes(program.tensors[entry.dest], qlayer)
    matrix = np.zeros(
        (shape.gates, shape.groups * GROUP, kh * kw, entry.mac.subs * SUB), dtype=np.int8
    )
    weight = qlayer.weight.reshape(shape.gates, rows // shape.gates, inputs, kh * kw)
    matrix[:, lanes[:, None], :, columns[None, :]] = weight.transpose(1, 2, 0, 3)
    return weight_words(matrix)


def parameter_words(qlayer: QLayer, entry: Entry, program: Program) -> Bytes:
    """The pp words of a layer, one copy per head where heads lie in different lanes."""
    read = qlayer.read
    common = [header_word(read.eps)]
    if read.table is not None:
        common.append(read.table.astype(np.int8).view(np.uint8).reshape(-1, 64))
    copies = []
    source_regions = entry.store.source[: entry.store.sources]
    heads = program.tensors[entry.sources[0]].heads if entry.wload.pp.s1 else 1
    for head in range(heads):
        parts, start = list(common), 0
        for name, region in zip(entry.sources, source_regions, strict=True):
            source = program.tensors[name]
            first = region.group.at(0, head) // GROUP
            gamma = np.zeros(source.blocks * BLOCK, dtype=np.int64)
            beta = np.zeros(source.blocks * BLOCK, dtype=np.int64)
            lanes = source.physical_channels()
            gamma[lanes] = read.gamma[start : start + source.channels]
            beta[lanes] = read.beta[start : start + source.channels]
            span = slice(first * BLOCK, (first + region.blocks) * BLOCK)
            parts.append(
                gamma_beta_words(gamma[span].reshape(-1, BLOCK), beta[span].reshape(-1, BLOCK))
            )
            start += source.channels
        assert start == len(read.gamma), f"{entry.layer}: {len(read.gamma)} gammas for {start}"
        copies.append(np.concatenate(parts))
    return np.concatenate(copies)


def pack_static(qgraph: QGraph, program: Program) -> bytes:
    """The static buffer: ``program.static_words`` words of 64 bytes."""
    buffer = np.zeros((program.static_words, 64), dtype=np.uint8)
    written = np.zeros(program.static_words, dtype=bool)

    def put(word: int, words: Bytes) -> None:
        assert not written[word : word + len(words)].any() and word + len(words) <= len(buffer)
        buffer[word : word + len(words)] = words
        written[word : word + len(words)] = True

    for qlayer, entry in zip(qgraph.layers, program.entries, strict=True):
        wload, shape = entry.wload, entry.mac.shape
        if wload.ws_words and wload.ws_buffer == BUFFER_STATIC:
            put(wload.ws.base, static_weight_words(qlayer, entry, program))
        put(wload.pp.base, parameter_words(qlayer, entry, program))
        if wload.table_words:
            assert qlayer.gate_table is not None
            put(wload.table.base, qlayer.gate_table.astype("<i2").view(np.uint8).reshape(-1, 64))
        lanes = row_lanes(program.tensors[entry.dest], qlayer)
        mult = grouped_rows(qlayer.mult, lanes, shape.groups, shape.gates, 1)
        # a padding row must keep shift + residual_shift >= 0 as every row does
        idle = max(1, -qlayer.residual_shift)
        shift = grouped_rows(qlayer.shift, lanes, shape.groups, shape.gates, idle)
        put(wload.scale.base, scale_words(mult.reshape(-1, GROUP), shift.reshape(-1, GROUP)))
        if wload.bias_buffer == BUFFER_STATIC:
            bias = np.tile(qlayer.bias, (entry.mac.items, 1))
            rows = grouped_rows(bias, lanes, shape.groups, shape.gates, 0)
            put(wload.bias.base, bias_words(rows))
    assert written.all()
    return buffer.tobytes()
