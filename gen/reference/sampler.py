"""The sampler's update between two steps (docs/numerics.md, "Sampler on the card").

Any sampler whose step is x' = a*x + b*eps, without noise and without memory of earlier steps, is
one recurrence of the U-Net's input: where a step reads s*x, (s*x)' = (s'a/s)(s*x) + s'b*eps.
The state is that input in steps of its int8 quantisation, with 20 bits of fraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.reference.rounding import clamp, rshr

FRACTION_BITS = 20
STATE_BITS = 31
COEFFICIENT_BITS = 26
# what the products and their sum stay below, so that 64 bits hold them
_A_LIMIT = 1 << 31
_C_LIMIT = 1 << 46

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Coefficients:
    """Of one update: int32 ``a`` of the state, ``c0`` and ``c1`` (below 2**46) of the two results
    of a guided pair, all with 26 bits of fraction.
    """

    a: int
    c0: int
    c1: int

    @property
    def fits(self) -> bool:
        """Whether the card's sums hold them."""
        return abs(self.a) < _A_LIMIT and max(abs(self.c0), abs(self.c1)) < _C_LIMIT


def coefficients(
    a: float, b: float, guidance: float | None, input_scale: float, result_scale: float
) -> Coefficients:
    """Coefficients of x' = a*x + b*eps, x and x' as the U-Net reads them, with eps = e0 +
    guidance*(e1 - e0) (None: e0 alone). ``input_scale``, ``result_scale``: value of one unit of
    the input and of the result.
    """
    unit = b * result_scale / input_scale * 2.0 ** (FRACTION_BITS + COEFFICIENT_BITS)
    weights = (1.0, 0.0) if guidance is None else (1.0 - guidance, guidance)
    c0, c1 = (round(unit * weight) for weight in weights)
    return Coefficients(round(a * 2.0**COEFFICIENT_BITS), c0, c1)


def to_state(values: NDArray[np.float32], input_scale: float) -> Int32:
    """State of what the U-Net reads: rint(value / input_scale * 2**20) in float64, saturated."""
    steps = np.rint(values.astype(np.float64) / input_scale * 2.0**FRACTION_BITS)
    limit = 2.0 ** (STATE_BITS - 1)
    return np.clip(steps, -limit, limit - 1).astype(np.int32)


def from_state(state: Int32, input_scale: float) -> NDArray[np.float32]:
    """Values of a state, computed in float64."""
    return (state.astype(np.float64) * (input_scale * 2.0**-FRACTION_BITS)).astype(np.float32)


def update(state: Int32, q0: NDArray[np.int16], q1: NDArray[np.int16], by: Coefficients) -> Int32:
    """The next state: clamp(rshr(a*u + c0*q0 + c1*q1, 26), 31); arrays of one shape."""
    total = (
        state.astype(np.int64) * by.a + q0.astype(np.int64) * by.c0 + q1.astype(np.int64) * by.c1
    )
    return clamp(rshr(total, COEFFICIENT_BITS), STATE_BITS).astype(np.int32)


def offsets(replicas: int) -> list[int]:
    """What replica j adds before it is rounded down: (2j+1)/(2R) of a step."""
    return [((2 * j + 1) << FRACTION_BITS) // (2 * replicas) for j in range(replicas)]


def quantise_state(state: Int32, replicas: int) -> NDArray[np.int8]:
    """The input int8 [items, replicas * channels, ...] of a state [items, channels, ...]."""
    wide = state.astype(np.int64)
    levels: Sequence[NDArray[np.int64]] = [
        clamp((wide + offset) >> FRACTION_BITS, 8) for offset in offsets(replicas)
    ]
    return np.concatenate(levels, axis=1).astype(np.int8)
