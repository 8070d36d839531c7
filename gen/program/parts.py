"""Which part of a tensor one execution of an entry writes, to compare it with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.program.io import Bytes, from_rows
from gen.program.layout import GROUP
from gen.program.program import Program

Values = NDArray[Any]


def _pixels(program: Program, index: int) -> slice:
    """Pixels of an item that the entry's strip holds."""
    entry = program.entries[index]
    tensor = program.tensors[entry.dest]
    start = entry.mac.out_slot
    return slice(start, min(tensor.pixels, start + entry.mac.shape.octets * GROUP))


def _items(program: Program, index: int, i0: int) -> slice:
    entry = program.entries[index]
    return slice(i0, i0 + 1) if program.segment_of(index).n0 > 1 else slice(0, entry.post.items)


def _channels(program: Program, index: int, i1: int) -> slice:
    """All channels, or those of head ``i1`` of the result of an attention."""
    tensor = program.tensors[program.entries[index].dest]
    if program.segment_of(index).n1 == 1:
        return slice(None)
    return slice(i1 * tensor.head_channels, (i1 + 1) * tensor.head_channels)


def stored_part(program: Program, index: int, i0: int, i1: int, rows: Sequence[Bytes]) -> Values:
    """What execution (i0, i1) of entry ``index`` has written, [items, channels, pixels], from all
    rows of its destination on all ranks. Channels of attention logits are the tokens.
    """
    tensor = program.tensors[program.entries[index].dest]
    values, pixels = from_rows(tensor, rows), _pixels(program, index)
    if tensor.logits:
        copy = i0 * program.segment_of(index).n1 + i1 if tensor.copies > 1 else 0
        return values[copy : copy + 1, :, : pixels.stop - pixels.start]
    return values[_items(program, index, i0), _channels(program, index, i1), pixels]


def stored_like(got: Values, expected: Values) -> Values:
    """What is there of a stored part: of the logits of a short prompt, those of its tokens."""
    return got[:, : expected.shape[1]]


def reference_part(program: Program, index: int, i0: int, i1: int, values: Values) -> Values:
    """The same part of what ``gen.reference.run`` observes of the layer: [batch, channels, height,
    width], or [batch, heads, pixels, tokens] of attention logits.
    """
    tensor = program.tensors[program.entries[index].dest]
    pixels = _pixels(program, index)
    if tensor.logits:
        part: Values = np.swapaxes(values[i0, i1, pixels], 0, 1)[None]
        return part
    flat = values.reshape(*values.shape[:2], -1)
    whole: Values = flat[_items(program, index, i0), _channels(program, index, i1), pixels]
    return whole
