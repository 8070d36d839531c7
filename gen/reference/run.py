"""Evaluate an integer layer graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import Affine, QGraph, QLayer, QRead
from gen.reference.normalise import group_normalise, layer_normalise
from gen.reference.product import attention_product, static_product
from gen.reference.rounding import clamp, rshr
from gen.reference.softmax import below_maximum, divide_by_row_sum
from gen.reference.write import gated, requantise

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]
Stored = NDArray[np.int8] | NDArray[np.int16]
Observer = Callable[[str, Stored], None]

TILE_VALUES = 1 << 22  # logits that are computed at a time


def run(
    qgraph: QGraph,
    latent_q: Int8,
    step_bias: Mapping[str, NDArray[np.int32]],
    prompt_q: Mapping[str, Int8],
    observe: Observer | None = None,
    step_affine: Mapping[str, Affine] | None = None,
    logits: bool = True,
) -> Int16:
    """The output tensor, int16 [batch, channels, height, width].

    ``latent_q`` int8 [batch, replicas * channels, height, width] (``gen.hostints``);
    ``step_bias`` layer name -> int32 [batch, rows] for every layer with a host bias;
    ``prompt_q`` host tensor name -> int8 [batch, tokens, heads * head_dim];
    ``step_affine`` layer name -> gamma and beta of every layer with a host affine;
    ``observe`` gets every layer's name and stored result: [batch, channels, height, width], or
    [batch, heads, query pixels, key tokens] for attention logits. Without an observer, or with
    ``logits`` False, logits are neither shown nor ever there as a whole.
    """
    graph = qgraph.graph
    state = _State({graph.input: latent_q}, prompt_q)
    last_use = {t: i for i, q in enumerate(qgraph.layers) for t in _reads(q)}
    for index, qlayer in enumerate(qgraph.layers):
        layer = qlayer.layer
        second = None if observe is not None and logits else _second_product(qgraph, state, qlayer)
        if second is not None:
            state.attended[second.layer.dest] = attend(qgraph, qlayer, second, state)
        else:
            if layer.dest in state.attended:
                stored = state.attended.pop(layer.dest)
            else:
                bias = step_bias[layer.name] if layer.host_bias else None
                affine = None
                if layer.read.host_affine is not None:
                    assert step_affine is not None, f"{layer.name} needs gamma and beta"
                    affine = step_affine[layer.name]
                stored = run_layer(qgraph, qlayer, state.tensors, bias, prompt_q, affine)
            state.tensors[layer.dest] = stored
            if observe is not None:
                observe(layer.name, stored)
        for name in _reads(qlayer):
            if last_use[name] == index and name != graph.output:
                state.tensors.pop(name, None)
    return state.tensors[graph.output].astype(np.int16)


def run_layer(
    qgraph: QGraph,
    qlayer: QLayer,
    tensors: Mapping[str, Stored],
    step_bias: NDArray[np.int32] | None = None,
    prompt_q: Mapping[str, Int8] | None = None,
    affine: Affine | None = None,
) -> Stored:
    """What ``qlayer`` stores, given the stored ``tensors`` that it reads (layouts as in run)."""
    layer = qlayer.layer
    info = qgraph.graph.tensors[layer.dest]
    held = [tensors[s] for s in layer.sources]
    batch = held[0].shape[0]
    image = (batch, info.channels, info.height, info.width)
    if layer.weight.kind != "static":
        right = right_hand(qlayer, tensors, prompt_q or {})
        if layer.read.norm == "softmax":
            return mix(qgraph, qlayer, held[0], right).reshape(image)
        queries = held[0].reshape(batch, held[0].shape[1], -1)
        return np.concatenate(list(logit_tiles(qgraph, qlayer, queries, right)), axis=2)
    assert qlayer.weight is not None
    x = operand(qlayer, [s.astype(np.int64) for s in held], affine)
    acc = static_product(x, qlayer.weight, layer.window, qlayer.read.pad)
    bias = (qlayer.bias if step_bias is None else step_bias).astype(np.int64)
    residual = tensors[layer.residual] if layer.residual is not None else None
    return write(qgraph, qlayer, acc + bias[..., :, None], residual).reshape(image)


@dataclass
class _State:
    """What a run holds: stored tensors, prompt tensors, attention results ahead of their turn."""

    tensors: dict[str, Stored]
    prompt: Mapping[str, Int8]
    attended: dict[str, Stored] = field(default_factory=dict)


def _second_product(qgraph: QGraph, state: _State, qlayer: QLayer) -> QLayer | None:
    """The layer that alone reads the logits of ``qlayer``, if its values are known by now."""
    dest = qlayer.layer.dest
    if qgraph.graph.tensors[dest].role != "scores":
        return None
    readers = [q for q in qgraph.layers if dest in q.layer.sources]
    if len(readers) != 1:
        return None
    weight = readers[0].layer.weight
    return readers[0] if weight.kind == "host" or weight.key in state.tensors else None


def attend(qgraph: QGraph, first: QLayer, second: QLayer, state: _State) -> Stored:
    """What ``second`` stores, from the queries of ``first``: some rows of logits at a time."""
    keys = right_hand(first, state.tensors, state.prompt)
    values = right_hand(second, state.tensors, state.prompt)
    queries = state.tensors[first.layer.sources[0]]
    flat = queries.reshape(*queries.shape[:2], -1)
    tiles = logit_tiles(qgraph, first, flat, keys)
    info = qgraph.graph.tensors[second.layer.dest]
    result = np.concatenate([mix(qgraph, second, tile, values) for tile in tiles], axis=3)
    return result.reshape(-1, info.channels, info.height, info.width)


def right_hand(
    qlayer: QLayer, tensors: Mapping[str, Stored], prompt_q: Mapping[str, Int8]
) -> Int8:
    """Keys or values int8 [batch, heads, head_dim, tokens]."""
    layer = qlayer.layer
    if layer.weight.kind == "host":
        right = prompt_q[layer.weight.key].transpose(0, 2, 1)  # [batch, channels, tokens]
    else:
        held = tensors[layer.weight.key].astype(np.int8)
        right = held.reshape(held.shape[0], held.shape[1], -1)
    return right.reshape(right.shape[0], layer.heads, -1, right.shape[-1])


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
    return np.concatenate(list(logit_tiles(qgraph, one, flat, keys)), axis=2)[0, 0]


def _of_head(qlayer: QLayer, head: int) -> QRead:
    """The read side of one head's queries."""
    dim = len(qlayer.read.gamma) // qlayer.layer.heads
    own = slice(head * dim, (head + 1) * dim)
    return replace(qlayer.read, gamma=qlayer.read.gamma[own], beta=qlayer.read.beta[own])


