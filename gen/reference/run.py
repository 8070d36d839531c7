"""Evaluate an integer layer graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import QGraph, QLayer, QRead
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


def run(
    qgraph: QGraph,
    latent_q: Int8,
    step_bias: Mapping[str, NDArray[np.int32]],
    prompt_q: Mapping[str, Int8],
    observe: Observer | None = None,
) -> Int16:
    """The output tensor, int16 [batch, channels, height, width].

    ``latent_q`` int8 [batch, replicas * channels, height, width] (``gen.hostints``);
    ``step_bias`` layer name -> int32 [batch, rows] for every layer with a host bias;
    ``prompt_q`` host tensor name -> int8 [batch, tokens, heads * head_dim];
    ``observe`` gets every layer's name and stored result: [batch, channels, height, width], or
    [batch, heads, query pixels, key tokens] for attention logits.
    """
    graph = qgraph.graph
    tensors: dict[str, Stored] = {graph.input: latent_q}
    last_use = {t: i for i, q in enumerate(qgraph.layers) for t in _reads(q)}
    for index, qlayer in enumerate(qgraph.layers):
        bias = step_bias[qlayer.layer.name] if qlayer.layer.host_bias else None
        stored = run_layer(qgraph, qlayer, tensors, bias, prompt_q)
        tensors[qlayer.layer.dest] = stored
        if observe is not None:
            observe(qlayer.layer.name, stored)
        for name in _reads(qlayer):
            if last_use[name] == index and name != graph.output:
                tensors.pop(name, None)
    return tensors[graph.output].astype(np.int16)


def run_layer(
    qgraph: QGraph,
    qlayer: QLayer,
    tensors: Mapping[str, Stored],
    step_bias: NDArray[np.int32] | None = None,
    prompt_q: Mapping[str, Int8] | None = None,
) -> Stored:
    """What ``qlayer`` stores, given the stored ``tensors`` that it reads (layouts as in run)."""
    layer, read = qlayer.layer, qlayer.read
    sources = [tensors[s].astype(np.int64) for s in layer.sources]
    x = operand(qlayer, sources)
    info = qgraph.graph.tensors[layer.dest]
    batch = sources[0].shape[0]
    bias = (qlayer.bias if step_bias is None else step_bias).astype(np.int64)
    if layer.weight.kind == "static":
        assert qlayer.weight is not None
        acc = static_product(x, qlayer.weight, layer.window, read.pad)
    else:
        if layer.weight.kind == "host":
            assert prompt_q is not None
            right = prompt_q[layer.weight.key].transpose(0, 2, 1)  # [batch, channels, tokens]
        else:
            held = tensors[layer.weight.key].astype(np.int8)
            right = held.reshape(batch, held.shape[1], -1)
        right = right.reshape(batch, layer.heads, -1, right.shape[-1])
        if not layer.weight.transposed:  # K: [batch, heads, tokens, head_dim]
            right = right.transpose(0, 1, 3, 2)
        left = (
            x.transpose(0, 1, 3, 2)  # softmax: [batch, heads, tokens, pixels]
            if layer.read.norm == "softmax"
            else x.reshape(batch, layer.heads, right.shape[-1], -1)
        )
        acc = attention_product(left, right)
    a = acc + bias[..., :, None]
    assert int(a.min()) >= -(1 << 31) and int(a.max()) < 1 << 31, layer.name
    if layer.read.norm == "softmax":
        a = divide_by_row_sum(a, x.astype(np.int64).sum(axis=-1)[:, :, None, :])
    mult, shift = qlayer.mult.astype(np.int64), qlayer.shift.astype(np.int64)
    if layer.gate == "geglu":
        assert qlayer.gate_table is not None
        y = gated(a, mult, shift, qlayer.gate_table, qlayer.gate_shift)
    else:
        residual = None
        if layer.residual is not None:
            residual = tensors[layer.residual].astype(np.int64).reshape(a.shape)
        bits = qgraph.tensors[layer.dest].bits
        y = requantise(a, mult, shift, bits, residual, qlayer.residual_shift)
    dtype = np.int8 if qgraph.tensors[layer.dest].bits == 8 else np.int16
    if info.role == "scores":
        return np.ascontiguousarray(y.transpose(0, 1, 3, 2).astype(dtype))
    return y.reshape(batch, info.channels, info.height, info.width).astype(dtype)


def operand(qlayer: QLayer, sources: list[Int64]) -> Int8:
    """Operand x [batch, channels, h, w]; after a softmax [batch, heads, pixels, tokens]."""
    read, norm = qlayer.read, qlayer.layer.read
    if norm.norm == "softmax":
        return requantise_operand(below_maximum(sources[0]), read, axis=3)
    if norm.norm == "group":
        z = group_normalise(sources, read.align, norm.groups, read.eps)
    elif norm.norm == "layer":
        z = layer_normalise(np.concatenate(sources, axis=1), read.eps)
    else:
        z = np.concatenate(sources, axis=1)
    return requantise_operand(z, read, axis=1)


def requantise_operand(z: Int64, read: QRead, axis: int) -> Int8:
    """Operand x = table or clamp of z * gamma + beta; ``axis`` holds the channels or tokens."""
    shape = [1] * z.ndim
    shape[axis] = -1
    gamma = read.gamma.astype(np.int64).reshape(shape)
    beta = read.beta.astype(np.int64).reshape(shape)
    t = rshr(z * gamma + beta, read.shift)
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
