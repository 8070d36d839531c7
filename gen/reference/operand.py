"""The read side: from stored integers to operands (``docs/numerics.md``, "Reading")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import Affine, QLayer, QRead
from gen.reference.normalise import group_normalise, layer_normalise
from gen.reference.rounding import clamp, rshr
from gen.reference.softmax import below_maximum

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]


def operand(qlayer: QLayer, sources: list[Int64], affine: Affine | None = None) -> Int8:
    """Operand x [batch, channels, h, w]; after a softmax [batch, heads, pixels, tokens]."""
    read, norm = qlayer.read, qlayer.layer.read
    if norm.norm == "softmax":
        return requantise_operand(below_maximum(sources[0]), read, (1, 1, 1, -1))
    if norm.norm == "group":
        z = group_normalise(sources, read.align, norm.groups, read.eps)
    elif norm.norm == "layer":
        z = layer_normalise(np.concatenate(sources, axis=1), read.eps)
    else:
        z = np.concatenate(sources, axis=1)
    if affine is None:
        return requantise_operand(z, read, (1, -1, 1, 1))
    return requantise_operand(z, read, (len(z), -1, 1, 1), affine)


def requantise_operand(
    z: Int64, read: QRead, shape: tuple[int, ...], affine: Affine | None = None
) -> Int8:
    """Operand x = table or clamp of z * gamma + beta; ``shape`` says where -1 these belong."""
    gamma, beta = (read.gamma, read.beta) if affine is None else (affine.gamma, affine.beta)
    scaled = z * gamma.astype(np.int64).reshape(shape) + beta.astype(np.int64).reshape(shape)
    t = rshr(scaled, read.shift)
    if read.table is None:
        return clamp(t, 8).astype(np.int8)
    return read.table[clamp(t, 11) + 1024]
