"""Tensors to and from the rows of the ranks' activation stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.layout import GROUP, ROW, Stored
from gen.program.program import Program

Bytes = NDArray[np.uint8]
Values = NDArray[Any]  # int8 or int16


def to_rows(tensor: Stored, values: NDArray[Any]) -> list[Bytes]:
    """Rows uint8 [rows, 128] of each rank, of logical values [items, channels, height, width].

    Padding channels and pixel slots are zero.

    Raises:
        ValueError: a wrong shape.
    """
    expected = (tensor.items, tensor.channels, tensor.height, tensor.width)
    if values.shape != expected:
        raise ValueError(f"{tensor.name}: shape {values.shape}, expected {expected}")
    flat = values.reshape(tensor.items, tensor.channels, tensor.pixels).astype(np.int16)
    lanes = tensor.local_groups * tensor.ranks * GROUP
    physical = np.zeros((lanes, tensor.items, tensor.pitch), dtype=np.int16)
    physical[tensor.physical_channels(), :, : tensor.pixels] = flat.transpose(1, 0, 2)
    # [group, octet, pixel, channel]
    words = physical.reshape(-1, GROUP, tensor.octets, GROUP).transpose(0, 2, 3, 1)
    planes = [words & 0xFF, words >> 8] if tensor.wide else [words & 0xFF]
    # wide: two planes of one octet; narrow: two octets
    rows = np.stack(planes, axis=2).astype(np.uint8).reshape(len(words), -1, ROW)
    return [
        np.ascontiguousarray(rows[rank :: tensor.ranks]).reshape(tensor.rows, ROW)
        for rank in range(tensor.ranks)
    ]


def from_rows(tensor: Stored, rows: Sequence[Bytes]) -> Values:
    """Logical values [copies * items, channels, pixel slots], int8 or int16, of the rows of all
    ranks. Slots are those that exist: of attention logits, a strip's.

    Raises:
        ValueError: a wrong number of ranks or rows.
    """
    if len(rows) != tensor.ranks or any(each.size != tensor.rows * ROW for each in rows):
        raise ValueError(
            f"{tensor.name}: {[each.size for each in rows]} bytes of ranks, expected "
            f"{tensor.ranks} x {tensor.rows * ROW}"
        )
    octets = (tensor.octets, 2) if tensor.wide else (tensor.octets // 2, 2)
    shape = (tensor.copies, tensor.local_groups, *octets, GROUP, GROUP)
    split = np.stack([each.reshape(shape) for each in rows], axis=2)  # [copy, local, rank, ...]
    split = split.reshape(tensor.copies, -1, *octets, GROUP, GROUP)
    if tensor.wide:
        low, high = split[:, :, :, 0].astype(np.uint16), split[:, :, :, 1].astype(np.uint16)
        words: Values = (low | high << 8).view(np.int16)
    else:
        words = split.reshape(tensor.copies, -1, tensor.octets, GROUP, GROUP).view(np.int8)
    # [copy, group, octet, pixel, channel] -> [copy, channel, item, slot]
    lanes = words.transpose(0, 1, 4, 2, 3).reshape(
        tensor.copies, -1, tensor.items, tensor.item_octets * GROUP
    )
    values: Values = lanes[:, tensor.physical_channels()].transpose(0, 2, 1, 3)
    return values.reshape(tensor.copies * tensor.items, tensor.channels, -1)


def pack_latent(program: Program, latent: NDArray[np.int8]) -> list[Bytes]:
    """The latent buffer of every rank, uint8 [input_rows, 128], of int8 [batch, channels, height,
    width]. Channels count the replicas (docs/numerics.md, "Input").
    """
    return to_rows(program.tensors[program.input], latent)


def unpack_result(program: Program, rows: Sequence[Bytes]) -> NDArray[np.int16]:
    """The result int16 [batch, channels, height, width] of every rank's [output_rows, 128]."""
    return extract(program, program.output, rows).astype(np.int16)


def extract(program: Program, tensor: str, rows: Sequence[Bytes]) -> Values:
    """Values [items, channels, height, width] of a stored tensor, from its own rows of all ranks.

    Attention logits (tokens as channels): [items * heads, tokens, pixel slots of a strip].
    """
    place = program.tensors[tensor]
    values = from_rows(place, rows)
    if place.logits:
        return values
    return values[:, :, : place.pixels].reshape(
        place.items, place.channels, place.height, place.width
    )
