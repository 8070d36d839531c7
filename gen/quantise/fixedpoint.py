"""Real factors as the integers of ``docs/numerics.md``: mult and shift, gamma, beta and s2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import Int32, Int64

Float64 = NDArray[np.float64]

MAX_SHIFT = 46
_MULT_LIMIT = (1 << 17) - 1


def encode_factors(factors: Float64, residual_shift: int | None = None) -> tuple[Int32, Int32]:
    """``mult / 2**shift`` closest to each positive factor, with 17-bit mantissas.

    Raises ValueError if a factor is too large, or if the shifts that the factors need cannot be
    combined with ``residual_shift``.
    """
    exponent = np.floor(np.log2(factors))
    top = MAX_SHIFT - max(0, residual_shift or 0)
    bottom = max(1, -(residual_shift or 0))
    shift = np.clip(16 - exponent, bottom, top).astype(np.int64)
    mult = np.rint(np.ldexp(factors, shift)).astype(np.int64)
    if int(mult.max()) > _MULT_LIMIT + 1:
        raise ValueError(f"factor {float(factors.max()):g} is too large")
    return np.clip(mult, 1, _MULT_LIMIT).astype(np.int32), shift.astype(np.int32)


def encode_affine(gamma: Float64, beta: Float64) -> tuple[Int32, Int64, int]:
    """``(gamma, beta, s2)`` in integers: gamma * 2**s2 fits 16 bits and beta * 2**s2 32 bits."""
    shift = 40
    largest = float(np.abs(gamma).max(initial=0.0))
    if largest > 0:
        shift = min(shift, int(np.floor(np.log2(32767 / largest))))
    offset = float(np.abs(beta).max(initial=0.0))
    if offset > 0:
        shift = min(shift, int(np.floor(np.log2((2**31 - 1) / offset))))
    if shift < 1:
        raise ValueError(f"read factor {largest:g} or offset {offset:g} is too large")
    scaled = np.rint(np.ldexp(gamma, shift)).astype(np.int32)
    return scaled, np.rint(np.ldexp(beta, shift)).astype(np.int64), shift
