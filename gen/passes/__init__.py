"""Passes, one a file, in the order in which they run.

A pass over the graph is ``apply(graph) -> (graph, changed)``; the verifier runs after each.
"""

from __future__ import annotations

from collections.abc import Callable

from gen.graph import Graph, verify
from gen.hostgraph import HostGraph
from gen.layers import LayerGraph
from gen.passes import drop_identities, fold_constants, fold_pad, form_geglu, form_scale_shift
from gen.passes.form_layers import form_layers
from gen.passes.split import split
from gen.passes.verify_layers import verify_layers
from gen.trace import Traced

Pass = Callable[[Graph], tuple[Graph, bool]]

PASSES: tuple[Pass, ...] = (
    drop_identities.apply,
    fold_constants.apply,
    fold_pad.apply,
    form_geglu.apply,
    form_scale_shift.apply,
)


def simplify(graph: Graph) -> Graph:
    """Run all passes over the graph, each until it finds nothing more to do."""
    for apply in PASSES:
        changed = True
        while changed:
            graph, changed = apply(graph)
            verify(graph)
    return graph


def lower(traced: Traced) -> tuple[LayerGraph, HostGraph]:
    """The card's layer graph and the host's graph of a traced U-Net.

    Raises UserError that names the module path of anything that does not fit the card.
    """
    card, host = split(simplify(traced.graph))
    verify(card)
    verify(host.graph)
    layers = form_layers(card, host.tensors())
    verify_layers(layers)
    return layers, host
