"""The write side: from accumulators to stored integers (``docs/numerics.md``, "Writing")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.reference.rounding import clamp, rshr

Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]


def requantise(
    a: Int64, mult: Int64, shift: Int64, bits: int, residual: Int64 | None, residual_shift: int
) -> Int64:
    """Stored y of ``a`` [..., rows, pixels] (bias included), ``mult`` and ``shift`` [rows]."""
    v = a * mult[:, None]
    if residual is not None:
        v = v + (residual << (shift + residual_shift)[:, None])
    return clamp(rshr(v, shift[:, None]), bits)


def gated(a: Int64, mult: Int64, shift: Int64, table: Int16, gate_shift: int) -> Int64:
    """GEGLU: value rows (first half of ``a`` [batch, 2*out, pixels]) times table[gate rows]."""
    out = a.shape[1] // 2
    scaled = rshr(a * mult[:, None], shift[:, None])
    value = clamp(scaled[:, :out], 16)
    index = clamp(scaled[:, out:], 11) + 1024
    return clamp(rshr(value * table.astype(np.int64)[index], gate_shift), 8)
