"""Move zero padding into the convolution that reads it (asymmetric down-sampling)."""

from __future__ import annotations

from dataclasses import replace

from gen.graph import Graph, Node
from gen.passes.rewrite import substituted


def apply(graph: Graph) -> tuple[Graph, bool]:
    """The graph with ``pad`` of height and width folded into convolutions."""
    nodes = graph.by_name()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "conv2d":
            continue
        source = nodes[node.inputs[0]]
        if source.op != "pad" or source.attrs["value"] or len(source.attrs["pad"]) != 4:
            continue
        left, right, top, bottom = source.attrs["pad"]
        if min(left, right, top, bottom) < 0:
            continue
        own = node.attrs["pad"]
        pad = [own[0] + top, own[1] + left, own[2] + bottom, own[3] + right]
        inputs = (source.inputs[0], *node.inputs[1:])
        changed[node.name] = replace(node, inputs=inputs, attrs={**node.attrs, "pad": pad})
    return (substituted(graph, changed), True) if changed else (graph, False)
