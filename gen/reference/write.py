"""The write side: from accumulators to stored integers (``docs/numerics.md``, "Writing")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import QGraph, QLayer
from gen.reference.rounding import clamp, rshr

Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]
Stored = NDArray[np.int8] | NDArray[np.int16]


def store(qgraph: QGraph, qlayer: QLayer, a: Int64, residual: Stored | None) -> Stored:
    """Stored integers, shaped as ``a`` [..., rows, pixels] (half the rows with a gate)."""
    layer = qlayer.layer
    assert int(a.min()) >= -(1 << 31) and int(a.max()) < 1 << 31, layer.name
    mult, shift = qlayer.mult.astype(np.int64), qlayer.shift.astype(np.int64)
    bits = qgraph.tensors[layer.dest].bits
    if layer.gate == "geglu":
        assert qlayer.gate_table is not None
        y = gated(a, mult, shift, qlayer.gate_table, qlayer.gate_shift)
    else:
        added = None if residual is None else residual.astype(np.int64).reshape(a.shape)
        y = requantise(a, mult, shift, bits, added, qlayer.residual_shift)
    stored: Stored = y.astype(np.int8 if bits == 8 else np.int16)
    return stored


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
