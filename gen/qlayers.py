"""The integer layer graph: every number that the card computes with, and nothing in float but
the scales that the host needs to enter and leave the integer domain.

Formulas are in ``docs/numerics.md``; ``gen.reference`` evaluates this structure and is the one
definition of the card's results.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gen.layers import Layer, LayerGraph

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

TABLE_SIZE = 2048  # entries of every run-time table; index = clamp(t, -1024, 1023) + 1024


@dataclass(frozen=True)
class QTensor:
    """Number format of a stored tensor: value = integer * scale; ``bits`` is 8 or 16.
    Scales of stream tensors are powers of two: scale == 2.0 ** exponent. An operand tensor may
    have ``channel_scales``, one per channel, of which ``scale`` is the largest; the weights that
    read it have absorbed the difference.
    """

    bits: int
    scale: float
    exponent: int | None = None
    channel_scales: tuple[float, ...] | None = None

    def values(self, stored: Int8 | Int16) -> NDArray[np.float64]:
        """Real values of ``stored`` [batch, channels, height, width] or of logits."""
        scale = np.array(self.scale)
        if self.channel_scales is not None:
            scale = np.array(self.channel_scales)[:, None, None]
        real: NDArray[np.float64] = stored.astype(np.float64) * scale
        return real


@dataclass
class QRead:
    """Constants of the read side (see docs/numerics.md, "Reading")."""

    gamma: Int32  # [channels of all sources], int16 range
    beta: Int64  # [channels of all sources], int32 range
    shift: int  # s2, 1..40
    # left shift per source that aligns its exponent with the smallest one (group norm)
    align: tuple[int, ...]
    eps: int  # E of the variance formula; >= 1 when normalising, else 0
    table: Int8 | None  # [2048] or None: clamp to int8
    pad: int  # int8 value of out-of-image pixels: the zero point of the multiplier's operand
    # with a host affine: what the host makes gamma and beta from at every step, float64
    # [4, channels] (docs/numerics.md, "Host values"); ``gamma`` and ``beta`` are then those of
    # scale 0 and shift 0
    affine: Float64 | None = None


@dataclass(frozen=True)
class Affine:
    """Constants of one layer's read side for one step: gamma int32 and beta int64, in the ranges
    of ``QRead``, [batch, channels of all sources].
    """

    gamma: Int32
    beta: Int64


@dataclass
class QLayer:
    """One layer in integers. ``weight`` is int8 in [-127, 127] ([-7, 7] with 4 bits), shape
    [out, in, kh, kw], for static weights, else None. With a gate, out counts both halves: all
    value rows, then all gate rows. ``mult`` > 0 and ``shift`` (1..46) have one entry per weight
    row.
    """

    layer: Layer
    read: QRead
    weight: Int8 | None
    # [out rows]; corrections included; with host_bias the step's values are added to it
    bias: Int32
    mult: Int32  # [out rows], 0 < mult < 2**17
    shift: Int32  # [out rows]
    # real value of one accumulator unit per row, to turn host biases into integers
    acc_scale: Float64
    # integer corrections per row (zero point, mean error) that are already part of ``bias``
    correction: Int64
    # left shift of the residual relative to ``shift`` (may be negative; shift + it >= 0)
    residual_shift: int = 0
    gate_table: Int16 | None = None  # [2048]
    gate_shift: int = 0
    # real value of one unit of a host weight (K or V from the host), else 0
    host_weight_scale: float = 0.0
    # static weights are within +-(2**(weight_bits - 1) - 1); 8 or 4. K and V: 8
    weight_bits: int = 8


@dataclass
class QGraph:
    """The integer layer graph. ``input_replicas``: the host writes each input channel that many
    times with staggered rounding (docs/numerics.md, "Input").

    ``graph`` describes what is stored: its input tensor has input_replicas * channels channels
    (the float graph it came from has one of each), and so have the input layer's weights.
    """

    graph: LayerGraph
    tensors: dict[str, QTensor]
    layers: list[QLayer]
    input_replicas: int = 1
    meta: dict[str, object] = field(default_factory=dict)


def layer_bits(graph: LayerGraph, layer: Layer, weight_bits: int) -> int:
    """Bits of a layer's weights in a model of ``weight_bits``: K, V and the layers at both ends,
    which read the latent or write the output, have 8.
    """
    ends = graph.input in layer.sources or layer.dest == graph.output
    return 8 if ends or layer.weight.kind != "static" else weight_bits
