"""Choice of scales from observed ranges."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gen.layers import LayerGraph
from gen.qlayers import QTensor
from gen.quantise.options import Options
from gen.quantise.ranges import ChannelRange, Range
from gen.quantise.statistics import Statistics

Float64 = NDArray[np.float64]

MAX_ALIGN = 7
_TINY = 1e-12
_CLIPS = np.linspace(0.4, 1.0, 31)
# a channel's sample is small: values beyond it must not be cut off too low
_CHANNEL_CLIPS = np.linspace(0.7, 1.0, 16)


def symmetric_scale(seen: Range) -> float:
    """Scale of an int8 tensor, value = q * scale, with the least mean square error."""
    values = seen.values()
    top = max(seen.absmax, _TINY) / 127
    errors = []
    for clip in _CLIPS:
        scale = top * clip
        rounded = np.clip(np.rint(values / scale), -128, 127) * scale
        errors.append(float(np.mean((rounded - values) ** 2)))
    return float(top * _CLIPS[int(np.argmin(errors))])


def asymmetric_scale(seen: Range) -> tuple[float, int]:
    """Scale and zero point of an int8 operand, value = (q - zero point) * scale."""
    values = seen.values()
    best = (math.inf, 1.0, 0)
    for clip in _CLIPS:
        low, high = min(seen.low, 0.0), max(seen.high * clip, _TINY)
        scale = (high - low) / 255
        zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
        rounded = np.clip(np.rint(values / scale) + zero_point, -128, 127) - zero_point
        error = float(np.mean((rounded * scale - values) ** 2))
        best = min(best, (error, scale, zero_point))
    return best[1], best[2]


def channel_scales(seen: ChannelRange, offsets: Float64, balance: float) -> Float64:
    """Scales [channels] of int8 operands, value = q * scale + offset.

    With ``balance`` 1 each channel has the scale of least mean square error; with 0 all have the
    largest of these. Between them the weights, which absorb the differences, keep more of their
    precision (SmoothQuant, Xiao et al. 2022).
    """
    low, high = seen.limits()
    values = seen.values() - offsets
    top = np.maximum(np.maximum(high - offsets, offsets - low), _TINY) / 127
    best, scales = np.full(top.shape, np.inf), top.copy()
    for clip in _CHANNEL_CLIPS:
        scale = top * clip
        rounded = np.clip(np.rint(values / scale), -128, 127) * scale
        error = np.mean((rounded - values) ** 2, axis=0)
        scales = np.where(error < best, scale, scales)
        best = np.minimum(best, error)
    largest = float(scales.max())
    result: Float64 = np.maximum(scales, largest * 1e-3) ** balance * largest ** (1 - balance)
    return result


def tensor_formats(
    graph: LayerGraph, statistics: Statistics, options: Options
) -> dict[str, QTensor]:
    """Formats of every stored tensor by its role."""
    headroom = 2.0**options.headroom_bits
    formats: dict[str, QTensor] = {}
    for name, info in graph.tensors.items():
        seen = statistics.tensors[name]
        largest = max(seen.absmax, _TINY)
        if info.role == "input":
            # half a step less than 127, so that every replica of the largest value fits
            formats[name] = QTensor(8, largest * 1.05 / 126.5)
        elif info.role == "operand":
            reader = sole_static_reader(graph, name)
            if reader is None:
                formats[name] = QTensor(8, symmetric_scale(seen))
            else:
                spread = statistics.layers[reader].operand_channels
                zeros = np.zeros(info.channels)
                scales = channel_scales(spread, zeros, options.gate_balance)
                formats[name] = QTensor(8, float(scales.max()), None, tuple(scales.tolist()))
        elif info.role == "scores":
            formats[name] = QTensor(16, largest * headroom / 32767)
        else:
            exponent = math.ceil(math.log2(largest * headroom / 32767))
            formats[name] = QTensor(16, 2.0**exponent, exponent)
    for layer in graph.layers:
        if layer.read.norm == "group" and len(layer.sources) > 1:
            _bring_together(formats, layer.sources)
    return formats


def sole_static_reader(graph: LayerGraph, tensor: str) -> str | None:
    """The layer whose static weights can absorb channel scales of ``tensor``, if there is one.

    The layer that writes it must have a row of its own for every channel, which attention
    products have not.
    """
    writer = next((layer for layer in graph.layers if layer.dest == tensor), None)
    readers = graph.consumers(tensor)
    if writer is None or writer.weight.kind != "static" or len(readers) != 1:
        return None
    reader = readers[0]
    plain = reader.read.norm == "none" and reader.read.act == "none"
    absorbs = plain and reader.weight.kind == "static" and reader.sources == (tensor,)
    return reader.name if absorbs else None


def _bring_together(formats: dict[str, QTensor], sources: tuple[str, ...]) -> None:
    """Coarsen the finest source until shifts within MAX_ALIGN align it with the coarsest."""
    exponents = [formats[s].exponent or 0 for s in sources]
    floor = max(exponents) - MAX_ALIGN
    for source, exponent in zip(sources, exponents, strict=True):
        if exponent < floor:
            formats[source] = QTensor(16, 2.0**floor, floor)
