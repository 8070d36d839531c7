"""Evaluate an integer layer graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gen.qlayers import Affine, QGraph, QLayer
from gen.reference.attention import attend, logit_tiles, mix, right_hand
from gen.reference.operand import operand
from gen.reference.product import static_product
from gen.reference.write import Stored, store

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Observer = Callable[[str, Stored], None]


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
    ``prompt_q`` host tensor name -> int8 [batch, tokens, heads * head_dim], of as many tokens as
    the prompt has;
    ``step_affine`` layer name -> gamma and beta of every layer with a host affine;
    ``observe`` gets every layer's name and stored result: [batch, channels, height, width], or
    [batch, heads, query pixels, key tokens] for attention logits. Without an observer, or with
    ``logits`` False, logits are neither shown nor ever there as a whole.
    """
    graph = qgraph.graph
    state = _State({graph.input: latent_q})
    last_use = {t: i for i, q in enumerate(qgraph.layers) for t in _reads(q)}
    for index, qlayer in enumerate(qgraph.layers):
        layer = qlayer.layer
        second = None if observe is not None and logits else _second_product(qgraph, state, qlayer)
        if second is not None:
            state.attended[second.layer.dest] = attend(
                qgraph, qlayer, second, state.tensors, prompt_q
            )
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
    return store(qgraph, qlayer, acc + bias[..., :, None], residual).reshape(image)


@dataclass
class _State:
    """What a run holds: stored tensors, and attention results ahead of their turn."""

    tensors: dict[str, Stored]
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


def _reads(qlayer: QLayer) -> list[str]:
    """Tensors on the card that a layer reads, each once."""
    layer = qlayer.layer
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return list(dict.fromkeys(names))
