"""Rounding, saturation and the small integer functions that everything else is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def rshr(x: Int64, shift: int | Int64) -> Int64:
    """``x / 2**shift`` rounded half up (towards plus infinity); ``shift`` >= 0 broadcasts."""
    s = np.asarray(shift, dtype=np.int64)
    half = (np.int64(1) << s) >> np.int64(1)
    return np.asarray((x + half) >> s, dtype=np.int64)


def clamp(x: Int64, bits: int) -> Int64:
    """``x`` saturated to the range of a two's complement number of ``bits`` bits."""
    result: Int64 = np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return result


def bits(x: int) -> int:
    """Number of binary digits of ``x`` >= 0; 0 has none."""
    return int(x).bit_length()


def bits_of(x: Int64) -> Int64:
    """:func:`bits` of every element of ``x`` (0 <= x < 2**63)."""
    # frexp is exact below 2**53, so look at 31 bits at a time
    high = x >> np.int64(31)
    low_bits = np.frexp((x & np.int64(0x7FFFFFFF)).astype(np.float64))[1]
    high_bits = np.frexp(high.astype(np.float64))[1]
    counts: Int64 = np.where(high > 0, high_bits + 31, low_bits).astype(np.int64)
    return counts


def isqrt_of(x: Int64) -> Int64:
    """``floor(sqrt(x))`` of every element; 0 <= x < 2**52, where the float root is exact enough."""
    root: Int64 = np.floor(np.sqrt(x.astype(np.float64))).astype(np.int64)
    return root
