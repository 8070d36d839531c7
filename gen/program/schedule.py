"""Order of execution: nodes of the layer graph, entries and segments of the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gen.errors import UserError
from gen.layers import Layer, LayerGraph
from gen.program.layout import HeadLoop
from gen.program.planned import Planned
from gen.program.structs import Segment

# layers that run together: one, or both products of an attention
Node = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What an entry does: strip ``strip`` of layer ``layer`` (indices) for ``heads``, at time
    ``time``.

    All entries of a repeated segment share one time: what one iteration reads last may be read
    again by the next.
    """

    layer: int
    strip: int
    time: int
    heads: HeadLoop


@dataclass(frozen=True)
class Schedule:
    """Segments over entries, and the work of every entry."""

    segments: tuple[Segment, ...]
    work: tuple[Work, ...]

    def end(self) -> int:
        """The time after the last entry."""
        return self.work[-1].time + 1

    def times(self, layer: int) -> tuple[int, int]:
        """First and last time of a layer."""
        found = [each.time for each in self.work if each.layer == layer]
        return min(found), max(found)


def nodes(graph: LayerGraph) -> list[Node]:
    """The layers in graph order, products of attention in pairs.

    Raises:
        UserError: a product of attention without its partner.
    """
    found: list[Node] = []
    index = 0
    while index < len(graph.layers):
        layer = graph.layers[index]
        if not layer.heads:
            found.append((index,))
            index += 1
            continue
        partner = graph.layers[index + 1] if index + 1 < len(graph.layers) else None
        if partner is None or partner.sources != (layer.dest,) or partner.heads != layer.heads:
            raise UserError(
                f"layer {layer.name}: the product with V must follow the product with K; "
                "this order of layers is not supported"
            )
        found.append((index, index + 1))
        index += 2
    return found


def head_loops(made: Sequence[Planned]) -> list[list[HeadLoop]]:
    """The heads of both products of an attention, as loops that run together.

    An entry serves heads that begin at the same rank: every ``period``-th one. Heads that are left
    over have entries of their own.
    """
    heads = made[0].layer.heads
    tensors = [made[0].sources[0], made[1].dest, *(each.weight for each in made if each.weight)]
    period = min(heads, max(each.head_period for each in tensors))
    whole, rest = divmod(heads, period)
    loops = [[HeadLoop(first, period, whole) for first in range(period)]]
    if rest:
        loops.append([HeadLoop(whole * period + first, period, 1) for first in range(rest)])
    return loops


def schedule(order: Sequence[Node], layers: Sequence[Planned]) -> Schedule:
    """Entries and segments of nodes in execution order.

    What runs once shares a segment with its neighbours. Strips of a layer that runs once per item
    are a segment of their own. Attention: strip by strip, the product with K over all items and
    heads and then the product with V, or a segment of both if the logits of one pair exist at a
    time; with an entry for every rank at which a head begins.
    """
    segments: list[Segment] = []
    work: list[Work] = []
    now = 0

    def segment(entries: Sequence[tuple[int, int, HeadLoop]], n0: int, n1: int) -> None:
        nonlocal now
        first = len(work)
        once = n0 * n1 == 1
        for layer, strip, heads in entries:
            work.append(Work(layer, strip, now, heads))
            now += once
        now += not once
        last = segments[-1] if segments else None
        if once and last and last.n0 * last.n1 == 1:
            segments[-1] = Segment(last.first, last.count + len(entries))
        else:
            segments.append(Segment(first, len(entries), n0, n1))

    for node in order:
        made = layers[node[0]]
        parts = range(len(made.strips))
        if len(node) == 1:
            segment([(node[0], part, made.heads) for part in parts], made.n0, made.n1)
            continue
        loops = head_loops([layers[layer] for layer in node])
        together = [node] if made.dest.copies == 1 else [(layer,) for layer in node]
        for part in parts:
            for products in together:
                for heads in loops:
                    entries = [(layer, part, each) for each in heads for layer in products]
                    segment(entries, made.n0, heads[0].count)
    return Schedule(tuple(segments), tuple(work))


def reads(layer: Layer) -> tuple[str, ...]:
    """Stored tensors that a layer reads, each once."""
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return tuple(dict.fromkeys(names))
