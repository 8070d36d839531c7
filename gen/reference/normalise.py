"""Group and layer normalisation in integers (``docs/numerics.md``, "Statistics")."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from gen.reference.rounding import bits, bits_of, clamp, isqrt_of, rshr

Int64 = NDArray[np.int64]

FRACTION = 4  # F: fraction bits of the mean
Z_BITS = 18  # a normalised value is clamped to 18 bits, 12 of them fraction
_WIDE = 1 << 62


def reciprocal_deviation(variance: int, n: int) -> tuple[int, int]:
    """``(r, e)`` with ``r * 2**-e`` = 2**8 / sigma up to rounding.

    ``variance`` is D = n*Q - S*S + E > 0, an integer of any size; ``n`` values were summed.
    """
    sh = bits(variance) - 32
    if sh % 2:
        sh += 1
    scaled = variance >> sh if sh >= 0 else variance << -sh
    return (n << (32 - bits(n))) // isqrt(scaled), sh // 2 + 24 - bits(n)


def scale_deviations(d: Int64, r: Int64, e: Int64) -> Int64:
    """Return z = d * r / 2**e with 12 fraction bits, clamped to 18 bits; everything broadcasts."""
    y = d * r
    down = rshr(y, np.maximum(e, 0))
    up = y << np.clip(-e, 0, 16)
    return clamp(np.where(e >= 0, down, up), Z_BITS)


def group_normalise(sources: Sequence[Int64], align: Sequence[int], groups: int, eps: int) -> Int64:
    """Group norm over the concatenated ``sources`` [batch, channels, height, width].

    The sums are kept per source channel, as on the card, because a group may cut through two
    sources. Returns z [batch, all channels, height, width].
    """
    sums = np.concatenate([q.sum(axis=(2, 3)) << a for q, a in zip(sources, align, strict=True)], 1)
    squares = np.concatenate(
        [(q * q).sum(axis=(2, 3)) << (2 * a) for q, a in zip(sources, align, strict=True)], 1
    )
    values = np.concatenate([q << a for q, a in zip(sources, align, strict=True)], axis=1)
    batch, channels, height, width = values.shape
    size = channels // groups
    n = size * height * width
    mu = np.empty((batch, groups), np.int64)
    r = np.empty((batch, groups), np.int64)
    e = np.empty((batch, groups), np.int64)
    for item in range(batch):
        for group in range(groups):
            span = slice(group * size, (group + 1) * size)
            # Python integers: n*Q exceeds 64 bits on large images
            s = sum(int(v) for v in sums[item, span])
            q = sum(int(v) for v in squares[item, span])
            mu[item, group] = (s << FRACTION) // n
            r[item, group], e[item, group] = reciprocal_deviation(n * q - s * s + eps, n)
    grouped = values.reshape(batch, groups, size * height * width)
    d = (grouped << FRACTION) - mu[:, :, None]
    z = scale_deviations(d, r[:, :, None], e[:, :, None])
    return z.reshape(batch, channels, height, width)


def layer_normalise(q: Int64, eps: int) -> Int64:
    """Layer norm of ``q`` [batch, channels, height, width] over the channels of each pixel."""
    n = q.shape[1]
    s = q.sum(axis=1, keepdims=True)
    squares = (q * q).sum(axis=1, keepdims=True)
    mu = (s << FRACTION) // n
    if n * n * (1 << 30) + eps < _WIDE:
        variance = n * squares - s * s + eps
        sh = bits_of(variance) - 32
        sh += sh % 2
        scaled = np.where(sh >= 0, variance >> np.maximum(sh, 0), variance << np.maximum(-sh, 0))
        r = (n << (32 - bits(n))) // isqrt_of(scaled)
        e = sh // 2 + 24 - bits(n)
    else:
        r, e = np.empty_like(s), np.empty_like(s)
        for index in np.ndindex(s.shape):
            total = int(s[index])
            variance_of_row = n * int(squares[index]) - total * total + eps
            r[index], e[index] = reciprocal_deviation(variance_of_row, n)
    return scale_deviations((q << FRACTION) - mu, r, e)
