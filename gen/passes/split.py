"""Divide the graph: what depends on the latent is the card's, everything else the host's."""

from __future__ import annotations

from dataclasses import replace

from gen.errors import UserError
from gen.graph import Graph, Node
from gen.hostgraph import TIMESTEP, HostGraph, HostOutput
from gen.ops import OPS

LATENT = "sample"


def split(graph: Graph) -> tuple[Graph, HostGraph]:
    """The card's graph, in which host values are nodes of op ``host``, and the host's graph.

    Views of a host value are the card's: the host hands over the product (a projection of the
    time embedding or of the prompt) as it is, named by its module path.
    """
    nodes = graph.by_name()
    depends = _dependencies(graph)
    on_card = {name for name, inputs in depends.items() if LATENT in inputs}
    for name in graph.outputs:
        if name not in on_card:
            raise UserError(f"{nodes[name].where}: the output does not depend on the latent")
    crossing: dict[str, Node] = {}
    views: set[str] = set()
    for node in graph.nodes:
        if node.name not in on_card:
            continue
        for name in node.inputs:
            if name in on_card or nodes[name].op == "parameter":
                continue
            while OPS[nodes[name].op].fusion == "view" and nodes[name].op != "identity":
                views.add(name)
                name = nodes[name].inputs[0]
            crossing[name] = nodes[name]
    names = _names(list(crossing.values()))
    outputs = [
        HostOutput(
            names[node.name],
            node.name,
            node.shape,
            "step" if TIMESTEP in depends[node.name] else "prompt",
        )
        for node in crossing.values()
    ]
    host = HostGraph(
        graph.pruned(
            [n for n in graph.nodes if n.name not in on_card], tuple(o.node for o in outputs)
        ),
        outputs,
    )
    return _card(graph, on_card, views, crossing, names), host


def _dependencies(graph: Graph) -> dict[str, frozenset[str]]:
    depends: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        own = frozenset((node.name,)) if node.op == "input" else frozenset()
        depends[node.name] = own.union(*(depends[name] for name in node.inputs))
    return depends


def _names(nodes: list[Node]) -> dict[str, str]:
    """Module paths, made unique by the node name where a module gives several values."""
    paths = [node.where for node in nodes]
    return {
        node.name: node.where if paths.count(node.where) == 1 else f"{node.where}.{node.name}"
        for node in nodes
    }


def _card(
    graph: Graph,
    on_card: set[str],
    views: set[str],
    crossing: dict[str, Node],
    names: dict[str, str],
) -> Graph:
    kept: list[Node] = []
    for node in graph.nodes:
        if node.name in crossing:
            attrs = {
                "shape": list(node.shape),
                "dtype": node.dtype,
                "tensor": names[node.name],
            }
            kept.append(replace(node, op="host", inputs=(), attrs=attrs))
        elif node.name in on_card or node.name in views or node.op == "parameter":
            kept.append(node)
    return graph.pruned(kept)
