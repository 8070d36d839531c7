"""The read side of a layer: from the stored format to an operand with known units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gen.layers import Layer, LayerGraph
from gen.qlayers import TABLE_SIZE, Float64, Int8, Int32, Int64, QRead, QTensor
from gen.quantise.fixedpoint import encode_affine
from gen.quantise.options import Options
from gen.quantise.ranges import ChannelRange
from gen.quantise.scales import asymmetric_scale, channel_scales
from gen.quantise.statistics import LayerStatistics, Statistics
from gen.quantise.tables import NOTHING_BELOW, activation_table, softmax_table

Z_UNIT = 2.0**-12  # of normalised values


@dataclass(frozen=True)
class OperandRead:
    """Constants of the read side.

    Channel c of the operand is worth (x - read.pad) * units[c] + offsets[c].
    """

    read: QRead
    units: Float64
    offsets: Float64


def build_read(
    graph: LayerGraph,
    layer: Layer,
    formats: dict[str, QTensor],
    statistics: Statistics,
    options: Options,
) -> OperandRead:
    """Integers of ``layer.read``. ``graph`` is the one whose input has its replicas."""
    seen = statistics.layers[layer.name]
    sources = [(graph.tensors[s], formats[s]) for s in layer.sources]
    stored = np.concatenate([_stored_scales(fmt, info.channels) for info, fmt in sources])
    offsets = np.zeros(stored.size)
    if layer.read.norm == "softmax":
        return _softmax(stored)
    if layer.read.norm == "none" and all(fmt.bits == 8 for _, fmt in sources):
        gamma, beta, shift = np.full(stored.size, 2, np.int32), np.zeros(stored.size, np.int64), 1
        align = (0,) * len(sources)
        return OperandRead(QRead(gamma, beta, shift, align, 0, None, 0), stored, offsets)
    slope = stored if layer.read.norm == "none" else np.full(stored.size, Z_UNIT)
    if layer.read.gamma is not None:
        slope = slope * graph.arrays[layer.read.gamma].astype(np.float64)
    offset = np.zeros(stored.size)
    if layer.read.beta is not None:
        offset = graph.arrays[layer.read.beta].astype(np.float64)
    align, eps = _normalisation(graph, layer, formats)
    table: Int8 | None = None
    if layer.read.act != "none":
        scale, zero_point = asymmetric_scale(seen.operand)
        low = max(seen.preact.low * 1.1, NOTHING_BELOW[layer.read.act])
        step = max(seen.preact.high * 1.1 - low, 1e-6) / (TABLE_SIZE - 1)
        table = activation_table(layer.read.act, low, step, scale, zero_point)
        units = np.full(stored.size, scale)
        factor, constant = slope / step, (offset - low) / step - TABLE_SIZE // 2
    else:
        zero_point = 0
        offsets = _offsets(layer, seen, options)
        units = channel_scales(seen.operand_channels, offsets, options.balance)
        factor, constant = slope / units, (offset - offsets) / units
    affine = None
    if layer.read.host_affine is None:
        gamma, beta, shift = encode_affine(factor, constant)
    else:
        gain = np.full(stored.size, 1.0) / (step if table is not None else units)
        parts = np.stack([factor, offset * gain, gain, constant - offset * gain])
        gamma, beta, shift, affine = _host_affine(parts, statistics.affine[layer.read.host_affine])
    read = QRead(gamma, beta, shift, align, eps, table, zero_point, affine)
    return OperandRead(read, units, offsets)


def _host_affine(parts: Float64, seen: ChannelRange) -> tuple[Int32, Int64, int, Float64]:
    """Gamma and beta at scale 0 and shift 0, s2, and the constants that the host computes with.

    ``parts`` [4, channels], real numbers: gamma = parts[0] * (1 + scale), beta =
    parts[1] * (1 + scale) + parts[2] * shift + parts[3]. Scales and shifts may be twice as large as
    those ``seen`` before gamma or beta saturates.
    """
    low, high = seen.limits()
    scale, shift = np.split(2 * np.maximum(np.abs(low), np.abs(high)), 2)
    gamma = np.abs(parts[0]) * (1 + scale)
    beta = np.abs(parts[1]) * (1 + scale) + np.abs(parts[2]) * shift + np.abs(parts[3])
    _, _, bits = encode_affine(gamma, beta)
    constants = np.ldexp(parts, bits)
    whole = np.rint(constants[0]), np.rint(constants[1] + constants[3])
    return whole[0].astype(np.int32), whole[1].astype(np.int64), bits, constants


def _stored_scales(fmt: QTensor, channels: int) -> Float64:
    if fmt.channel_scales is not None:
        return np.array(fmt.channel_scales)
    return np.full(channels, fmt.scale)


def _offsets(layer: Layer, seen: LayerStatistics, options: Options) -> Float64:
    """Middle of each channel's range, where the window never leaves the image; else zeros.

    Outside the image the operand stands for 0 in every channel, which needs one zero point.
    """
    low, high = seen.operand_channels.limits()
    if any(layer.window.pad) or not options.centre:
        return np.zeros(low.size)
    return (low + high) / 2


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
    return OperandRead(read, np.ones(stored.size), np.zeros(stored.size))
