"""Softmax in two halves: exponentials while reading, the division while writing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.reference.rounding import bits_of, rshr

Int64 = NDArray[np.int64]


def below_maximum(q: Int64) -> Int64:
    """Return z = q minus the maximum of its row; rows are the last axis (valid key tokens only)."""
    z: Int64 = q - q.max(axis=-1, keepdims=True)
    return z


def divide_by_row_sum(acc: Int64, row_sum: Int64) -> Int64:
    """``acc`` [..., rows, pixels] over ``row_sum`` [..., 1, pixels], with 12 fraction bits."""
    k = bits_of(row_sum)
    reciprocal = np.where(row_sum > 0, (np.int64(1) << (k + 16)) // np.maximum(row_sum, 1), 0)
    return rshr(acc * reciprocal, k + 4)
