"""Order of execution: segments of the program, and when every tensor is alive."""

from __future__ import annotations

from dataclasses import dataclass

from gen.errors import UserError
from gen.layers import Layer, LayerGraph
from gen.program.layout import GROUP, Stored, up_to
from gen.program.memory import Interval
from gen.program.structs import Segment


@dataclass(frozen=True)
class Schedule:
    """``segments`` over the layers in order; ``time`` of every layer.

    All layers of a repeated segment share one time: what one iteration reads last may be read
    again by the next.
    """

    segments: tuple[Segment, ...]
    time: tuple[int, ...]

    def end(self) -> int:
        """The time after the last layer."""
        return self.time[-1] + 1


def schedule(graph: LayerGraph) -> Schedule:
    """Cut the layers into segments: attention products in pairs, everything else in runs.

    Raises:
        UserError: an attention product without its partner.
    """
    segments: list[Segment] = []
    time: list[int] = []
    index, now = 0, 0
    layers = graph.layers
    while index < len(layers):
        layer = layers[index]
        if layer.heads:
            partner = layers[index + 1] if index + 1 < len(layers) else None
            if partner is None or partner.sources != (layer.dest,) or partner.heads != layer.heads:
                raise UserError(
                    f"layer {layer.name}: the product with V must follow the product with K; "
                    "this order of layers is not supported"
                )
            segments.append(Segment(index, 2, graph.batch, layer.heads))
            time += [now, now]
            index += 2
        else:
            last = segments[-1] if segments else None
            if last and not layers[last.first].heads:
                segments[-1] = Segment(last.first, last.count + 1)
            else:
                segments.append(Segment(index, 1))
            time.append(now)
            index += 1
        now += 1
    return Schedule(tuple(segments), tuple(time))


def reads(layer: Layer) -> tuple[str, ...]:
    """Stored tensors that a layer reads, each once."""
    names = list(layer.sources)
    if layer.residual is not None:
        names.append(layer.residual)
    if layer.weight.kind == "tensor":
        names.append(layer.weight.key)
    return tuple(dict.fromkeys(names))


def store_intervals(
    graph: LayerGraph, tensors: dict[str, Stored], plan: Schedule
) -> list[Interval]:
    """Live interval of every tensor in the activation store, in rows.

    The input is alive before the first layer, the output after the last one. A layer's
    destination and its sources are alive at the same time, so they never share rows.
    """
    born = {graph.input: -1}
    dies = {graph.input: -1}
    slack: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        born.setdefault(layer.dest, plan.time[index])
        dies.setdefault(layer.dest, plan.time[index])
        for name in reads(layer):
            dies[name] = max(dies[name], plan.time[index])
        if layer.weight.kind == "tensor":
            # words of V cover 16 tokens: the last may begin past the last pixel slot
            slack[layer.weight.key] = GROUP
    dies[graph.output] = plan.end()
    return [
        Interval(
            name, up_to(tensors[name].rows + slack.get(name, 0), GROUP), born[name], dies[name]
        )
        for name in born
    ]


def stats_intervals(
    graph: LayerGraph, tensors: dict[str, Stored], plan: Schedule
) -> list[Interval]:
    """Live interval of every tensor that a group norm reads, in channels of sums."""
    produced = {layer.dest: plan.time[index] for index, layer in enumerate(graph.layers)}
    dies: dict[str, int] = {}
    for index, layer in enumerate(graph.layers):
        if layer.read.norm == "group":
            for name in layer.sources:
                dies[name] = plan.time[index]
    if graph.input in dies:
        raise UserError("the latent is normalised before the first layer; this is not supported")
    return [
        Interval(
            name, tensors[name].items * up_to(tensors[name].channels, GROUP), produced[name], last
        )
        for name, last in dies.items()
    ]
