"""Multiply-accumulates of a layer graph in one denoising step, padding not counted."""

from __future__ import annotations

import numpy as np

from gen.layers import Layer, LayerGraph


def attention_macs(graph: LayerGraph, layer: Layer) -> int:
    """Of an attention product for the graph's whole batch: tokens x channels for every query pixel,
    whichever of the two is the output.
    """
    source, dest = graph.tensors[layer.sources[0]], graph.tensors[layer.dest]
    return graph.batch * dest.pixels * source.channels * dest.channels


def layer_macs(graph: LayerGraph, layer: Layer) -> int:
    """Of one layer for the graph's whole batch."""
    if layer.weight.kind != "static":
        return attention_macs(graph, layer)
    pixels = graph.tensors[layer.dest].pixels
    return int(np.prod(graph.arrays[layer.weight.key].shape)) * pixels * graph.batch


def macs_per_step(graph: LayerGraph) -> int:
    """Of one run of the graph, attention products included."""
    return sum(layer_macs(graph, layer) for layer in graph.layers)
