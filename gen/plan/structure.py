"""Layers of a model without its weights: enough to lower it and to count, in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gen.errors import UserError
from gen.layers import Layer, LayerGraph
from gen.model import CLASSES, Model, prompt_tokens, read_json
from gen.passes import lower as fuse
from gen.qlayers import TABLE_SIZE, QGraph, QLayer, QRead, QTensor, layer_bits
from gen.trace import trace_unet

# bits of a stored tensor by role (gen/quantise/scales.py)
BITS = {"input": 8, "operand": 8, "stream": 16, "scores": 16, "output": 16}


def load_structure(model: Model) -> Any:
    """The U-Net with parameters that have a shape and no values.

    Raises:
        UserError: a configuration that cannot be read or is none of a U-Net.
    """
    import diffusers

    if model.kind == "architecture":
        described = read_json(model.path)
        kind, config = described["class"], described["config"]
    else:
        folder = model.path / "unet" if model.kind == "pipeline" else model.path
        config = read_json(folder / "config.json")
        kind = config.get("_class_name")
    if kind not in CLASSES:
        raise UserError(f"{model.path}: {kind} is not supported; {' or '.join(CLASSES)} is needed")
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(config).eval()


def layer_graph(
    model: Model, batch: int = 0, height: int = 0, width: int = 0, tokens: int = 0
) -> LayerGraph:
    """The float layer graph of ``model`` with arrays that have a shape and no memory.

    ``batch``, ``height``, ``width`` (latent pixels), ``tokens`` (of the longest prompt): 0 for the
    model's own.

    Raises:
        UserError: a model that cannot be read, or a module that the card cannot do.
    """
    unet = load_structure(model)
    size = unet.config.sample_size
    own_height, own_width = (size, size) if isinstance(size, int) else size
    traced = trace_unet(
        unet,
        batch=batch or model.batch,
        height=height or own_height,
        width=width or own_width,
        tokens=prompt_tokens(model, tokens),
    )
    graph, _ = fuse(traced)
    return graph


def _zeros(shape: tuple[int, ...], kind: type) -> NDArray[np.generic]:
    """Zeros that occupy one element."""
    return np.broadcast_to(kind(0), shape)


def _rows(graph: LayerGraph, layer: Layer) -> int:
    """Weight rows: both halves of a gate; tokens or channels of a head for attention."""
    dest = graph.tensors[layer.dest]
    if layer.weight.kind == "static":
        return int(graph.arrays[layer.weight.key].shape[0])
    return dest.channels // dest.heads if layer.weight.transposed else dest.channels


def skeleton(graph: LayerGraph, weight_bits: int = 8) -> QGraph:
    """An integer graph of the same structure, whose numbers are all zero.

    It lowers to the program that the model quantised to ``weight_bits`` would give, but for the
    packed weights.
    """
    layers = []
    for layer in graph.layers:
        channels = sum(graph.tensors[name].channels for name in layer.sources)
        table = layer.read.act != "none" or layer.read.norm == "softmax"
        rows = _rows(graph, layer)
        layers.append(
            QLayer(
                layer=layer,
                read=QRead(
                    gamma=_zeros((channels,), np.int32),  # type: ignore[arg-type]
                    beta=_zeros((channels,), np.int64),  # type: ignore[arg-type]
                    shift=1,
                    align=tuple(0 for _ in layer.sources),
                    eps=0,
                    table=_zeros((TABLE_SIZE,), np.int8) if table else None,  # type: ignore[arg-type]
                    pad=0,
                ),
                weight=None,
                bias=_zeros((rows,), np.int32),  # type: ignore[arg-type]
                mult=_zeros((rows,), np.int32),  # type: ignore[arg-type]
                shift=_zeros((rows,), np.int32),  # type: ignore[arg-type]
                acc_scale=_zeros((rows,), np.float64),  # type: ignore[arg-type]
                correction=_zeros((rows,), np.int64),  # type: ignore[arg-type]
                gate_table=(
                    _zeros((TABLE_SIZE,), np.int16) if layer.gate != "none" else None  # type: ignore[arg-type]
                ),
                weight_bits=layer_bits(graph, layer, weight_bits),
            )
        )
    tensors = {
        name: QTensor(BITS[info.role], 1.0, 0 if BITS[info.role] == 16 else None)
        for name, info in graph.tensors.items()
    }
    return QGraph(graph=graph, tensors=tensors, layers=layers)
