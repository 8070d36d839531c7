"""Which part of a tensor one execution of an entry writes, to compare it with the reference.

The entries are those of ``gen.program.products``, of one product each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.io import Bytes
from gen.program.layout import GROUP
from gen.program.program import Entry, Program

Values = NDArray[Any]


def _pixels(program: Program, entry: Entry) -> slice:
    """Pixels of an item that the entry's strip holds."""
    tensor = program.tensors[entry.dest]
    start = entry.mac.out_slot
    return slice(start, min(tensor.pixels, start + entry.mac.shape.octets * GROUP))


def _items(entry: Entry, i0: int) -> slice:
    first = entry.item + i0
    return slice(first, first + entry.post.items)


def _channels(program: Program, entry: Entry, i1: int) -> slice:
    """All channels, or those of one head of the result of an attention."""
    tensor = program.tensors[entry.dest]
    if not entry.post.row_sums:
        return slice(None)
    head = entry.heads.at(i1)
    return slice(head * tensor.head_channels, (head + 1) * tensor.head_channels)


def written_rows(entry: Entry, i0: int, i1: int) -> tuple[int, int]:
    """(first, number) of the rows of the store among which are all that execution (i0, i1) of an
    entry writes.
    """
    region, octets = entry.store.dest, entry.store.shape.octets
    per_row, first = 1 if region.wide else 2, region.octet.at(i0, i1)
    assert first % per_row == 0 and octets % per_row == 0
    row = region.row.at(i0, i1) + first // per_row
    return row, (region.groups - 1) * region.group_rows + octets // per_row


def stored_part(program: Program, entry: Entry, rows: Sequence[Bytes]) -> Values:
    """What an execution of an entry has written, [items, channels, pixels], int8 or int16, from its
    ``written_rows`` uint8 [number, 128] of every rank. Channels of attention logits are the tokens.
    """
    tensor, region = program.tensors[entry.dest], entry.store.dest
    octets = entry.store.shape.octets
    count = octets if region.wide else octets // 2
    kept = np.arange(region.groups)[:, None] * region.group_rows + np.arange(count)
    # [local group, rank, row, half, pixel, channel]
    halves = np.stack([each[kept] for each in rows], axis=1)
    halves = halves.reshape(region.groups * len(rows), count, 2, GROUP, GROUP)
    if region.wide:
        low, high = halves[:, :, 0].astype(np.uint16), halves[:, :, 1].astype(np.uint16)
        words: Values = (low | high << 8).view(np.int16)
    else:
        words = halves.reshape(len(halves), octets, GROUP, GROUP).view(np.int8)
    lanes = words.transpose(0, 3, 1, 2).reshape(
        -1, entry.post.items, octets // entry.post.items * 8
    )
    channels = tensor.physical_channels()
    if entry.post.row_sums:
        channels = tensor.head(entry.heads.first).lane + np.arange(tensor.head_channels)
    pixels = _pixels(program, entry)
    part: Values = lanes[channels].transpose(1, 0, 2)[:, :, : pixels.stop - pixels.start]
    return part


def stored_like(got: Values, expected: Values) -> Values:
    """What is there of a stored part: of the logits of a short prompt, those of its tokens."""
    return got[:, : expected.shape[1]]


def reference_logits(program: Program, entry: Entry, values: Values) -> Values:
    """The part of the logits [pixels, tokens] of the pair of an execution that it writes."""
    part: Values = np.swapaxes(values[_pixels(program, entry)], 0, 1)[None]
    return part


def reference_part(program: Program, entry: Entry, i0: int, i1: int, values: Values) -> Values:
    """The same part of what ``gen.reference.run`` observes of the layer: [batch, channels, height,
    width], or [batch, heads, pixels, tokens] of attention logits.
    """
    if program.tensors[entry.dest].logits:
        return reference_logits(program, entry, values[entry.item + i0, entry.heads.at(i1)])
    flat = values.reshape(*values.shape[:2], -1)
    channels, pixels = _channels(program, entry, i1), _pixels(program, entry)
    whole: Values = flat[_items(entry, i0), channels, pixels]
    return whole
