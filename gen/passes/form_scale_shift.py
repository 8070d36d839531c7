"""Recognise norm * (1 + scale) + shift of the two halves of one tensor as ``scale_shift``."""

from __future__ import annotations

from gen.graph import Graph, Node
from gen.ops import OPS
from gen.passes.halves import half_of
from gen.passes.rewrite import substituted


def apply(graph: Graph) -> tuple[Graph, bool]:
    """The graph with every scale and shift as one node, and whether there were any.

    Factors are the halves, along dimension 1, of a tensor [batch, 2 * channels] that was viewed as
    [batch, 2 * channels, 1, 1].
    """
    nodes = graph.by_name()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "add" or len(node.inputs) != 2:
            continue
        for product, shift in _orders(node, nodes):
            found = _scaled(product, shift, nodes)
            if found is not None:
                changed[node.name] = Node(
                    node.name, "scale_shift", found, {}, node.shape, node.dtype, node.path
                )
    return (substituted(graph, changed), True) if changed else (graph, False)


def _orders(node: Node, nodes: dict[str, Node]) -> list[tuple[Node, Node]]:
    a, b = (nodes[name] for name in node.inputs)
    return [(a, b), (b, a)]


def _scaled(product: Node, shift: Node, nodes: dict[str, Node]) -> tuple[str, str] | None:
    """Names of what is scaled and of the factors' tensor."""
    if product.op != "mul" or len(product.inputs) != 2 or shift.op != "slice":
        return None
    for x, plus_one in _orders(product, nodes):
        if OPS[x.op].fusion != "norm" or plus_one.op != "add" or len(plus_one.inputs) != 1:
            continue
        scale = nodes[plus_one.inputs[0]]
        if plus_one.attrs["other"] != 1 or scale.op != "slice" or scale.inputs != shift.inputs:
            continue
        viewed = nodes[shift.inputs[0]]
        if (half_of(scale, viewed, 1), half_of(shift, viewed, 1)) != (0, 1):
            continue
        factors = viewed
        while factors.op == "reshape":
            factors = nodes[factors.inputs[0]]
        batch, channels = x.shape[:2]
        flat, spread = (batch, 2 * channels), (batch, 2 * channels, 1, 1)
        if (factors.shape, viewed.shape) == (flat, spread):
            return x.name, factors.name
    return None
