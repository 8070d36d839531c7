"""Dimensions of one layer on one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gen.errors import UserError
from gen.layers import Layer
from gen.program.engine import Engine
from gen.program.geometry import Geometry, Strip, geometry, strip, window_span
from gen.program.layout import GROUP, SUB, HeadLoop, HeadPlace, Stored, ceil_div, up_to
from gen.program.rounds import per_round
from gen.program.structs import MAX_SOURCES, RING_K, RING_NONE, RING_V, Shape
from gen.qlayers import QGraph, QLayer


@dataclass(frozen=True)
class Planned:
    """A layer with its tensors and dimensions.

    ``strips`` has one element per entry, each executed ``n0`` x ``n1`` times (items, heads).
    A product of attention is that of ``heads``, which all begin at the same rank (``of_heads``);
    ``joined`` ones share executions (``gen.program.join``).
    Per source: ``groups`` n up to which is multiplied, ``local_groups`` read on every rank,
    ``subs``, the number ``sub_base`` of the first one read. ``units`` output groups of a rank x
    ``gates``; ``steps`` of the reduction, one weight row each. ``early``: weight rows that arrive
    for nothing before the first tile, None where the order of layers is not known yet
    (``gen.program.early``).
    """

    qlayer: QLayer
    geometry: Geometry
    sources: tuple[Stored, ...]
    dest: Stored
    weight: Stored | None
    residual: Stored | None
    strips: tuple[Strip, ...]
    n0: int
    joined: bool
    heads: HeadLoop
    groups: tuple[int, ...]
    local_groups: tuple[int, ...]
    subs: tuple[int, ...]
    sub_base: tuple[int, ...]
    units: int
    gates: int
    steps: int
    ring: int
    ring_words: int
    engine: Engine
    early: int | None = None

    @property
    def layer(self) -> Layer:
        """The float layer's structure."""
        return self.qlayer.layer

    @property
    def roles(self) -> tuple[tuple[str, Stored], ...]:
        """Stored tensors of the layer by what it does with them: "source0", "source1", "weight",
        "residual", "dest".
        """
        named = [(f"source{s}", tensor) for s, tensor in enumerate(self.sources)]
        others = (("weight", self.weight), ("residual", self.residual), ("dest", self.dest))
        return (*named, *((role, tensor) for role, tensor in others if tensor is not None))

    @property
    def row_words(self) -> int:
        """64-byte words of a weight row in DDR."""
        return self.engine.row_words(self.qlayer.weight_bits)

    @property
    def looped(self) -> bool:
        """Runs once per (item, head): a product of attention."""
        return self.layer.heads > 0

    @property
    def softmax(self) -> bool:
        """The product with V."""
        return self.layer.read.norm == "softmax"

    @property
    def per_head(self) -> bool:
        """Reads one head of its source at a time: the product with K."""
        return self.looped and not self.softmax

    @property
    def items(self) -> int:
        """Items of one execution."""
        return self.strips[0].items

    @property
    def output_groups(self) -> int:
        """Local output groups."""
        return self.units // self.gates

    @property
    def n1(self) -> int:
        """Heads of an entry."""
        return self.heads.count

    @property
    def head(self) -> HeadPlace:
        """Where the first head of Q, or that of the result, lies."""
        return (self.dest if self.softmax else self.sources[0]).head(self.heads.first)

    def of_heads(self, heads: HeadLoop) -> Planned:
        """The same layer for other heads."""
        if not self.looped or heads == self.heads:
            return self
        made = replace(self, heads=heads)
        head = made.head
        if self.softmax:
            return replace(made, units=head.local_groups)
        words = self.engine.ranks * head.local_groups if self.weight is not None else 0
        return replace(
            made,
            groups=(head.end,),
            local_groups=(head.local_groups,),
            sub_base=(-(head.phase // 2),),
            ring_words=words,
        )

    def tiles(self, part: Strip) -> int:
        """Tiles of a strip."""
        return ceil_div(part.slots, self.engine.pixels)

    def _per_round(self, tiles: int, copies: int) -> int:
        """Units of a round; ``copies`` cycles of a Beat in the tiles' slots."""
        return per_round(
            self.units,
            self.gates,
            self.steps,
            tiles,
            self.ring_words or self.steps,
            self.engine.tile_octets * sum(self.local_groups) * copies,
            self.engine,
            self.early,
        )

    def turns(self, tiles: int) -> bool:
        """Whether no tile is visited again or reads what another one does: then the window buffer
        need not hold all of them.
        """
        once = self.geometry.ordered and len(self.geometry.ty) == 1
        return once and self._per_round(tiles, 1) >= self.units

    def window_slots(self, part: Strip) -> int:
        """Window pixels in the buffer: all of a strip, or what is read and what is filled
        meanwhile.
        """
        shape, pixels = self.shape(part), self.engine.pixels
        if not self.turns(self.tiles(part)) or shape.per_round < shape.units:
            return part.window_slots
        return min(part.window_slots, up_to(shape.lead * GROUP, pixels) + pixels)

    def window_rows(self, part: Strip) -> int:
        """Window rows of every bank."""
        return ceil_div(self.window_slots(part), self.engine.pixels) * sum(self.subs)

    def shape(self, part: Strip) -> Shape:
        """Work of one execution of a strip."""
        copies = (4 if self.geometry.up else 1) * part.split
        count = self._per_round(self.tiles(part), copies if part.fill > part.lead else 0)
        late = late_octets(part.lead, part.fill, sum(self.local_groups), self.engine, copies)
        return Shape(
            units=self.units,
            per_round=count,
            gates=self.gates,
            octets=part.octets,
            steps=self.steps,
            lead=part.lead + late,
            fill=part.fill,
            ring=self.ring,
            ring_words=self.ring_words,
        )


def late_octets(lead: int, fill: int, groups: int, engine: Engine, passes: int = 1) -> int:
    """Octets, of ``groups`` Beats of ``passes`` cycles each, to fill before the first tile beyond
    the ``lead`` of ``fill`` that it reads, so that no tile waits for the guard cycles behind the
    last octet that it reads: others follow it in the same slot.
    """
    if lead == fill:
        return 0
    cycles, guard = groups * passes, engine.guard
    if engine.ranks > 1 and passes == 1:
        # what counts is the first Beat of an octet
        late = ceil_div(guard, cycles) - 1
    else:
        late = ceil_div(guard - 1, cycles)
    return min(late, fill - lead)


def planned(
    qgraph: QGraph,
    qlayer: QLayer,
    tensors: Mapping[str, Stored],
    engine: Engine,
    strip_slots: int = 0,
) -> Planned:
    """Dimensions of ``qlayer``. ``strip_slots`` of a strip of an attention product, or the most
    that a strip of another layer may have; 0: all.

    Raises:
        UserError: naming the layer and the rule that it breaks.
    """
    layer = qlayer.layer
    name = layer.name
    sources = tuple(tensors[each] for each in layer.sources)
    dest = tensors[layer.dest]
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise UserError(f"layer {name}: {len(sources)} sources, at most {MAX_SOURCES} are possible")
    first = sources[0]
    if any((s.height, s.width) != (first.height, first.width) for s in sources):
        raise UserError(f"layer {name}: its sources differ in height or width")
    window = geometry(name, layer.window, first.height, first.width)
    if (window.height, window.width) != (dest.height, dest.width):
        raise UserError(
            f"layer {name}: the window makes {window.height}x{window.width}, "
            f"its destination is {dest.height}x{dest.width}"
        )
    softmax = layer.read.norm == "softmax"
    per_head = layer.heads > 0 and not softmax
    groups = tuple(s.head_groups if per_head else s.groups for s in sources)
    local_groups = tuple(s.head(0).local_groups if per_head else s.local_groups for s in sources)
    subs = tuple(ceil_div(8 * n, SUB) for n in groups)
    gates = 2 if layer.gate == "geglu" else 1
    outputs = dest.head(0).local_groups if layer.heads and softmax else dest.local_groups
    weight = tensors[layer.weight.key] if layer.weight.kind == "tensor" else None
    inputs = len(window.ty) * sum(subs)
    steps = inputs * max(1, qlayer.weight_bits // engine.weight_bits)
    ring, ring_words = RING_NONE, 0
    if weight is not None:
        ring = RING_V if layer.weight.transposed else RING_K
        ring_words = 2 * inputs if layer.weight.transposed else engine.ranks * local_groups[0]
    batch = qgraph.graph.batch
    items, slots = batch, batch * window.pitch
    if layer.heads:
        items, slots = 1, strip_slots or window.pitch
    else:
        items, slots = _window_share(qlayer, window, batch, sum(subs), engine, strip_slots)
    return Planned(
        qlayer=qlayer,
        geometry=window,
        sources=sources,
        dest=dest,
        weight=weight,
        residual=tensors[layer.residual] if layer.residual else None,
        strips=_strips(window, items, slots, engine),
        n0=batch // items,
        joined=False,
        heads=HeadLoop(0, 1, layer.heads or 1),
        groups=groups,
        local_groups=local_groups,
        subs=subs,
        sub_base=tuple(sum(subs[:s]) for s in range(len(subs))),
        units=outputs * gates,
        gates=gates,
        steps=steps,
        ring=ring,
        ring_words=ring_words,
        engine=engine,
    )


def _strips(window: Geometry, items: int, slots: int, engine: Engine) -> tuple[Strip, ...]:
    """Strips of ``slots`` output slots, the last one shorter."""
    if items > 1:
        return (strip(window, items, 0, items * window.pitch, engine.pixels, engine.ranks),)
    return tuple(
        strip(window, 1, at, min(slots, window.pitch - at), engine.pixels, engine.ranks)
        for at in range(0, window.pitch, slots)
    )


def _window_share(
    qlayer: QLayer, window: Geometry, batch: int, subs: int, engine: Engine, most: int
) -> tuple[int, int]:
    """Items and output slots of one entry: all, one item, or strips of one item.

    All items at once where their window fits, the parameters are the same for all of them, and
    strips may have any length; otherwise the longest strips of one item, of equal length and of at
    most ``most`` slots. If not even a strip of one tile fits, the checks refuse it.
    """
    read = qlayer.layer.read
    alike = read.host_affine is None and batch * read.groups <= engine.scales

    def fits(items: int, slots: int) -> bool:
        if most and slots > max(most, engine.pixels):
            return False
        starts = range(0, window.pitch, slots) if items == 1 else (0,)
        spans = (
            window_span(window, items, at, min(slots, items * window.pitch - at)) for at in starts
        )
        phases = window.stride**2
        return all(
            ceil_div(phases * plane, engine.pixels) * subs <= engine.window_rows
            for _, plane in spans
        )

    if (batch == 1 or (alike and not most)) and fits(batch, batch * window.pitch):
        return batch, batch * window.pitch
    count = 1
    slots = window.pitch
    while slots > engine.pixels and not fits(1, slots):
        count += 1
        slots = up_to(ceil_div(window.pitch, count), engine.pixels)
    return 1, slots
