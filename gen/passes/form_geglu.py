"""Recognise value * gelu(gate) of the two halves of one tensor as one op, ``geglu``."""

from __future__ import annotations

from gen.graph import Graph, Node
from gen.passes.halves import half_of
from gen.passes.rewrite import substituted


def apply(graph: Graph) -> tuple[Graph, bool]:
    """The graph with every GEGLU as one node, and whether there were any."""
    nodes = graph.by_name()
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "mul" or len(node.inputs) != 2:
            continue
        a, b = (nodes[name] for name in node.inputs)
        value, act = (a, b) if b.op == "gelu" else (b, a)
        if act.op != "gelu" or act.attrs["approximate"] != "none":
            continue
        gate = nodes[act.inputs[0]]
        if value.op != "slice" or value.inputs != gate.inputs:
            continue
        whole = nodes[value.inputs[0]]
        last = len(whole.shape) - 1
        value_half, gate_half = half_of(value, whole, last), half_of(gate, whole, last)
        if {value_half, gate_half} != {0, 1}:
            continue
        attrs = {"value_first": value_half == 0}
        changed[node.name] = Node(
            node.name, "geglu", (whole.name,), attrs, node.shape, node.dtype, node.path
        )
    return (substituted(graph, changed), True) if changed else (graph, False)
