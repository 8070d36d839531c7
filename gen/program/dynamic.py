"""The dynamic DDR buffers: what changes per step (biases, scale and shift of norms) and per prompt
(K and V).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, SUB, WORD
from gen.program.parameters import Lanes, parameters
from gen.program.program import HostWeight, Program, StepAffine, StepBias
from gen.program.weights import of_rank, row_scales
from gen.program.words import Bytes, bias_words, grouped_rows, weight_words
from gen.qlayers import Affine, QGraph

Ranges = list[tuple[int, int]]


class DynamicBuffer:
    """The buffers' bytes and the ways to change them. Some of the constants of ``qgraph`` lie
    beside what changes.

    ``data`` is uint8 [ranks, bytes], C-contiguous. All setters return the byte ranges (offset,
    size) that they wrote, ascending and merged; they are the same in the buffer of every rank.
    """

    def __init__(self, program: Program, qgraph: QGraph) -> None:
        self._program = program
        self._ranks = program.ranks
        self.data: NDArray[np.uint8] = np.zeros(
            (program.ranks, program.dynamic_words * WORD), dtype=np.uint8
        )
        self._rows = self.data.reshape(program.ranks, -1, WORD)
        self._biases = {each.layer: each for each in program.step_biases}
        self._affines = {each.layer: each for each in program.step_affines}
        self._qlayers = {q.layer.name: q for q in qgraph.layers}
        self._lanes = {
            each.layer: program.tensors[each.dest].physical_channels()
            for each in program.step_biases
        }
        self._weights: dict[str, list[HostWeight]] = {}
        for each in program.host_weights:
            self._weights.setdefault(each.host, []).append(each)

    @property
    def step_layers(self) -> list[str]:
        """Layers whose biases are set per step."""
        return list(self._biases)

    @property
    def affine_layers(self) -> list[str]:
        """Layers whose read constants are set per step."""
        return list(self._affines)

    @property
    def prompt_tensors(self) -> list[str]:
        """Host tensors that are set per prompt."""
        return list(self._weights)

    def set_step(self, biases: Mapping[str, NDArray[np.int32]]) -> Ranges:
        """Set biases int32 [batch, rows] by layer name.

        Raises:
            ValueError: a layer without step biases, or a wrong shape.
        """
        ranges = []
        for layer, bias in biases.items():
            place = self._biases.get(layer)
            if place is None:
                raise ValueError(f"layer {layer} has no biases that change per step")
            ranges.append(self._put_bias(place, bias))
        return _merged(ranges)

    def _put_bias(self, place: StepBias, bias: NDArray[np.int32]) -> tuple[int, int]:
        expected = (place.copies * place.items, place.rows)
        if bias.shape != expected:
            raise ValueError(
                f"biases of layer {place.layer}: shape {bias.shape}, expected {expected}"
            )
        values = np.asarray(bias, dtype=np.int32).reshape(place.copies, place.items, place.rows)
        groups = place.groups * self._ranks
        for rank in range(self._ranks):
            words = [
                bias_words(
                    grouped_rows(each, self._lanes[place.layer], groups, place.gates, 0)[
                        rank :: self._ranks
                    ]
                )
                for each in values
            ]
            self._rows[rank, place.word : place.word + place.words] = np.concatenate(words)
        return place.word * WORD, place.words * WORD

    def set_affine(self, affines: Mapping[str, Affine]) -> Ranges:
        """Set gamma and beta of norms by layer name.

        Raises:
            ValueError: a layer whose read constants do not change, or a wrong shape.
        """
        ranges = []
        for layer, affine in affines.items():
            place = self._affines.get(layer)
            if place is None:
                raise ValueError(f"layer {layer} has no norm that changes per step")
            ranges.append(self._put_affine(place, affine))
        return _merged(ranges)

    def _put_affine(self, place: StepAffine, affine: Affine) -> tuple[int, int]:
        expected = (place.items, place.channels)
        if affine.gamma.shape != expected or affine.beta.shape != expected:
            raise ValueError(
                f"norm of layer {place.layer}: shapes {affine.gamma.shape} and "
                f"{affine.beta.shape}, expected {expected}"
            )
        table = self._qlayers[place.layer].read.table
        assert (table is not None) == place.table, place.layer
        sources = tuple(self._program.tensors[name] for name in place.sources)
        lanes = Lanes(sources, None, place.norm_groups)
        for rank in range(self._ranks):
            words = [
                parameters(lanes, gamma, beta, table, rank)
                for gamma, beta in zip(affine.gamma, affine.beta, strict=True)
            ]
            self._rows[rank, place.word : place.word + place.words] = np.concatenate(words)
        return place.word * WORD, place.words * WORD

    def set_prompt(self, tensors: Mapping[str, NDArray[np.int8]]) -> Ranges:
        """Set host tensors int8 [batch, tokens, channels] by name; from 1 to as many tokens as
        the program has room for, the same number in all that one attention reads.

        Raises:
            ValueError: an unknown tensor, or a wrong shape.
        """
        ranges = []
        for host, value in tensors.items():
            places = self._weights.get(host)
            if places is None:
                raise ValueError(f"no layer uses the host tensor {host}")
            ranges += [self._put_weight(place, value) for place in places]
        return _merged(ranges)

    def _put_weight(self, place: HostWeight, value: NDArray[np.int8]) -> tuple[int, int]:
        channels = place.heads * place.head_channels
        tokens = value.shape[1] if value.ndim == 3 else 0
        fits = 1 <= tokens <= place.tokens and value.shape == (place.items, tokens, channels)
        if not fits or value.dtype != np.int8:
            raise ValueError(
                f"host tensor {place.host}: {value.dtype} {value.shape}, expected int8 "
                f"({place.items}, 1 to {place.tokens}, {channels})"
            )
        split = value.reshape(place.items, tokens, place.heads, place.head_channels)
        # [item, head, output, input]
        matrices = split.transpose(0, 2, 3, 1) if place.transposed else split.transpose(0, 2, 1, 3)
        outputs, inputs = matrices.shape[2:]
        engine = self._program.engine
        words: list[list[Bytes]] = [[] for _ in range(self._ranks)]
        for item, head in np.ndindex(place.items, place.heads):
            lane = place.lanes[head]
            row, column = (lane, 0) if place.transposed else (0, lane)
            groups = place.groups[head] * self._ranks
            padded = np.zeros((1, groups * GROUP, 1, place.steps * SUB), dtype=np.int8)
            padded[0, row : row + outputs, 0, column : column + inputs] = matrices[item, head]
            for rank, mine in enumerate(words):
                part = of_rank(padded, rank, self._ranks)
                mine.append(weight_words(part, engine.weight_bits, engine.byte_rows))
        for rank, mask in enumerate(self._masks(place, tokens)):
            span = slice(place.word, place.word + place.words)
            self._rows[rank, span] = np.concatenate([*words[rank], mask])
        return place.word * WORD, place.words * WORD

    def _masks(self, place: HostWeight, tokens: int) -> list[Bytes]:
        """Words of every rank that say that the first ``tokens`` tokens are there."""
        qlayer, ranks = self._qlayers[place.layer], self._ranks
        if not place.transposed:
            lanes = np.arange(place.tokens, dtype=np.int64)
            return row_scales(qlayer, lanes, place.groups[0] * ranks, range(ranks), tokens)
        read = qlayer.read
        lanes_of_logits = Lanes((self._program.tensors[qlayer.layer.sources[0]],), None, 0)
        return [
            parameters(lanes_of_logits, read.gamma, read.beta, read.table, rank, tokens)
            for rank in range(ranks)
        ]


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, size in sorted(ranges):
        if merged and start <= merged[-1][0] + merged[-1][1]:
            first, length = merged[-1]
            merged[-1] = (first, max(length, start + size - first))
        else:
            merged.append((start, size))
    return merged
