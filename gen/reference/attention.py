"""Both attention products, some rows of logits at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import QGraph, QLayer, QRead
from gen.reference.operand import operand
from gen.reference.product import attention_product
from gen.reference.softmax import divide_by_row_sum
from gen.reference.write import Stored, store

Int8 = NDArray[np.int8]

TILE_VALUES = 1 << 22  # logits that are computed at a time


def attend(
    qgraph: QGraph,
    first: QLayer,
    second: QLayer,
    tensors: Mapping[str, Stored],
    prompt_q: Mapping[str, Int8],
) -> Stored:
    """What ``second`` stores, from the queries of ``first``: some rows of logits at a time."""
    keys, values = right_hand(first, tensors, prompt_q), right_hand(second, tensors, prompt_q)
    queries = tensors[first.layer.sources[0]]
    flat = queries.reshape(*queries.shape[:2], -1)
    tiles = logit_tiles(qgraph, first, flat, keys)
    info = qgraph.graph.tensors[second.layer.dest]
    result = np.concatenate([mix(qgraph, second, tile, values) for tile in tiles], axis=3)
    return result.reshape(-1, info.channels, info.height, info.width)


def right_hand(qlayer: QLayer, tensors: Mapping[str, Stored], prompt_q: Mapping[str, Int8]) -> Int8:
    """Keys or values int8 [batch, heads, head_dim, tokens]."""
    layer = qlayer.layer
    if layer.weight.kind == "host":
        right = prompt_q[layer.weight.key].transpose(0, 2, 1)  # [batch, channels, tokens]
    else:
        held = tensors[layer.weight.key].astype(np.int8)
        right = held.reshape(held.shape[0], held.shape[1], -1)
    split: Int8 = right.reshape(right.shape[0], layer.heads, -1, right.shape[-1])
    return split


def logits_of(
    qgraph: QGraph,
    qlayer: QLayer,
    tensors: Mapping[str, Stored],
    prompt_q: Mapping[str, Int8],
    item: int,
    head: int,
) -> Stored:
    """Logits int16 [pixels, tokens] of one item and head, as ``qlayer`` stores them.

    ``tensors`` holds the queries and, unless the host gives them, the keys.
    """
    keys = right_hand(qlayer, tensors, prompt_q)[item : item + 1, head : head + 1]
    queries = tensors[qlayer.layer.sources[0]][item : item + 1]
    flat = queries.reshape(qlayer.layer.heads, 1, keys.shape[2], -1)[head]
    one = replace(qlayer, layer=replace(qlayer.layer, heads=1), read=_of_head(qlayer, head))
    whole: Stored = np.concatenate(list(logit_tiles(qgraph, one, flat, keys)), axis=2)[0, 0]
    return whole


def _of_head(qlayer: QLayer, head: int) -> QRead:
    """The read side of one head's queries."""
    dim = len(qlayer.read.gamma) // qlayer.layer.heads
    own = slice(head * dim, (head + 1) * dim)
    return replace(qlayer.read, gamma=qlayer.read.gamma[own], beta=qlayer.read.beta[own])


def _of_tokens(qlayer: QLayer, tokens: int) -> QLayer:
    """A product with keys that is made for more tokens than a prompt has."""
    rows = slice(tokens)
    return replace(qlayer, bias=qlayer.bias[rows], mult=qlayer.mult[rows], shift=qlayer.shift[rows])


def logit_tiles(qgraph: QGraph, qlayer: QLayer, queries: Stored, keys: Int8) -> Iterator[Stored]:
    """Logits [batch, heads, some pixels, tokens] in order.

    ``queries`` are [batch, channels, pixels], ``keys`` [batch, heads, head_dim, tokens].
    """
    batch, heads, dim, tokens = keys.shape
    qlayer = _of_tokens(qlayer, tokens)
    weight = np.ascontiguousarray(keys.transpose(0, 1, 3, 2))
    rows = max(1, TILE_VALUES // (batch * heads * tokens))
    bias = qlayer.bias.astype(np.int64)[:, None]
    for first in range(0, queries.shape[2], rows):
        part = queries[:, :, None, first : first + rows].astype(np.int64)
        x = operand(qlayer, [part]).reshape(batch, heads, dim, -1)
        y = store(qgraph, qlayer, attention_product(x, weight) + bias, None)
        yield np.ascontiguousarray(y.transpose(0, 1, 3, 2))


def mix(qgraph: QGraph, qlayer: QLayer, logits: Stored, values: Int8) -> Stored:
    """Attention results [batch, heads, head_dim, pixels] of logits [batch, heads, pixels, tokens].

    ``values`` are [batch, heads, head_dim, tokens].
    """
    read = qlayer.read
    tokens = slice(logits.shape[-1])
    of_prompt = replace(read, gamma=read.gamma[tokens], beta=read.beta[tokens])
    x = operand(replace(qlayer, read=of_prompt), [logits.astype(np.int64)])
    acc = attention_product(x.transpose(0, 1, 3, 2), values)
    a = acc + qlayer.bias.astype(np.int64)[:, None]
    a = divide_by_row_sum(a, x.sum(axis=-1, dtype=np.int64)[:, :, None, :])
    return store(qgraph, qlayer, a, None)
