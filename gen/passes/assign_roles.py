"""Decide how every tensor is stored: wide, or as an operand of the multipliers."""

from __future__ import annotations

from dataclasses import replace

from gen.layers import Layer, LayerGraph, Role


def assign_roles(graph: LayerGraph) -> LayerGraph:
    """The graph with the final role of every tensor (see ``gen.layers.TensorInfo``).

    ``operand`` is left to tensors that only ever meet the multipliers as they are. A sum is a
    ``stream`` too: shifts align its summands, so its scale must be a power of two.
    """
    writers = {layer.dest: layer for layer in graph.layers}
    tensors = dict(graph.tensors)
    for name, info in graph.tensors.items():
        role: Role = info.role
        if name == graph.output:
            role = "output"
        elif info.role == "operand":
            transformed = any(_transforms(layer, name) for layer in graph.consumers(name))
            carried = writers[name].residual is not None
            role = "stream" if transformed or carried else "operand"
        tensors[name] = replace(info, role=role)
    return replace(graph, tensors=tensors)


def _transforms(layer: Layer, tensor: str) -> bool:
    """Whether ``layer`` normalises, activates or adds ``tensor``."""
    if layer.residual == tensor:
        return True
    return tensor in layer.sources and (layer.read.norm != "none" or layer.read.act != "none")
