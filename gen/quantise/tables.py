"""Contents of the run-time tables: SiLU, GELU and exponential."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gen.layers import ActKind
from gen.qlayers import TABLE_SIZE, Int8, Int16

Floats = NDArray[np.floating]

# below this exponent the table of the softmax holds nothing but zeros: 127*exp(-5.6) < 0.5
SOFTMAX_SPAN = 5.6


def silu(x: Floats) -> Floats:
    """Return x * sigmoid(x)."""
    result: Floats = x / (1.0 + np.exp(-np.clip(x, -500, 500)))
    return result


def gelu(x: Floats) -> Floats:
    """Return x * Phi(x), the exact form that diffusers' GEGLU uses."""
    phi = np.array([0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x.ravel()])
    result: Floats = x * phi.reshape(x.shape)
    return result


def gelu_tanh(x: Floats) -> Floats:
    """Return GELU's approximation by a hyperbolic tangent (Hendrycks and Gimpel 2016)."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    result: Floats = 0.5 * x * (1.0 + np.tanh(inner))
    return result


ACTIVATIONS: dict[ActKind, Callable[[Floats], Floats]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}
# where each is within 0.0012 of zero, and stays there below
NOTHING_BELOW: dict[ActKind, float] = {"silu": -9.0, "gelu": -4.0, "gelu_tanh": -4.0}


def activation_table(act: ActKind, low: float, step: float, scale: float, zero_point: int) -> Int8:
    """Operand int8[2048] of pre-activation ``low + i * step``: act / scale + zero point."""
    values = ACTIVATIONS[act](low + step * np.arange(TABLE_SIZE))
    table: Int8 = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
    return table


def softmax_table() -> tuple[Int8, float]:
    """Table int8[2048] of 127 * exp(-(2047 - i) * delta), and delta."""
    delta = SOFTMAX_SPAN / (TABLE_SIZE - 1)
    exponents = -delta * np.arange(TABLE_SIZE - 1, -1, -1)
    return np.rint(127 * np.exp(exponents)).astype(np.int8), delta


def gelu_table(step: float) -> tuple[Int16, float]:
    """Table int16[2048] of gelu((i - 1024) * step) / unit, and its unit."""
    values = gelu(step * (np.arange(TABLE_SIZE) - TABLE_SIZE // 2))
    unit = float(np.abs(values).max()) / 32767
    return np.rint(values / unit).astype(np.int16), unit
