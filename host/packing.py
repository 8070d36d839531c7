"""Latent and result against their bytes in DDR, in few passes over the data.

Where a value lies is defined by ``gen.program`` alone: maps from value to byte come from packing
and unpacking numbered values with it, once. Where a map is regular, as it is for few channels, it
becomes a strided view of the buffer; otherwise values are gathered and scattered by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program import Program, pack_latent, unpack_result
from gen.qlayers import QGraph

Bytes = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

_DIGIT = 127  # positive int8 values, 0 being padding


def latent_map(program: Program) -> Indices:
    """Position in the latent buffer of every int8 value, in the order of
    [batch, channels * replicas, height, width].
    """
    tensor = program.tensors[program.input]
    shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
    numbers = np.arange(np.prod(shape))
    found, rest, place = None, numbers, 1
    positions: Indices = np.zeros(0, np.intp)
    while place <= numbers.size:
        digits = (rest % _DIGIT + 1).astype(np.int8).reshape(shape)
        packed = pack_latent(program, digits).reshape(-1).astype(np.int64)
        if found is None:
            positions = np.flatnonzero(packed)
            found = np.zeros(positions.size, np.int64)
        found += (packed[positions] - 1) * place
        rest, place = rest // _DIGIT, place * _DIGIT
    assert found is not None and found.size == numbers.size
    order: Indices = np.empty_like(positions)
    order[found] = positions
    return order


def result_map(program: Program) -> Indices:
    """Positions in the result buffer of the low and the high byte of every value: [values, 2], in
    the order of [batch, channels, height, width].
    """
    size = program.output_rows * 64
    numbers = np.arange(size, dtype=np.int64)
    low = high = np.int64(0)
    for shift in range(0, max(1, int(size - 1).bit_length()), 8):
        rows = (numbers >> shift & 0xFF).astype(np.uint8).reshape(-1, 64)
        values = unpack_result(program, rows).view(np.uint16).astype(np.int64).reshape(-1)
        low = low + ((values & 0xFF) << shift)
        high = high + ((values >> 8) << shift)
    return np.stack([low, high], axis=-1).astype(np.intp)


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


class LatentPacker:
    """``gen.hostints.quantise_latent`` and ``gen.program.pack_latent`` into one buffer."""

    def __init__(self, program: Program, qgraph: QGraph) -> None:
        tensor = program.tensors[program.input]
        replicas = qgraph.input_replicas
        self._inverse = np.float32(1.0 / qgraph.tensors[qgraph.graph.input].scale)
        fractions = [(2 * j + 1) / (2 * replicas) for j in range(replicas)]
        self._offsets = np.array(fractions, np.float32).reshape(1, -1, 1, 1, 1)
        self._limits = np.float32(-128), np.float32(127)
        shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
        self._map = latent_map(program).reshape(shape)
        self._levels = np.empty(shape, np.float32)
        pixels = shape[2:]
        self._replicas = self._levels.reshape(tensor.items, replicas, -1, *pixels)
        self._steps = np.empty((tensor.items, 1, tensor.channels // replicas, *pixels), np.float32)
        self._buffer: Bytes | None = None
        self._view: NDArray[Any] | None = None

    def write(self, buffer: Bytes, latent: Float32) -> None:
        """Write float32 [batch, channels, height, width] into the latent buffer, whose padding is
        zero and stays so.
        """
        if self._buffer is not buffer:
            self._buffer, self._view = buffer, grid_view(buffer, "i1", self._map)
        np.multiply(latent, self._inverse, out=self._steps[:, 0])
        np.add(self._steps, self._offsets, out=self._replicas)
        levels, (low, high) = self._levels, self._limits
        np.floor(levels, out=levels)
        np.maximum(levels, low, out=levels)
        np.minimum(levels, high, out=levels)
        if self._view is not None:
            np.copyto(self._view, levels, casting="unsafe")
        else:
            buffer.view(np.int8)[self._map] = levels.astype(np.int8)


class ResultReader:
    """``gen.program.unpack_result`` and ``gen.hostints.output_to_float`` of one buffer."""

    def __init__(self, program: Program, qgraph: QGraph) -> None:
        tensor = program.tensors[program.output]
        assert tensor.planes == 2  # int16
        shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
        self._map = result_map(program).reshape(*shape, 2)
        self._values = np.empty(shape, "<i2")
        self._bytes = self._values.view(np.uint8).reshape(*shape, 2)
        self._scale = np.float64(qgraph.tensors[qgraph.graph.output].scale)
        self._buffer: Bytes | None = None
        self._planes: tuple[NDArray[Any] | None, NDArray[Any] | None] = (None, None)

    def read(self, buffer: Bytes) -> Float32:
        """The result as new float32 [batch, channels, height, width]."""
        low_map, high_map = self._map[..., 0], self._map[..., 1]
        if self._buffer is not buffer:
            self._buffer = buffer
            self._planes = (
                grid_view(buffer, "u1", low_map),
                grid_view(buffer, "u1", high_map),
            )
        low, high = self._planes
        if low is None or high is None:
            low, high = buffer[low_map], buffer[high_map]
        self._bytes[..., 0] = low
        self._bytes[..., 1] = high
        out: Float32 = np.empty(self._values.shape, np.float32)
        # multiplied in float64, then rounded once
        np.multiply(self._values, self._scale, out=out, dtype=np.float64, casting="unsafe")
        return out
