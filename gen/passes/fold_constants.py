"""Compute nodes that depend on no input, such as the frequencies of the time embedding."""

from __future__ import annotations

import torch

from gen.graph import Graph, Node
from gen.ops import OPS
from gen.passes.rewrite import substituted

# a computed constant may be this many elements; larger ones stay as they are
LIMIT = 1 << 20


def apply(graph: Graph) -> tuple[Graph, bool]:
    """The graph with constants as parameters ``constant.NAME``, and whether there were any."""
    known: dict[str, torch.Tensor] = {}
    folded: dict[str, Node] = {}
    parameters = dict(graph.parameters)
    with torch.no_grad():
        for node in graph.nodes:
            if node.op == "parameter":
                known[node.name] = graph.parameters[node.attrs["key"]]
                continue
            if node.op in ("input", "host") or node.type.size > LIMIT:
                continue
            if any(name not in known or known[name].is_meta for name in node.inputs):
                continue
            value = OPS[node.op].evaluate(node.attrs, [known[name] for name in node.inputs])
            known[node.name] = value
            key = f"constant.{node.name}"
            parameters[key] = value.clone()
            attrs = {"shape": list(node.shape), "dtype": node.dtype, "key": key}
            folded[node.name] = Node(
                node.name, "parameter", (), attrs, node.shape, node.dtype, node.path
            )
    if not folded:
        return graph, False
    return substituted(Graph(graph.nodes, graph.outputs, parameters), folded), True
