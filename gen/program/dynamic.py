"""The dynamic DDR buffer: biases that change per step, K and V that change per prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, SUB
from gen.program.program import HostWeight, Program, StepBias
from gen.program.words import bias_words, grouped_rows, weight_words

Ranges = list[tuple[int, int]]


class DynamicBuffer:
    """The buffer's bytes and the two ways to change them.

    ``data`` is uint8 [bytes], C-contiguous. Both setters return the byte ranges (offset, size)
    that they wrote, ascending and merged.
    """

    def __init__(self, program: Program) -> None:
        self.data: NDArray[np.uint8] = np.zeros(program.dynamic_words * 64, dtype=np.uint8)
        self._rows = self.data.reshape(-1, 64)
        self._biases = {each.layer: each for each in program.step_biases}
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
    def prompt_tensors(self) -> list[str]:
        """Host tensors that are set per prompt."""
        return list(self._weights)

    def set_step(self, biases: dict[str, NDArray[np.int32]]) -> Ranges:
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
        if bias.shape != (place.items, place.rows):
            raise ValueError(
                f"biases of layer {place.layer}: shape {bias.shape}, "
                f"expected {(place.items, place.rows)}"
            )
        rows = grouped_rows(
            np.asarray(bias, dtype=np.int32),
            self._lanes[place.layer],
            place.groups,
            place.gates,
            0,
        )
        self._rows[place.word : place.word + place.words] = bias_words(rows)
        return place.word * 64, place.words * 64

    def set_prompt(self, tensors: dict[str, NDArray[np.int8]]) -> Ranges:
        """Set host tensors int8 [batch, tokens, channels] by name.

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
        expected = (place.items, place.tokens, place.heads * place.head_channels)
        if value.shape != expected or value.dtype != np.int8:
            raise ValueError(
                f"host tensor {place.host}: {value.dtype} {value.shape}, expected int8 {expected}"
            )
        split = value.reshape(place.items, place.tokens, place.heads, place.head_channels)
        # [item, head, output, input]
        matrices = split.transpose(0, 2, 3, 1) if place.transposed else split.transpose(0, 2, 1, 3)
        outputs, inputs = matrices.shape[2:]
        padded = np.zeros(
            (place.items * place.heads, place.groups * GROUP, 1, place.steps * SUB), dtype=np.int8
        )
        padded[:, :outputs, 0, :inputs] = matrices.reshape(-1, outputs, inputs)
        words = np.concatenate([weight_words(each[None]) for each in padded])
        self._rows[place.word : place.word + place.words] = words
        return place.word * 64, place.words * 64


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, size in sorted(ranges):
        if merged and start <= merged[-1][0] + merged[-1][1]:
            first, length = merged[-1]
            merged[-1] = (first, max(length, start + size - first))
        else:
            merged.append((start, size))
    return merged
