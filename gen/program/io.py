"""Tensors to and from rows of the activation store."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import BLOCK, Stored
from gen.program.program import Program

Bytes = NDArray[np.uint8]
Values = NDArray[Any]  # int8 or int16


def to_rows(tensor: Stored, values: NDArray[Any]) -> Bytes:
    """Rows uint8 [rows, 64] of logical values [items, channels, height, width].

    Padding channels and pixel slots are zero.

    Raises:
        ValueError: a wrong shape.
    """
    expected = (tensor.items, tensor.channels, tensor.height, tensor.width)
    if values.shape != expected:
        raise ValueError(f"{tensor.name}: shape {values.shape}, expected {expected}")
    flat = values.reshape(tensor.items, tensor.channels, tensor.pixels).astype(np.int16)
    physical = np.zeros((tensor.items, tensor.blocks * BLOCK, tensor.pitch), dtype=np.int16)
    physical[:, tensor.physical_channels(), : tensor.pixels] = flat
    planes = [physical & 0xFF, physical >> 8][: tensor.planes]
    stacked = np.stack([plane.astype(np.uint8) for plane in planes])
    split = stacked.reshape(tensor.planes, tensor.items, tensor.blocks, BLOCK, tensor.pitch)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 4, 3)).reshape(tensor.rows, BLOCK)


def from_rows(tensor: Stored, rows: Bytes) -> Values:
    """Logical values [items, channels, height, width], int8 or int16, of a tensor's rows.

    Raises:
        ValueError: a wrong number of rows.
    """
    if rows.size != tensor.rows * BLOCK:
        raise ValueError(f"{tensor.name}: {rows.size} bytes, expected {tensor.rows * BLOCK}")
    split = rows.reshape(tensor.planes, tensor.blocks, tensor.items, tensor.pitch, BLOCK)
    planes = split.transpose(0, 2, 1, 4, 3).reshape(
        tensor.planes, tensor.items, tensor.blocks * BLOCK, tensor.pitch
    )
    planes = planes[:, :, tensor.physical_channels(), : tensor.pixels]
    shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
    if tensor.planes == 1:
        narrow: Values = planes[0].astype(np.uint8).view(np.int8).reshape(shape)
        return narrow
    low, high = planes[0].astype(np.uint16), planes[1].astype(np.uint16)
    wide: Values = (low | high << 8).view(np.int16).reshape(shape)
    return wide


def pack_latent(program: Program, latent: NDArray[np.int8]) -> Bytes:
    """The latent buffer, uint8 [input_rows, 64], of int8 [batch, channels, height, width].

    Channels count the replicas (docs/numerics.md, "Input").
    """
    return to_rows(program.tensors[program.input], latent)


def unpack_result(program: Program, rows: Bytes) -> NDArray[np.int16]:
    """The result int16 [batch, channels, height, width] of uint8 [output_rows, 64]."""
    return from_rows(program.tensors[program.output], rows).astype(np.int16)


def extract(program: Program, tensor: str, rows: Bytes) -> Values:
    """Values [items, channels, height, width] of a stored tensor, from its own rows."""
    return from_rows(program.tensors[tensor], rows)
