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
    ``time``. ``item``: a product of attention for this batch item alone; ``beside``: the product
    with K that shares its executions.

    All entries of a repeated segment share one time: what one iteration reads last may be read
    again by the next.
    """

    layer: int
    strip: int
    time: int
    heads: HeadLoop
    item: int | None = None
    beside: Work | None = None


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


def head_period(made: Sequence[Planned]) -> int:
    """Heads of both products of an attention after which all tensors begin at the same ranks
    again.
    """
    tensors = [made[0].sources[0], made[1].dest, *(each.weight for each in made if each.weight)]
    return min(made[0].layer.heads, max(each.head_period for each in tensors))


def head_loops(made: Sequence[Planned]) -> list[list[HeadLoop]]:
    """The heads of both products of an attention, as loops that run together.

    An entry serves heads that begin at the same rank: every ``period``-th one. Heads that are left
    over have entries of their own.
    """
    heads, period = made[0].layer.heads, head_period(made)
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
    time; with an entry for every rank at which a head begins. Joined ones: ``_joined``.
    """
    segments: list[Segment] = []
    work: list[Work] = []
    now = 0

    def add(works: Sequence[Work], n0: int, n1: int) -> None:
        last = segments[-1] if segments else None
        if n0 * n1 == 1 and last and last.n0 * last.n1 == 1:
            segments[-1] = Segment(last.first, last.count + len(works))
        else:
            segments.append(Segment(len(work), len(works), n0, n1))
        work.extend(works)

    def segment(entries: Sequence[tuple[int, int, HeadLoop]], n0: int, n1: int) -> None:
        nonlocal now
        once = n0 * n1 == 1
        times = range(now, now + len(entries)) if once else [now] * len(entries)
        add(
            [
                Work(layer, strip, time, heads)
                for (layer, strip, heads), time in zip(entries, times, strict=True)
            ],
            n0,
            n1,
        )
        now += len(entries) if once else 1

    for node in order:
        made = layers[node[0]]
        parts = range(len(made.strips))
        if len(node) == 1:
            segment([(node[0], part, made.heads) for part in parts], made.n0, made.n1)
            continue
        if made.joined:
            for part in parts:
                for each in _joined(node, part, now, [layers[k] for k in node]):
                    add(each, 1, each[0].heads.count)
                now += 1
            continue
        loops = head_loops([layers[layer] for layer in node])
        together = [node] if made.dest.copies == 1 else [(layer,) for layer in node]
        for part in parts:
            for products in together:
                for heads in loops:
                    entries = [(layer, part, each) for each in heads for layer in products]
                    segment(entries, made.n0, heads[0].count)
    return Schedule(tuple(segments), tuple(work))


def _joined(node: Node, strip: int, time: int, made: Sequence[Planned]) -> list[list[Work]]:
    """The first product with K, executions of both products, the last product with V: of all
    heads, item by item; with an entry for every rank at which a head begins. Those of a list run
    together. All share a time: K is read while results are written.
    """
    keys, values = node
    heads, items, period = made[0].layer.heads, made[0].n0, head_period(made)

    def both(head: int, count: int, item: int) -> Work:
        step = period if count > 1 else 0
        following = HeadLoop(head + 1, step, count) if head + 1 < heads else HeadLoop()
        of_keys = Work(keys, strip, time, following, item + (head + 1 == heads))
        return Work(values, strip, time, HeadLoop(head, step, count), item, of_keys)

    works = [[Work(keys, strip, time, HeadLoop(), 0)]]
    whole, rest = divmod(heads - 1, period)
    for item in range(items):
        if whole:
            works.append([both(first, whole, item) for first in range(period)])
        if rest:
            works.append([both(whole * period + first, 1, item) for first in range(rest)])
        if item + 1 < items:
            works.append([both(heads - 1, 1, item)])
    return [*works, [Work(values, strip, time, HeadLoop(heads - 1), items - 1)]]


def reads(layer: Layer) -> tuple[str, ...]:
    """Stored tensors that a layer reads, each once."""
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return tuple(dict.fromkeys(names))
