"""Latent and result against their bytes in the ranks' DDR, in few passes over the data.

Where a value lies is defined by ``gen.program`` alone: maps from value to byte come from packing
and unpacking numbered values with it, once. The map of one group of channels, which lies on one
rank, mostly is regular: it becomes a strided view of that rank's buffer. Otherwise values are
gathered and scattered by it. A rank without channels of the tensor is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program import Program, pack_latent, unpack_result
from gen.program.layout import GROUP, ROW, Stored
from gen.qlayers import QGraph

Bytes = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

_DIGIT = 127  # positive int8 values, 0 being padding


def latent_map(program: Program) -> Indices:
    """Position in the latent buffers, one rank's after the other, of every int8 value [batch,
    channels * replicas, height, width].
    """
    shape = _shape(program.tensors[program.input])
    numbers = np.arange(np.prod(shape))
    found, rest, place = None, numbers, 1
    positions: Indices = np.zeros(0, np.intp)
    while place <= numbers.size:
        digits = (rest % _DIGIT + 1).astype(np.int8).reshape(shape)
        packed = np.concatenate(pack_latent(program, digits)).reshape(-1).astype(np.int64)
        if found is None:
            positions = np.flatnonzero(packed)
            found = np.zeros(positions.size, np.int64)
        found += (packed[positions] - 1) * place
        rest, place = rest // _DIGIT, place * _DIGIT
    assert found is not None and found.size == numbers.size
    order: Indices = np.empty_like(positions)
    order[found] = positions
    return order.reshape(shape)


def result_map(program: Program) -> Indices:
    """Positions in the result buffers, one rank's after the other, of the low and the high byte of
    every value: [batch, channels, height, width, 2].
    """
    size = program.output_rows * ROW
    numbers = np.arange(program.ranks * size, dtype=np.int64)
    low = high = np.int64(0)
    for shift in range(0, max(1, int(numbers[-1]).bit_length()), 8):
        digits = (numbers >> shift & 0xFF).astype(np.uint8)
        rows = list(digits.reshape(program.ranks, program.output_rows, ROW))
        values = unpack_result(program, rows).view(np.uint16).astype(np.int64)
        low = low + ((values & 0xFF) << shift)
        high = high + ((values >> 8) << shift)
    return np.stack([low, high], axis=-1).astype(np.intp)


def _shape(tensor: Stored) -> tuple[int, int, int, int]:
    return tensor.items, tensor.channels, tensor.height, tensor.width


def strides(positions: Indices) -> tuple[int, tuple[int, ...]] | None:
    """First position and byte strides of positions that lie on a grid; None if they do not."""
    steps = tuple(
        int(positions.take(1, axis).flat[0] - positions.flat[0]) if length > 1 else 0
        for axis, length in enumerate(positions.shape)
    )
    first = int(positions.flat[0])
    grid = np.full(positions.shape, first, np.int64)
    for index, step in zip(np.indices(positions.shape), steps, strict=True):
        grid += index * step
    return (first, steps) if np.array_equal(grid, positions) else None


def grid_view(buffer: Bytes, dtype: str, positions: Indices) -> NDArray[Any] | None:
    """View of the values of ``dtype`` that start at the positions; None if they lie on no grid."""
    found = strides(positions)
    if found is None:
        return None
    first, steps = found
    view: NDArray[Any] = np.ndarray(positions.shape, dtype, buffer, first, steps)
    return view


@dataclass(frozen=True)
class Part:
    """Up to 8 channels, which lie on one rank: ``positions`` in its buffer [batch, channels,
    octets, 8 pixels], or fewer pixels in one octet where 8 do not divide them.
    """

    rank: int
    channels: slice
    positions: Indices


def parts(positions: Indices, rank_bytes: int) -> list[Part]:
    """The map [batch, channels, height, width] cut into groups of channels."""
    items, channels = positions.shape[:2]
    pixels = positions[0, 0].size
    shape = (pixels // GROUP, GROUP) if pixels % GROUP == 0 else (1, pixels)
    made = []
    for first in range(0, channels, GROUP):
        chosen = slice(first, min(first + GROUP, channels))
        here = positions[:, chosen].reshape(items, -1, *shape)
        rank = int(here.flat[0]) // rank_bytes
        assert (here // rank_bytes == rank).all()
        made.append(Part(rank, chosen, here - rank * rank_bytes))
    return made


class LatentPacker:
    """``gen.hostints.quantise_latent`` and ``gen.program.pack_latent`` into the ranks' buffers.

    ``ranks`` are those that hold channels of the latent.
    """

    def __init__(self, program: Program, qgraph: QGraph) -> None:
        tensor = program.tensors[program.input]
        replicas = qgraph.input_replicas
        self._inverse = np.float32(1.0 / qgraph.tensors[qgraph.graph.input].scale)
        fractions = [(2 * j + 1) / (2 * replicas) for j in range(replicas)]
        self._offsets = np.array(fractions, np.float32).reshape(1, -1, 1, 1, 1)
        self._limits = np.float32(-128), np.float32(127)
        self._parts = parts(latent_map(program), program.input_rows * ROW)
        self.ranks = {part.rank for part in self._parts}
        shape = _shape(tensor)
        pixels = shape[2:]
        self._levels = np.empty(shape, np.float32)
        self._replicas = self._levels.reshape(tensor.items, replicas, -1, *pixels)
        self._steps = np.empty((tensor.items, 1, tensor.channels // replicas, *pixels), np.float32)
        self._sources = [
            self._levels[:, part.channels].reshape(part.positions.shape) for part in self._parts
        ]
        assert all(np.shares_memory(each, self._levels) for each in self._sources)
        self._buffers: Sequence[Bytes] = ()
        self._views: list[NDArray[Any] | None] = []

    def write(self, buffers: Sequence[Bytes], latent: Float32) -> None:
        """Write float32 [batch, channels, height, width] into the latent buffers, whose padding is
        zero and stays so.
        """
        if self._buffers is not buffers:
            self._buffers = buffers
            self._views = [grid_view(buffers[p.rank], "i1", p.positions) for p in self._parts]
        np.multiply(latent, self._inverse, out=self._steps[:, 0])
        np.add(self._steps, self._offsets, out=self._replicas)
        levels, (low, high) = self._levels, self._limits
        np.floor(levels, out=levels)
        np.maximum(levels, low, out=levels)
        np.minimum(levels, high, out=levels)
        for part, source, view in zip(self._parts, self._sources, self._views, strict=True):
            if view is not None:
                np.copyto(view, source, casting="unsafe")
            else:
                buffers[part.rank].view(np.int8)[part.positions] = source.astype(np.int8)


class ResultReader:
    """``gen.program.unpack_result`` and ``gen.hostints.output_to_float`` of the ranks' buffers.

    ``ranks`` are those that hold channels of the result.
    """

    def __init__(self, program: Program, qgraph: QGraph) -> None:
        tensor = program.tensors[program.output]
        assert tensor.wide
        shape = _shape(tensor)
        maps = result_map(program)
        rank_bytes = program.output_rows * ROW
        self._planes = [parts(maps[..., byte], rank_bytes) for byte in (0, 1)]
        self.ranks = {part.rank for part in self._planes[0]}
        self._values = np.empty(shape, "<i2")
        split = self._values.view(np.uint8).reshape(*shape, 2)
        self._targets = [
            [split[:, p.channels, ..., byte].reshape(p.positions.shape) for p in plane]
            for byte, plane in enumerate(self._planes)
        ]
        assert all(np.shares_memory(each, split) for plane in self._targets for each in plane)
        self._scale = np.float64(qgraph.tensors[qgraph.graph.output].scale)
        self._buffers: Sequence[Bytes] = ()
        self._views: list[tuple[Part, NDArray[Any], NDArray[Any] | None]] = []

    def values(self, buffers: Sequence[Bytes]) -> NDArray[np.int16]:
        """The result int16 [batch, channels, height, width]; overwritten by the next call."""
        if self._buffers is not buffers:
            self._buffers = buffers
            self._views = [
                (part, target, grid_view(buffers[part.rank], "u1", part.positions))
                for plane, targets in zip(self._planes, self._targets, strict=True)
                for part, target in zip(plane, targets, strict=True)
            ]
        for part, target, view in self._views:
            target[...] = buffers[part.rank][part.positions] if view is None else view
        return self._values

    def read(self, buffers: Sequence[Bytes]) -> Float32:
        """The result as new float32 [batch, channels, height, width]."""
        out: Float32 = np.empty(self._values.shape, np.float32)
        # multiplied in float64, then rounded once
        values = self.values(buffers)
        np.multiply(values, self._scale, out=out, dtype=np.float64, casting="unsafe")
        return out
