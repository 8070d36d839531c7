"""The write side of a layer: factors from accumulators to the destination's format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.layers import Layer
from gen.qlayers import Int16, Int32, QTensor
from gen.quantise.fixedpoint import encode_factors
from gen.quantise.options import Options
from gen.quantise.statistics import LayerStatistics
from gen.quantise.tables import gelu_table

Float64 = NDArray[np.float64]

SOFTMAX_FRACTION = 2.0**-12  # unit of a product divided by its row sum


@dataclass(frozen=True)
class Write:
    """Constants of the write side, as in ``QLayer``."""

    mult: Int32
    shift: Int32
    residual_shift: int = 0
    gate_table: Int16 | None = None
    gate_shift: int = 0


def build_write(
    layer: Layer,
    acc_scale: Float64,
    formats: dict[str, QTensor],
    seen: LayerStatistics,
    options: Options,
) -> Write:
    """From accumulators worth ``acc_scale`` [rows] to the format of ``layer.dest``."""
    dest = formats[layer.dest]
    if layer.gate == "geglu":
        return _geglu(acc_scale, dest, seen, options)
    scale = np.array(dest.channel_scales) if dest.channel_scales is not None else dest.scale
    unit = acc_scale * SOFTMAX_FRACTION if layer.read.norm == "softmax" else acc_scale
    if layer.residual is None:
        mult, shift = encode_factors(unit / scale)
        return Write(mult, shift)
    residual, own = formats[layer.residual].exponent, dest.exponent
    assert residual is not None and own is not None, f"{layer.name} adds a tensor without exponent"
    mult, shift = encode_factors(unit / scale, residual - own)
    return Write(mult, shift, residual - own)


def _geglu(acc_scale: Float64, dest: QTensor, seen: LayerStatistics, options: Options) -> Write:
    """Value rows in 16 bits, gate rows as table indices, their product a shift from ``dest``."""
    step = max(seen.gate.absmax, 1e-6) * 1.1 / 1023
    table, unit = gelu_table(step)
    low, high = seen.value_channels.limits()
    largest = np.maximum(np.maximum(high, -low), 1e-12)
    finest = largest * 2.0**options.headroom_bits / 32767
    scales = np.full(largest.size, dest.scale)
    if dest.channel_scales is not None:
        scales = np.array(dest.channel_scales)
    gate_shift = int(np.clip(np.floor(np.log2((scales / (finest * unit)).min())), 0, 31))
    value_unit = scales / (unit * 2.0**gate_shift)
    rows = acc_scale.size // 2
    target = np.concatenate([value_unit, np.full(rows, step)])
    mult, shift = encode_factors(acc_scale / target)
    return Write(mult, shift, 0, table, gate_shift)
