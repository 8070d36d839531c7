"""Dimensions of one layer on one engine, and whether the engine's buffers hold it."""

from __future__ import annotations

from dataclasses import dataclass

from gen.errors import UserError
from gen.layers import Layer
from gen.program.engine import Engine
from gen.program.geometry import Geometry, geometry
from gen.program.layout import BLOCK, GROUP, SUB, Stored, ceil_div
from gen.program.structs import MAX_SOURCES, Addr, Region, Shape
from gen.qlayers import QGraph, QLayer

MAX_ALIGN = 7


@dataclass(frozen=True)
class Planned:
    """A layer with its tensors and dimensions.

    ``looped``: runs once per (item, head). ``subs`` 16-channel subs per source; ``inputs`` and
    ``outputs`` logical channels of one execution (outputs of one half of a gate).
    """

    qlayer: QLayer
    geometry: Geometry
    sources: tuple[Stored, ...]
    dest: Stored
    weight: Stored | None
    residual: Stored | None
    looped: bool
    subs: tuple[int, ...]
    groups: int
    gates: int
    shape: Shape

    @property
    def layer(self) -> Layer:
        """The float layer's structure."""
        return self.qlayer.layer

    def region(self, tensor: Stored, subs: int) -> Region:
        """Where ``subs`` subs of a tensor lie; per item and head in a loop.

        Attention logits exist for one item and head at a time and do not move.
        """
        moves = self.looped and tensor.name != self.scores
        return Region(
            row=Addr(tensor.row),
            group=Addr(0, 0, tensor.head_pitch // GROUP if moves and tensor.heads > 1 else 0),
            px=Addr(0, tensor.pitch if moves else 0, 0),
            planes=tensor.planes,
            blocks=ceil_div(subs * SUB, BLOCK),
            subs=subs,
            block_rows=tensor.block_rows,
            plane_rows=tensor.plane_rows,
        )

    @property
    def scores(self) -> str | None:
        """Name of the attention logits among source and destination of a looped layer."""
        if not self.looped:
            return None
        return self.sources[0].name if self.layer.weight.transposed else self.dest.name

    @property
    def regions(self) -> tuple[Region, ...]:
        """Regions of the sources."""
        return tuple(self.region(t, s) for t, s in zip(self.sources, self.subs, strict=True))


def planned(qgraph: QGraph, qlayer: QLayer, tensors: dict[str, Stored], engine: Engine) -> Planned:
    """Dimensions of ``qlayer``.

    Raises:
        UserError: naming the layer and the buffer or rule that it breaks.
    """
    layer = qlayer.layer
    name = layer.name
    sources = tuple(tensors[each] for each in layer.sources)
    dest = tensors[layer.dest]
    looped = layer.heads > 0
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise UserError(f"layer {name}: {len(sources)} sources, at most {MAX_SOURCES} are possible")
    first = sources[0]
    if any((s.height, s.width) != (first.height, first.width) for s in sources):
        raise UserError(f"layer {name}: its sources differ in height or width")
    items = 1 if looped else qgraph.graph.batch
    window = geometry(name, layer.window, first.height, first.width, items)
    if (window.height, window.width) != (dest.height, dest.width):
        raise UserError(
            f"layer {name}: the window makes {window.height}x{window.width}, "
            f"its destination is {dest.height}x{dest.width}"
        )
    softmax = layer.read.norm == "softmax"
    per_head = looped and not softmax
    subs = tuple(ceil_div(s.head_channels if per_head else s.physical, SUB) for s in sources)
    outputs = dest.head_channels if looped and softmax else dest.physical
    gates = 2 if layer.gate == "geglu" else 1
    groups = ceil_div(outputs, GROUP)
    steps = len(window.offset) * sum(subs)
    shape = Shape(
        groups=groups,
        tiles=ceil_div(items * window.pitch, engine.pixels),
        words=items * window.pitch // GROUP,
        gates=gates,
        steps=steps,
        lead=window.lead(engine.pixels),
        fill=window.fill,
    )
    weight = tensors[layer.weight.key] if layer.weight.kind == "tensor" else None
    residual = tensors[layer.residual] if layer.residual else None
    made = Planned(
        qlayer, window, sources, dest, weight, residual, looped, subs, groups, gates, shape
    )
    _check(made, engine)
    return made


def store_words_per_slot(made: Planned) -> int:
    """Most words that one slot of the entry puts on ks: those of the first group, at once."""
    return 2 * made.shape.steps if made.weight is not None else 0


def row_sums_ahead(made: Planned, engine: Engine) -> int:
    """Row sums sent before the first accumulators leave the array.

    The lead, the fills of the first tile and of the second, whose slot sends the first tile's
    results, and what the pipelines of pre and mac hold.
    """
    pixels = made.shape.lead + 2 * engine.pixels + 2 * engine.timing.pipeline_depth
    return min(made.shape.fill, pixels)


def _check(made: Planned, engine: Engine) -> None:
    layer, name = made.layer, made.layer.name
    rows = ceil_div(made.geometry.slots, engine.pixels) * sum(made.subs)
    channels = sum(s.channels for s in made.sources)
    size = (
        f"{made.geometry.items} x {channels} channels x {made.geometry.height}x"
        f"{made.geometry.width}, {len(made.geometry.offset)} taps"
    )
    if rows > engine.window_rows:
        raise UserError(
            f"layer {name} ({size}) needs {rows} window rows, the engine has "
            f"{engine.window_rows}; choose an engine with window_rows >= {rows}, a smaller image "
            "or batch 1"
        )
    weights = made.shape.steps * made.gates
    if weights > engine.weight_rows:
        raise UserError(
            f"layer {name} ({size}) needs {weights} weight rows, the engine has "
            f"{engine.weight_rows}; choose an engine with weight_rows >= {weights}"
        )
    if layer.read.norm in ("layer", "softmax"):
        words = sum(r.blocks for r in made.regions)
        if words > engine.row_words:
            raise UserError(
                f"layer {name} ({size}) normalises rows of {words} blocks, the engine has "
                f"{engine.row_words}; choose an engine with row_words >= {words}"
            )
        if len(made.sources) > 1 or (layer.read.norm == "layer" and made.sources[0].heads > 1):
            raise UserError(
                f"layer {name}: a {layer.read.norm} norm over several sources or heads "
                "is not supported"
            )
    if layer.read.norm == "softmax" and made.shape.fill > engine.sums:
        raise UserError(
            f"layer {name} ({size}) keeps {made.shape.fill} row sums, the engine has "
            f"{engine.sums}; choose an engine with sums >= {made.shape.fill}"
        )
    if layer.read.norm == "group":
        words = made.geometry.items * sum(r.blocks for r in made.regions)
        if words > engine.scale_words:
            raise UserError(
                f"layer {name} ({size}) needs {words} words of group scales, the engine has "
                f"{engine.scale_words}; choose an engine with scale_words >= {words}"
            )
    if made.geometry.items > engine.items:
        raise UserError(
            f"layer {name}: a batch of {made.geometry.items}, the engine takes {engine.items}"
        )
    slot = store_words_per_slot(made)
    if slot > engine.depths["ks"]:
        raise UserError(
            f"layer {name} ({size}) reads {slot} words of K or V in one slot, the FIFO ks holds "
            f"{engine.depths['ks']}; choose an engine with a deeper one"
        )
    ahead = row_sums_ahead(made, engine)
    if layer.read.norm == "softmax" and engine.depths["ss"] < ahead:
        raise UserError(
            f"layer {name} ({size}) sends {ahead} row sums before the first is used, the FIFO ss "
            f"holds {engine.depths['ss']}; choose an engine with a deeper one"
        )
    if any(not 0 <= each <= MAX_ALIGN for each in made.qlayer.read.align):
        raise UserError(
            f"layer {name}: its sources' scales are 2^{max(made.qlayer.read.align)} apart, at most "
            f"2^{MAX_ALIGN} can be aligned; calibrate with a closer exponent for its sources"
        )
    if made.gates == 2 and (made.dest.heads > 1 or made.residual is not None):
        raise UserError(f"layer {name}: a gate with heads or a residual is not supported")
    if layer.read.norm == "group" and any(s.heads > 1 for s in made.sources):
        raise UserError(f"layer {name}: a group norm over heads is not supported")
