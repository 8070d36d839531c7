"""Which tensors lie in DDR for a while, where the store does not hold all that are alive.

Every use of a tensor (the layer that writes it, and those that read it) finds it whole in the
store, or takes it strip by strip: the layer is cut into strips of output slots, each of which
fetches what it reads into a staging region and puts what it has written into DDR. Between two uses
a tensor stays in the store, or is fetched again. Two uses that follow each other closely are joined
first, which is the rule of the farthest next use (Belady, "A study of replacement algorithms for a
virtual-storage computer", 1966) for tensors of different sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gen.errors import EngineTooSmall
from gen.layers import LayerGraph
from gen.program.geometry import fill_span, window_span
from gen.program.intervals import slack_rows
from gen.program.layout import GROUP, Stored, ceil_div, equal_strips
from gen.program.planned import Planned
from gen.program.schedule import Node

# image rows of the shortest strips: the first number that fits is taken. With 16 rows a 3x3 window
# reads an eighth more than it makes.
_IMAGE_ROWS = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Residence:
    """A whole tensor in the store from one place in the order of nodes to another, both included.

    Place 0 is the host's (the latent), places 1 .. N are the nodes, N + 1 is the result's.
    """

    tensor: str
    first: int
    last: int


@dataclass(frozen=True)
class Choice:
    """Residences of every tensor in their order; by layer, the roles that are staged
    (``Planned.roles``) and the most slots of its strips.
    """

    residences: tuple[Residence, ...]
    staged: dict[int, tuple[str, ...]]
    slots: dict[int, int]

    def spilled(self, uses: Mapping[str, Sequence[int]]) -> list[str]:
        """Tensors that lie in DDR between two of their uses."""
        kept = {(each.tensor, each.first, each.last) for each in self.residences}
        return [name for name, at in uses.items() if (name, at[0], at[-1]) not in kept]


class Chooser:
    """Chooses for an order of nodes. ``tensors`` holds what the layers store, logits included."""

    def __init__(
        self,
        graph: LayerGraph,
        tensors: Mapping[str, Stored],
        order: Sequence[Node],
        layers: Sequence[Planned],
    ) -> None:
        self.graph, self.tensors, self.order, self.layers = graph, tensors, order, layers
        slack = slack_rows(graph, tensors)
        self.uses: dict[str, list[int]] = {graph.input: [0]}
        for place, node in enumerate(order, start=1):
            for layer in node:
                for tensor in dict(layers[layer].roles).values():
                    at = self.uses.setdefault(tensor.name, [])
                    if place not in at:
                        at.append(place)
        self.uses[graph.output].append(len(order) + 1)
        self.size = {name: tensors[name].rows + slack.get(name, 0) for name in self.uses}

    @cached_property
    def _at(self) -> list[list[str]]:
        """Tensors used at every place."""
        found: list[list[str]] = [[] for _ in range(len(self.order) + 2)]
        for name, places in self.uses.items():
            for place in places:
                found[place].append(name)
        if self.layers[0].engine.sampler_pixels:
            # the next step's latent is made from the result
            found[-1].append(self.graph.input)
        return found

    def _single(self, place: int) -> Planned | None:
        """The layer of a place that may be cut; None: attention, or the host."""
        if not 1 <= place <= len(self.order) or len(self.order[place - 1]) > 1:
            return None
        return self.layers[self.order[place - 1][0]]

    def choose(self, rows: int) -> Choice:
        """What fits ``rows`` of the store.

        Raises:
            EngineTooSmall: naming the layer for which not even the shortest strips fit.
        """
        whole: list[set[str]] = [set() for _ in self._at]
        passing = [0] * len(whole)  # rows of tensors that stay, and are not used
        kept: set[tuple[str, int, int]] = set()

        def keep(name: str, first: int, last: int) -> None:
            kept.add((name, first, last))
            whole[first].add(name)
            whole[last].add(name)
            for place in range(first + 1, last):
                passing[place] += self.size[name]

        pairs = [
            (name, first, last) for name, at in self.uses.items() for first, last in pairwise(at)
        ]
        fixed = [p for p in pairs if p[0] == self.graph.output or p[1] == 0]
        for name, first, last in fixed:
            keep(name, first, last)
        for place, names in enumerate(self._at):
            if self._single(place) is None:
                whole[place].update(names)
        least = [self._shortest(place, whole[place], rows) for place in range(len(whole))]

        def fits(place: int, also: str) -> bool:
            here = whole[place] | {also} if also in self._at[place] else whole[place]
            extra = 0 if also in self._at[place] else self.size[also]
            return passing[place] + extra + self._need(place, here, least[place]) <= rows

        for name, first, last in sorted(
            set(pairs) - set(fixed), key=lambda p: (p[2] - p[1], -self.size[p[0]], p[1], p[0])
        ):
            if all(fits(place, name) for place in range(first, last + 1)):
                keep(name, first, last)
        staged: dict[int, tuple[str, ...]] = {}
        slots: dict[int, int] = {}
        for place, names in enumerate(self._at):
            made = self._single(place)
            if made is None or not set(names) - whole[place]:
                continue
            if passing[place] + self._need(place, set(names), 0) <= rows:
                whole[place].update(names)
                continue
            index = self.order[place - 1][0]
            held = passing[place] + sum(self.size[name] for name in whole[place])
            roles = tuple(role for role, t in made.roles if t.name not in whole[place])
            staged[index] = roles
            slots[index] = _longest(made, roles, rows - held)
        return Choice(self._residences(whole, kept), staged, slots)

    def _need(self, place: int, whole: set[str], slots: int) -> int:
        """Rows for what is used at a place, in strips of ``slots`` where it is not whole."""
        rows = sum(self.size[name] for name in whole if name in self._at[place])
        made = self._single(place)
        if made is None:
            return rows
        roles = [role for role, tensor in made.roles if tensor.name not in whole]
        return rows + (staging_rows(made, roles, slots) if roles else 0)

    def _shortest(self, place: int, whole: set[str], rows: int) -> int:
        """Slots of the shortest strips at a place."""
        made = self._single(place)
        slots = 0
        for count in _IMAGE_ROWS:
            if made is not None:
                slots = _at_most(made, count * made.geometry.width)
            if self._need(place, whole, slots) <= rows:
                return slots
        need, have = self._need(place, whole, slots), self.layers[0].engine.store_rows
        name, what = "latent and result", "what the store exchanges with the host"
        if 1 <= place <= len(self.order):
            name = f"layer {self.layers[self.order[place - 1][0]].layer.name}"
            what = "what it reads and writes"
            if made is None:
                what = "queries, keys, values, logits and result of the attention"
            else:
                what += f", in strips of {slots} pixel slots,"
        raise EngineTooSmall(
            f"{name}: {what} needs {need} store rows at once, {rows} of the engine's {have} can be "
            f"used; choose an engine with store_rows >= {need + have - rows}, a smaller image or "
            "batch 1"
        )

    def _residences(
        self, whole: Sequence[set[str]], kept: set[tuple[str, int, int]]
    ) -> tuple[Residence, ...]:
        found: list[Residence] = []
        for name, places in self.uses.items():
            first = None
            for place, following in zip(places, [*places[1:], None], strict=True):
                if name not in whole[place]:
                    continue
                first = place if first is None else first
                if following is None or (name, place, following) not in kept:
                    found.append(Residence(name, first, place))
                    first = None
        return tuple(found)


def staging_rows(made: Planned, roles: Sequence[str], slots: int) -> int:
    """Rows of the staging regions of some roles in strips of ``slots`` output slots."""
    window = made.geometry
    total = 0
    spans = []
    for start in range(0, window.pitch, slots):
        count = min(slots, window.pitch - start)
        spans.append(
            (fill_span(window, 1, *window_span(window, 1, start, count)), (start, start + count))
        )
    for role, tensor in made.roles:
        if role in roles:
            of_fill = role.startswith("source")
            longest = max(rows_of(tensor, *(fill if of_fill else out))[1] for fill, out in spans)
            total += tensor.local_groups * longest
    return total


def rows_of(tensor: Stored, first: int, end: int) -> tuple[int, int]:
    """(first, number) of the rows of a local group that hold pixel slots ``first`` .. ``end`` - 1
    of an item.
    """
    low, high = first // GROUP, ceil_div(end, GROUP)
    return (low, high - low) if tensor.wide else (low // 2, ceil_div(high, 2) - low // 2)


def _at_most(made: Planned, slots: int) -> int:
    """The length of equal strips of an item that have at most ``slots`` slots, or one tile."""
    pitch, pixels = made.geometry.pitch, made.engine.pixels
    most = max(slots, pixels)
    if made.items == 1:
        most = min(most, made.strips[0].slots)
    if most >= pitch:
        return pitch
    return equal_strips(pitch, most, pixels)


def _longest(made: Planned, roles: Sequence[str], rows: int) -> int:
    """The longest strips whose staging regions take at most ``rows``."""
    pitch, count = made.geometry.pitch, 1
    while True:
        slots = _at_most(made, ceil_div(pitch, count))
        if staging_rows(made, roles, slots) <= rows or slots <= made.engine.pixels:
            return slots
        count += 1