def logit_tiles(qgraph: QGraph, qlayer: QLayer, queries: Stored, keys: Int8) -> Iterator[Stored]:
    """Logits [batch, heads, some pixels, tokens] of ``queries`` [batch, channels, pixels], in order.

    ``keys`` are [batch, heads, head_dim, tokens].
    """
    batch, heads, dim, tokens = keys.shape
    weight = np.ascontiguousarray(keys.transpose(0, 1, 3, 2))
    rows = max(1, TILE_VALUES // (batch * heads * tokens))
    bias = qlayer.bias.astype(np.int64)[:, None]
    for first in range(0, queries.shape[2], rows):
        part = queries[:, :, None, first : first + rows].astype(np.int64)
        x = operand(qlayer, [part]).reshape(batch, heads, dim, -1)
        y = write(qgraph, qlayer, attention_product(x, weight) + bias, None)
        yield np.ascontiguousarray(y.transpose(0, 1, 3, 2))


def mix(qgraph: QGraph, qlayer: QLayer, logits: Stored, values: Int8) -> Stored:
    """Attention results [batch, heads, head_dim, pixels] of logits [batch, heads, pixels, tokens].

    ``values`` are [batch, heads, head_dim, tokens].
    """
    x = operand(qlayer, [logits.astype(np.int64)])
    acc = attention_product(x.transpose(0, 1, 3, 2), values)
    a = acc + qlayer.bias.astype(np.int64)[:, None]
    a = divide_by_row_sum(a, x.sum(axis=-1, dtype=np.int64)[:, :, None, :])
    return write(qgraph, qlayer, a, None)


def write(qgraph: QGraph, qlayer: QLayer, a: Int64, residual: Stored | None) -> Stored:
    """Stored integers, shaped as ``a`` [..., rows, pixels] (half the rows with a gate)."""
    layer = qlayer.layer
    assert int(a.min()) >= -(1 << 31) and int(a.max()) < 1 << 31, layer.name
    mult, shift = qlayer.mult.astype(np.int64), qlayer.shift.astype(np.int64)
    bits = qgraph.tensors[layer.dest].bits
    if layer.gate == "geglu":
        assert qlayer.gate_table is not None
        y = gated(a, mult, shift, qlayer.gate_table, qlayer.gate_shift)
    else:
        added = None if residual is None else residual.astype(np.int64).reshape(a.shape)
        y = requantise(a, mult, shift, bits, added, qlayer.residual_shift)
    stored: Stored = y.astype(np.int8 if bits == 8 else np.int16)
    return stored


def operand(qlayer: QLayer, sources: list[Int64], affine: Affine | None = None) -> Int8:
    """Operand x [batch, channels, h, w]; after a softmax [batch, heads, pixels, tokens]."""
    read, norm = qlayer.read, qlayer.layer.read
    if norm.norm == "softmax":
        return requantise_operand(below_maximum(sources[0]), read, (1, 1, 1, -1))
    if norm.norm == "group":
        z = group_normalise(sources, read.align, norm.groups, read.eps)
    elif norm.norm == "layer":
        z = layer_normalise(np.concatenate(sources, axis=1), read.eps)
    else:
        z = np.concatenate(sources, axis=1)
    if affine is None:
        return requantise_operand(z, read, (1, -1, 1, 1))
    return requantise_operand(z, read, (len(z), -1, 1, 1), affine)


def requantise_operand(
    z: Int64, read: QRead, shape: tuple[int, ...], affine: Affine | None = None
) -> Int8:
    """Operand x = table or clamp of z * gamma + beta; ``shape`` says where -1 these belong."""
    gamma, beta = (read.gamma, read.beta) if affine is None else (affine.gamma, affine.beta)
    scaled = z * gamma.astype(np.int64).reshape(shape) + beta.astype(np.int64).reshape(shape)
    t = rshr(scaled, read.shift)
    if read.table is None:
        return clamp(t, 8).astype(np.int8)
    return read.table[clamp(t, 11) + 1024]


def _reads(qlayer: QLayer) -> list[str]:
    """Tensors on the card that a layer reads, each once."""
    layer = qlayer.layer
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return list(dict.fromkeys(names))
