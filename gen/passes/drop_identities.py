"""Drop ops that change nothing: dropout at rest, casts to the same type, times 1, reshapes to
the same shape.
"""

from __future__ import annotations

from gen.graph import Graph, Node
from gen.passes.rewrite import forward


def apply(graph: Graph) -> tuple[Graph, bool]:
    """The graph without identities, and whether there were any."""
    nodes = graph.by_name()
    renamed = {
        node.name: node.inputs[0] for node in graph.nodes if node.inputs and _same(node, nodes)
    }
    return (forward(graph, renamed), True) if renamed else (graph, False)


def _same(node: Node, nodes: dict[str, Node]) -> bool:
    if nodes[node.inputs[0]].type != node.type:
        return False
    if node.op == "permute":
        return list(node.attrs["dims"]) == list(range(len(node.shape)))
    if node.op in ("mul", "div"):
        return len(node.inputs) == 1 and bool(node.attrs["other"] == 1)
    if node.op in ("add", "sub"):
        return len(node.inputs) == 1 and bool(node.attrs["other"] == 0)
    return node.op in ("identity", "cast", "reshape", "expand", "slice")
