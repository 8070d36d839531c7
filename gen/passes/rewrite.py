"""What passes share: replacing nodes by other values."""

from __future__ import annotations

from dataclasses import replace

from gen.graph import Graph, Node


def forward(graph: Graph, renamed: dict[str, str]) -> Graph:
    """The graph in which every reader of a key of ``renamed`` reads its value instead; nodes that
    nothing reads any more are gone.
    """

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    nodes = [
        replace(node, inputs=tuple(final(name) for name in node.inputs))
        if any(name in renamed for name in node.inputs)
        else node
        for node in graph.nodes
    ]
    return graph.pruned(nodes, tuple(final(name) for name in graph.outputs))


def substituted(graph: Graph, nodes: dict[str, Node]) -> Graph:
    """The graph with nodes of the same name put in place; unused nodes are gone."""
    return graph.pruned([nodes.get(node.name, node) for node in graph.nodes])
