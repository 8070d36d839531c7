"""Word formats of the weight streams (docs/engine.md, "Parameter words")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, SUB

Bytes = NDArray[np.uint8]
Int = NDArray[Any]


def weight_words(matrix: NDArray[np.int8]) -> Bytes:
    """Words of weights int8 [gates, groups * 8, taps, subs * 16], padding included.

    Order: group, gate, tap, sub, half; a word is 8 outputs x 8 inputs. uint8 [words, 64].
    """
    gates, outputs, taps, inputs = matrix.shape
    split = matrix.reshape(gates, outputs // GROUP, GROUP, taps, inputs // SUB, 2, SUB // 2)
    ordered = split.transpose(1, 0, 3, 4, 5, 2, 6)
    return np.ascontiguousarray(ordered).view(np.uint8).reshape(-1, 64)


def bias_words(bias: NDArray[np.int32]) -> Bytes:
    """Words of biases int32 [groups, gates, items, 8]: two items a word. uint8 [words, 64]."""
    groups, gates, items, lanes = bias.shape
    even = np.zeros((groups, gates, items + items % 2, lanes), dtype="<i4")
    even[:, :, :items] = bias
    return even.view(np.uint8).reshape(-1, 64)


def scale_words(mult: NDArray[np.int32], shift: NDArray[np.int32]) -> Bytes:
    """Words of multipliers and shifts, int32 [rows, 8] each. uint8 [rows, 64]."""
    return np.concatenate([mult, shift], axis=1).astype("<i4").view(np.uint8).reshape(-1, 64)


def gamma_beta_words(gamma: Int, beta: Int) -> Bytes:
    """Words of gamma (int16 range) and beta (int32 range), [blocks, 64] each.

    Raises:
        AssertionError: a value out of range.
    """
    for values, bits in ((gamma, 16), (beta, 32)):
        assert values.min() >= -(1 << (bits - 1)) and values.max() < 1 << (bits - 1)
    blocks = len(gamma)
    low = gamma.astype("<i2").view(np.uint8).reshape(blocks, 2, 64)
    high = beta.astype("<i4").view(np.uint8).reshape(blocks, 4, 64)
    return np.concatenate([low, high], axis=1).reshape(-1, 64)


def header_word(eps: int) -> Bytes:
    """The first word of the parameters of ``pre``: E as int64."""
    word = np.zeros((1, 64), dtype=np.uint8)
    word[0, :8] = np.array([eps], dtype="<i8").view(np.uint8)
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
