"""Word formats of the weight streams (docs/engine.md, "Parameter words")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, SUB, WORD

Bytes = NDArray[np.uint8]
Int = NDArray[Any]

# bits of a scale word's shift: the lane counts in softmax statistics, the unit is not written
COUNTS, SKIPPED = 1 << 8, 1 << 9


def weight_words(matrix: NDArray[np.int8], row_bits: int = 8, row_parts: int = 1) -> Bytes:
    """Words of weights int8 [gates, groups * 8, taps, subs * 16], padding included.

    Order: group, gate, tap, sub. A row of 8 outputs x 16 inputs takes two words at ``row_bits`` 8.
    At 4 it takes one, for weights of 4 bits, or two one after the other (``row_parts`` 2) for the
    halves of weights of 8 bits. uint8 [words, 64].
    """
    gates, outputs, taps, inputs = matrix.shape
    split = matrix.reshape(gates, outputs // GROUP, GROUP, taps, inputs // SUB, SUB)
    ordered = split.transpose(1, 0, 3, 4, 2, 5)
    rows = np.ascontiguousarray(ordered).view(np.uint8).reshape(-1, 2, WORD)
    if row_bits == 8:
        return rows.reshape(-1, WORD)
    if row_parts == 1:
        return nibble_words(rows)
    high, low = rows >> np.uint8(4), rows ^ np.uint8(8)
    return np.stack([nibble_words(high), nibble_words(low)], axis=1).reshape(-1, WORD)


def nibble_words(rows: Bytes) -> Bytes:
    """The low 4 bits of rows uint8 [rows, 2, 64]: of the first word in the low half of a byte, of
    the second in its high half. uint8 [rows, 64].
    """
    low, high = rows[:, 0] & np.uint8(15), rows[:, 1] << np.uint8(4)
    words: Bytes = low | high
    return words


def bias_words(bias: NDArray[np.int32]) -> Bytes:
    """Words of biases int32 [groups, gates, items, 8]: two items a word. uint8 [words, 64]."""
    groups, gates, items, lanes = bias.shape
    even = np.zeros((groups, gates, items + items % 2, lanes), dtype="<i4")
    even[:, :, :items] = bias
    return even.view(np.uint8).reshape(-1, WORD)


def scale_words(mult: NDArray[np.int32], shift: NDArray[np.int32]) -> Bytes:
    """Words of multipliers and shifts, int32 [units, 8] each. uint8 [units, 64]."""
    return np.concatenate([mult, shift], axis=1).astype("<i4").view(np.uint8).reshape(-1, WORD)


def parameter_words(gamma: Int, beta: Int, norm_group: Int, valid: Int) -> Bytes:
    """Words of gamma (int16 range), beta (int32 range), norm group (below 256) and whether a lane
    holds a channel, each [groups, 8].

    Raises:
        AssertionError: a value out of range.
    """
    for values, low, high in (
        (gamma, -(1 << 15), 1 << 15),
        (beta, -(1 << 31), 1 << 31),
        (norm_group, 0, 256),
    ):
        assert values.min() >= low and values.max() < high
    words = np.zeros((len(gamma), WORD), dtype=np.uint8)
    words[:, :16] = gamma.astype("<i2").view(np.uint8)
    words[:, 16:48] = beta.astype("<i4").view(np.uint8)
    words[:, 48:56] = norm_group.astype(np.uint8)
    words[:, 56] = np.packbits(valid.astype(bool), axis=1, bitorder="little")[:, 0]
    return words


def header_word(eps: int, eps_out: int, n_out: int) -> Bytes:
    """The header of ``pre.scale``: E of the norm that reads; E and n of the layer norm that will
    read the destination.
    """
    word = np.zeros((1, WORD), dtype=np.uint8)
    word[0, :16] = np.array([eps, eps_out], dtype="<i8").view(np.uint8)
    word[0, 16:20] = np.array([n_out], dtype="<i4").view(np.uint8)
    return word


def grouped_rows(values: Int, lanes: NDArray[np.int64], groups: int, gates: int, pad: int) -> Int:
    """Rows of a layer in output-group order.

    ``values`` [..., rows], with gates == 2 both halves one after the other; ``lanes`` [rows per
    half] is the physical channel of each row. Returns [groups, gates, ..., 8]; padding rows hold
    ``pad``.
    """
    lead = values.shape[:-1]
    split = values.reshape(*lead, gates, -1)
    padded = np.full((*lead, gates, groups * GROUP), pad, dtype=values.dtype)
    padded[..., lanes] = split
    parts = padded.reshape(*lead, gates, groups, GROUP)
    count = len(lead)
    ordered: Int = parts.transpose(count + 1, count, *range(count), count + 2)
    return ordered
