"""Whether the engine's buffers hold a layer."""

from __future__ import annotations

from collections.abc import Sequence

from gen.errors import EngineTooSmall, UserError
from gen.layers import LayerGraph
from gen.program.buffers import pp_words
from gen.program.engine import Engine
from gen.program.intervals import normalised
from gen.program.layout import GROUP
from gen.program.planned import Planned

MAX_ALIGN = 7  # d of docs/numerics.md fits 28 bits


def check_limits(made: Planned, engine: Engine) -> None:
    """Refuse a layer that does not fit, or that no engine runs.

    Raises:
        EngineTooSmall: naming the layer, what it needs, what there is and what to change.
        UserError: naming the layer and what is not supported.
    """
    name = made.layer.name
    channels = sum(s.channels for s in made.sources)
    window, part = made.geometry, made.strips[0]
    size = (
        f"{part.items} x {channels} channels x {window.height}x{window.width}, "
        f"{len(window.ty)} taps"
    )
    norm = made.layer.read.norm
    fill = max(each.fill for each in made.strips) * GROUP
    rows = max(made.window_rows(each) for each in made.strips)
    again = any(each.per_round < each.units for each in map(made.shape, made.strips))
    needs = [
        ("window rows", rows, "window_rows", "; a smaller image helps, too"),
        ("weight rows", made.steps * made.gates, "weight_rows", ""),
        ("units of a round", made.gates, "units", ""),
        ("local groups of a pixel", sum(made.local_groups), "row_groups", ""),
        ("batch items", part.items, "items", "; a smaller batch helps, too"),
        ("row sums", fill if norm == "softmax" and again else 0, "sums", ""),
        ("norm groups x items", part.items * made.layer.read.groups, "scales", ""),
    ]
    for what, need, member, advice in needs:
        have = getattr(engine, member)
        if need > have:
            raise EngineTooSmall(
                f"layer {name} ({size}) needs {need} {what}, the engine has {have}; choose an "
                f"engine with {member} >= {need}{advice}"
            )
    words, depth = pp_words(made), engine.depths["pp"]
    if words > depth:
        raise EngineTooSmall(
            f"layer {name} ({size}) reads {words} words of parameters, the FIFO pp holds {depth}; "
            f"choose an engine with pp >= {words} in [fifo]"
        )
    _check_rules(made)


def check_row_scales(graph: LayerGraph, layers: Sequence[Planned], engine: Engine) -> None:
    """Refuse a layer norm of more rows than FIFO rw holds, where the result has another one: its
    sums would wait for scales that wait for its own fill.

    Raises:
        EngineTooSmall: naming the layer, what it needs, what there is and what to change.
    """
    again, depth = normalised(graph, ("layer",)), engine.depths["rw"]
    for made in layers:
        fill = max(each.fill for each in made.strips)
        if made.layer.read.norm == "layer" and made.dest.name in again and fill > depth:
            raise EngineTooSmall(
                f"layer {made.layer.name} has a layer norm of {fill * GROUP} rows and another "
                f"one behind it; the FIFO rw holds the scales of {depth * GROUP}; choose an engine "
                f"with rw >= {fill} in [fifo], a smaller image or batch 1"
            )


def _check_rules(made: Planned) -> None:
    name, norm = made.layer.name, made.layer.read.norm
    if norm in ("layer", "softmax") and len(made.sources) > 1:
        raise UserError(f"layer {name}: a {norm} norm over several sources is not supported")
    if norm in ("layer", "group") and any(s.heads > 1 for s in made.sources):
        raise UserError(f"layer {name}: a {norm} norm over heads is not supported")
    if norm != "none" and not all(s.wide for s in made.sources):
        raise UserError(f"layer {name}: a {norm} norm of 8-bit tensors is not supported")
    if any(not 0 <= each <= MAX_ALIGN for each in made.qlayer.read.align):
        raise UserError(
            f"layer {name}: its sources' scales are 2^{max(made.qlayer.read.align)} apart, at most "
            f"2^{MAX_ALIGN} can be aligned; calibrate with a closer exponent for its sources"
        )
    if made.gates == 2 and (made.dest.heads > 1 or made.residual is not None):
        raise UserError(f"layer {name}: a gate with heads or a residual is not supported")
    if made.residual is not None and not made.residual.wide:
        raise UserError(f"layer {name}: an 8-bit residual is not supported")
    if made.looped and (made.residual is not None or made.layer.host_bias is not None):
        raise UserError(
            f"layer {name}: a product of attention with a residual or a step bias is not supported"
        )
