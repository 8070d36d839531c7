"""Recognise value * gelu(gate) of the two halves of one tensor as one op, ``geglu``."""

from __future__ import annotations

from gen.graph import Graph, Node
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
        if value.op != "slice" or gate.op != "slice" or value.inputs != gate.inputs:
            continue
        whole = nodes[value.inputs[0]]
        value_half, gate_half = _half(value, whole), _half(gate, whole)
        if {value_half, gate_half} != {0, 1}:
            continue
        attrs = {"value_first": value_half == 0}
        changed[node.name] = Node(
            node.name, "geglu", (whole.name,), attrs, node.shape, node.dtype, node.path
        )
    return (substituted(graph, changed), True) if changed else (graph, False)


def _half(part: Node, whole: Node) -> int:
    """0 or 1 for the halves of the last dimension, -1 for anything else."""
    size, last = whole.shape[-1], len(whole.shape) - 1
    attrs = part.attrs
    if attrs["dim"] != last or attrs["step"] != 1 or size % 2:
        return -1
    span = (attrs["start"], attrs["end"])
    return {(0, size // 2): 0, (size // 2, size): 1}.get(span, -1)
