"""Order of independent layers: those whose sources are written go first.

A layer that reads what the one before it has just written waits for all outstanding writes. A list
scheduler takes, among the layers whose sources exist, one that need not wait, and otherwise the
one at the head of the longest chain of work; ties keep the order of the graph. So a resnet
block's shortcut runs while the first convolution's last results are under way.
"""

from __future__ import annotations

from collections.abc import Sequence

from gen.layers import LayerGraph
from gen.program.flush import Execution, Outstanding
from gen.program.planned import Planned
from gen.program.schedule import Node, reads


def dependencies(graph: LayerGraph, nodes: Sequence[Node]) -> list[set[int]]:
    """Nodes (indices) whose results each node reads."""
    writer = {graph.layers[layer].dest: at for at, node in enumerate(nodes) for layer in node}
    return [
        {writer[name] for layer in node for name in reads(graph.layers[layer]) if name in writer}
        - {at}
        for at, node in enumerate(nodes)
    ]


def reorder(
    graph: LayerGraph, nodes: Sequence[Node], layers: Sequence[Planned], lag: int, pixels: int
) -> list[Node]:
    """The nodes in an order with fewer flushes that respects all dependencies."""
    needs = dependencies(graph, nodes)
    chain = _chains(nodes, needs, layers)
    state = Outstanding(lag, pixels)
    done: set[int] = set()
    order: list[Node] = []
    while len(order) < len(nodes):
        ready = [at for at in range(len(nodes)) if at not in done and needs[at] <= done]
        calm = [at for at in ready if not _waits(state, nodes[at], layers)]
        chosen = max(calm or ready, key=lambda at: (chain[at], -at))
        if not calm:
            state.flush()
        _run(state, nodes[chosen], layers)
        done.add(chosen)
        order.append(nodes[chosen])
    return order


def _chains(
    nodes: Sequence[Node], needs: Sequence[set[int]], layers: Sequence[Planned]
) -> list[int]:
    """Multiply steps from the beginning of each node to the end of the longest chain."""
    length = [0] * len(nodes)
    for at in reversed(range(len(nodes))):
        after = max((length[k] for k in range(at + 1, len(nodes)) if at in needs[k]), default=0)
        length[at] = after + sum(
            made.n0 * made.n1 * made.units * made.steps * sum(map(made.tiles, made.strips))
            for made in (layers[layer] for layer in nodes[at])
        )
    return length


def _waits(state: Outstanding, node: Node, layers: Sequence[Planned]) -> bool:
    made = layers[node[0]]
    return state.needs_flush(Execution(made, made.strips[0], made.shape(made.strips[0])))


def _run(state: Outstanding, node: Node, layers: Sequence[Planned]) -> None:
    """All executions of a node; the product with V waits for that with K."""
    for layer in node:
        made = layers[layer]
        if layer != node[0]:
            state.flush()
        loops = made.n0 * made.n1
        runs = [(strip, loop) for strip in made.strips for loop in range(loops)]
        # what is longer ago than any outstanding write is only counted
        for strip, _ in runs[: -state.far]:
            state.now += made.output_groups * made.tiles(strip)
        for strip, loop in runs[-state.far :]:
            state.run(Execution(made, strip, made.shape(strip), *divmod(loop, made.n1)))
