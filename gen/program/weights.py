"""The static DDR buffers of all ranks: weights, scales, tables and biases of every layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, SUB, WORD, HeadLoop, Stored
from gen.program.parameters import Lanes, parameters
from gen.program.program import Entry, Program
from gen.program.structs import BUFFER_STATIC, STATS_SOFTMAX
from gen.program.words import (
    COUNTS,
    SKIPPED,
    Bytes,
    bias_words,
    grouped_rows,
    header_word,
    scale_words,
    weight_words,
)
from gen.qlayers import QGraph, QLayer

Int64 = NDArray[np.int64]


def row_lanes(dest: Stored, qlayer: QLayer, heads: HeadLoop) -> Int64:
    """Physical channel, within one execution's destination, of every weight row of one half."""
    rows = len(qlayer.bias) // (2 if qlayer.layer.gate == "geglu" else 1)
    if qlayer.layer.heads:
        lane = 0 if dest.logits else dest.head(heads.first).lane
        return lane + np.arange(rows, dtype=np.int64)
    lanes = dest.physical_channels()
    assert rows == len(lanes), f"{qlayer.layer.name}: {rows} rows for {len(lanes)} channels"
    return lanes


def static_weights(qlayer: QLayer, entry: Entry, program: Program) -> NDArray[np.int8]:
    """Weights of a layer of its own, int8 [gates, groups of all ranks * 8, taps, subs * 16]."""
    assert qlayer.weight is not None
    rows, inputs, kh, kw = qlayer.weight.shape
    mac = entry.mac
    sources = [program.tensors[name] for name in entry.sources]
    columns = np.concatenate(
        [base * SUB + s.physical_channels() for base, s in zip(mac.sub_base, sources, strict=False)]
    )
    assert inputs == len(columns), f"{entry.layer}: {inputs} inputs for {len(columns)} channels"
    lanes = row_lanes(program.tensors[entry.dest], qlayer, entry.heads)
    gates = mac.shape.gates
    groups = mac.shape.units // gates * program.ranks
    matrix = np.zeros((gates, groups * GROUP, kh * kw, mac.subs * SUB), dtype=np.int8)
    weight = qlayer.weight.reshape(gates, rows // gates, inputs, kh * kw)
    matrix[:, lanes[:, None], :, columns[None, :]] = weight.transpose(1, 2, 0, 3)
    return matrix


def of_rank(matrix: NDArray[np.int8], rank: int, ranks: int) -> NDArray[np.int8]:
    """Output groups of one rank of weights [gates, groups * 8, taps, inputs]."""
    gates, outputs, taps, inputs = matrix.shape
    split = matrix.reshape(gates, outputs // GROUP, GROUP, taps, inputs)
    return split[:, rank::ranks].reshape(gates, -1, taps, inputs)


def row_scales(
    qlayer: QLayer,
    lanes: Int64,
    groups: int,
    outputs: Sequence[int],
    counted: int,
    neighbours: Sequence[slice] = (),
) -> list[Bytes]:
    """Scale words of every rank. ``lanes``: as :func:`row_lanes` gives them; ``groups``: output
    groups of all ranks; ``outputs``: as :func:`output_ranks` gives them; ``counted``: so many
    rows, the first ones, count in softmax statistics. Groups ``neighbours`` are not written.
    """
    gates = 2 if qlayer.layer.gate == "geglu" else 1
    mult = grouped_rows(qlayer.mult, lanes, groups, gates, 0)
    counts = np.where(np.arange(len(qlayer.shift)) < counted, COUNTS, 0).astype(np.int32)
    # a padding row must keep shift + residual_shift >= 0 as every row does
    idle = max(1, -qlayer.residual_shift)
    shift = grouped_rows(qlayer.shift | counts, lanes, groups, gates, idle)
    for each in neighbours:
        shift[each] |= SKIPPED
    return [
        scale_words(
            mult[q :: len(outputs)].reshape(-1, GROUP), shift[q :: len(outputs)].reshape(-1, GROUP)
        )
        for q in outputs
    ]


def output_ranks(program: Program, entry: Entry) -> list[int]:
    """Whose output groups each rank computes: its own, but for the one group of a result that a
    sampler reads, which all ranks compute where they would compute padding.
    """
    if program.updates.octets and entry.dest == program.output:
        return [0] * program.ranks
    return list(range(program.ranks))


def pack_static(qgraph: QGraph, program: Program) -> bytes:
    """The static buffers, one rank's after the other: ``program.static_words`` words of 64 bytes
    each.
    """
    ranks = program.ranks
    buffer = np.zeros((ranks, program.static_words, WORD), dtype=np.uint8)
    written = np.zeros(program.static_words, dtype=bool)

    def put(word: int, of_ranks: list[Bytes]) -> None:
        span = slice(word, word + len(of_ranks[0]))
        assert not written[span].any() and span.stop <= len(written)
        written[span] = True
        for rank, words in enumerate(of_ranks):
            buffer[rank, span] = words

    def shared(word: int, words: Bytes) -> None:
        put(word, [words] * ranks)

    norms = _row_norms(qgraph)
    qlayers = {qlayer.layer.name: qlayer for qlayer in qgraph.layers}
    # strips of a layer read the same words, joined products those of their own
    alone = [each for entry in reversed(program.entries) for each in entry.parts or (entry,)]
    for entry in {each.wload.hd: each for each in alone}.values():
        qlayer, wload, shape = qlayers[entry.layer], entry.wload, entry.mac.shape
        outputs = output_ranks(program, entry)
        if wload.ws_rows and wload.ws_buffer == BUFFER_STATIC:
            matrix = static_weights(qlayer, entry, program)
            bits, parts = 4 * wload.row_words, entry.mac.row_parts
            put(
                wload.ws.base,
                [weight_words(of_rank(matrix, q, ranks), bits, parts) for q in outputs],
            )
        if wload.pp_buffer == BUFFER_STATIC:
            put(wload.pp.base, _static_parameters(qlayer, entry, program))
        shared(wload.hd.base, header_word(qlayer.read.eps, *norms.get(entry.dest, (0, 0))))
        if qlayer.gate_table is not None:
            shared(wload.table.base, qlayer.gate_table.astype("<i2").view(np.uint8).reshape(-1, 64))
        dest = program.tensors[entry.dest]
        lanes = row_lanes(dest, qlayer, entry.heads)
        groups = shape.units // shape.gates * ranks
        if wload.scale_buffer == BUFFER_STATIC:
            counted = len(qlayer.shift) if entry.post.stats == STATS_SOFTMAX else 0
            others = _neighbours(dest, entry.heads) if qlayer.layer.heads else []
            put(wload.scale.base, row_scales(qlayer, lanes, groups, outputs, counted, others))
        if wload.bias_buffer == BUFFER_STATIC:
            bias = np.tile(qlayer.bias, (entry.post.items, 1))
            rows = grouped_rows(bias, lanes, groups, shape.gates, 0)
            put(wload.bias.base, [bias_words(rows[q::ranks]) for q in outputs])
    assert written.all()
    return buffer.tobytes()


def _neighbours(dest: Stored, heads: HeadLoop) -> list[slice]:
    """Groups of other heads in the local groups of a head; those behind the last one are nobody's
    and are written.
    """
    if dest.logits:
        return []
    head = dest.head(heads.first)
    return [slice(0, head.phase), slice(head.end, dest.groups - head.first * dest.ranks)]


def _row_norms(qgraph: QGraph) -> dict[str, tuple[int, int]]:
    """(E, n) of the layer norm that reads a tensor."""
    found = {}
    for qlayer in qgraph.layers:
        if qlayer.layer.read.norm == "layer":
            (source,) = qlayer.layer.sources
            found[source] = (qlayer.read.eps, qgraph.graph.tensors[source].channels)
    return found


def _static_parameters(qlayer: QLayer, entry: Entry, program: Program) -> list[Bytes]:
    """The pp words of an entry, per rank; one copy per head where heads differ."""
    read = qlayer.read
    sources = [program.tensors[name] for name in entry.sources]
    per_head = bool(qlayer.layer.heads) and qlayer.layer.read.norm != "softmax"
    head = sources[0].head(entry.heads.first) if per_head else None
    copies = entry.heads.count if per_head and entry.wload.pp.s1 else 1
    lanes = Lanes(tuple(sources), head, qlayer.layer.read.groups)
    size = sources[0].head_channels
    result = []
    for rank in range(program.ranks):
        parts = []
        for copy in range(copies):
            start = entry.heads.at(copy) * size
            chosen = slice(start, start + size) if per_head else slice(None)
            words = parameters(lanes, read.gamma[chosen], read.beta[chosen], read.table, rank)
            if entry.pre.uniform:
                first = len(words) - entry.pre.groups[0]
                assert (words[first:-1] == words[first]).all()
                words = np.concatenate([words[: first + 1], words[-1:]])
            parts.append(words)
        result.append(np.concatenate(parts))
    return result
