"""The read side of a layer: from the stored format to an operand with known units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.layers import Layer, LayerGraph
from gen.qlayers import TABLE_SIZE, Int8, QRead, QTensor
from gen.quantise.fixedpoint import encode_affine
from gen.quantise.options import Options
from gen.quantise.scales import asymmetric_scale
from gen.quantise.statistics import LayerStatistics
from gen.quantise.tables import silu_table, softmax_table

Float64 = NDArray[np.float64]

Z_UNIT = 2.0**-12  # of normalised values
SILU_LOW = -9.0  # SiLU is within 0.0012 of zero below


@dataclass(frozen=True)
class OperandRead:
    """Constants of the read side; operand channel c is worth (x - read.pad) * units[c]."""

    read: QRead
    units: Float64


def build_read(
    graph: LayerGraph,
    layer: Layer,
    formats: dict[str, QTensor],
    seen: LayerStatistics,
    options: Options,
) -> OperandRead:
    """Integers of ``layer.read``. ``graph`` is the one whose input has its replicas."""
    sources = [(graph.tensors[s], formats[s]) for s in layer.sources]
    stored = np.concatenate([np.full(info.channels, fmt.scale) for info, fmt in sources])
    if layer.read.norm == "softmax":
        return _softmax(stored)
    if layer.read.norm == "none" and all(fmt.bits == 8 for _, fmt in sources):
        gamma, beta, shift = np.full(stored.size, 2, np.int32), np.zeros(stored.size, np.int64), 1
        align = (0,) * len(sources)
        return OperandRead(QRead(gamma, beta, shift, align, 0, None, 0), stored)
    slope = stored if layer.read.norm == "none" else np.full(stored.size, Z_UNIT)
    if layer.read.gamma is not None:
        slope = slope * graph.arrays[layer.read.gamma].astype(np.float64)
    offset = np.zeros(stored.size)
    if layer.read.beta is not None:
        offset = graph.arrays[layer.read.beta].astype(np.float64)
    align, eps = _normalisation(graph, layer, formats)
    table: Int8 | None = None
    if layer.read.act == "silu":
        scale, zero_point = asymmetric_scale(seen.operand)
        low = max(seen.preact.low * 1.1, SILU_LOW)
        step = max(seen.preact.high * 1.1 - low, 1e-6) / (TABLE_SIZE - 1)
        table = silu_table(low, step, scale, zero_point)
        units = np.full(stored.size, scale)
        factor, constant = slope / step, (offset - low) / step - TABLE_SIZE // 2
    else:
        zero_point = 0
        units = channel_units(seen, options.balance)
        factor, constant = slope / units, offset / units
    gamma, beta, shift = encode_affine(factor, constant)
    return OperandRead(QRead(gamma, beta, shift, align, eps, table, zero_point), units)


def channel_units(seen: LayerStatistics, balance: float) -> Float64:
    """Units [channels] between one for all (``balance`` 0) and one for each channel's own range.

    The idea is SmoothQuant's (Xiao et al. 2022): the weights absorb what the units differ by.
    """
    assert seen.channel_absmax is not None
    top = max(float(seen.channel_absmax.max()), 1e-12)
    own = np.maximum(seen.channel_absmax, top * 1e-3)
    units: Float64 = own**balance * top ** (1.0 - balance) / 127
    return units


def _normalisation(
    graph: LayerGraph, layer: Layer, formats: dict[str, QTensor]
) -> tuple[tuple[int, ...], int]:
    """Alignment shifts of the sources, and E."""
    norm = layer.read
    if norm.norm not in ("group", "layer"):
        return (0,) * len(layer.sources), 0
    exponents = [formats[s].exponent for s in layer.sources]
    known = [e for e in exponents if e is not None]
    assert len(known) == len(exponents), f"{layer.name} normalises a tensor without exponent"
    lowest = min(known)
    channels = sum(graph.tensors[s].channels for s in layer.sources)
    n = channels
    if norm.norm == "group":
        n = channels // norm.groups * graph.tensors[layer.sources[0]].pixels
    # Python integers: 2**(-2 * lowest) times n * n leaves the 53 bits of a float
    eps = max(1, round(norm.eps * 2.0 ** (-2 * lowest) * n * n))
    return tuple(e - lowest if norm.norm == "group" else 0 for e in known), eps


def _softmax(stored: Float64) -> OperandRead:
    """Logits below the maximum become table steps (gamma) and 0 the last entry (beta)."""
    table, delta = softmax_table()
    top = np.full(stored.size, float(TABLE_SIZE // 2 - 1))
    gamma, beta, shift = encode_affine(stored / delta, top)
    read = QRead(gamma, beta, shift, (0,), 0, table, 0)
    return OperandRead(read, np.ones(stored.size))
