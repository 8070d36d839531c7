"""When tensors and their statistics are alive, for the memory maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gen.errors import UserError
from gen.layers import LayerGraph
from gen.program.layout import Stored, ceil_div
from gen.program.memory import Interval
from gen.program.planned import Planned
from gen.program.schedule import Schedule, reads


def _span(
    graph: LayerGraph, plan: Schedule, readers: Mapping[str, Iterable[int]]
) -> dict[str, tuple[int, int]]:
    """From the first write of a tensor to the last read by one of its ``readers``."""
    writer = {layer.dest: index for index, layer in enumerate(graph.layers)}
    spans = {}
    for name, layers in readers.items():
        born, dies = plan.times(writer[name]) if name in writer else (-1, -1)
        spans[name] = (born, max([dies, *(plan.times(each)[1] for each in layers)]))
    return spans


def store_intervals(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    plan: Schedule,
    skip: frozenset[str],
    updated: bool = False,
) -> list[Interval]:
    """Live interval of every tensor in the activation store but those in ``skip``, in rows.

    The input is alive before the first layer, the output after the last one. A layer's
    destination and its sources are alive at the same time, so they never share rows. ``updated``:
    the next input is made from the output, so these two share none either; rows of the input are
    free between its last reader and then.
    """
    readers: dict[str, list[int]] = {graph.input: []}
    slack = slack_rows(graph, tensors)
    for index, layer in enumerate(graph.layers):
        readers.setdefault(layer.dest, [])
        for name in reads(layer):
            readers.setdefault(name, []).append(index)
    spans = _span(graph, plan, readers)
    spans[graph.output] = (spans[graph.output][0], plan.end())
    again = {graph.input: (plan.end(),)} if updated else {}
    return [
        Interval(name, tensors[name].rows + slack.get(name, 0), *span, again.get(name, ()))
        for name, span in spans.items()
        if name not in skip
    ]


def slack_rows(graph: LayerGraph, tensors: Mapping[str, Stored]) -> dict[str, int]:
    """Rows behind a tensor that are read with it: octets of K up to a multiple of the ranks."""
    return {
        layer.weight.key: ceil_div(tensors[layer.weight.key].ranks, 2)
        for layer in graph.layers
        if layer.weight.kind == "tensor"
    }


def normalised(graph: LayerGraph, kinds: tuple[str, ...]) -> dict[str, list[int]]:
    """Tensors read through one of these norms, with the layers that do.

    Raises:
        UserError: a norm of what the host writes.
    """
    found: dict[str, list[int]] = {}
    for index, layer in enumerate(graph.layers):
        if layer.read.norm in kinds:
            for name in layer.sources:
                found.setdefault(name, []).append(index)
    if graph.input in found:
        raise UserError(
            f"layer {graph.layers[found[graph.input][0]].name}: the latent is normalised before "
            "the first layer; this is not supported"
        )
    return found


def stats_intervals(
    graph: LayerGraph, tensors: Mapping[str, Stored], plan: Schedule
) -> list[Interval]:
    """Live interval of every tensor that a group norm reads, in words of 8 sums."""
    spans = _span(graph, plan, normalised(graph, ("group",)))
    return [Interval(name, tensors[name].stat_words, *span) for name, span in spans.items()]


def row_intervals(
    graph: LayerGraph, tensors: Mapping[str, Stored], plan: Schedule
) -> list[Interval]:
    """Live interval of every tensor that a layer norm or a softmax reads, in octets."""
    spans = _span(graph, plan, normalised(graph, ("layer", "softmax")))
    return [
        Interval(name, tensors[name].copies * tensors[name].octets, *span)
        for name, span in spans.items()
    ]


def check_norms(graph: LayerGraph, layers: Sequence[Planned]) -> None:
    """Refuse what one set of statistics per tensor cannot serve.

    Raises:
        UserError: naming the tensor's second reader.
    """
    seen: dict[str, tuple[str, int]] = {}
    for made in layers:
        norm = made.layer.read.norm
        if norm == "none":
            continue
        for name in made.layer.sources:
            wanted = (norm, made.qlayer.read.eps if norm == "layer" else 0)
            if seen.setdefault(name, wanted) != wanted:
                raise UserError(
                    f"layer {made.layer.name}: its source {name} is normalised in two ways "
                    f"({seen[name][0]} with E {seen[name][1]}, {norm} with E {wanted[1]}); one "
                    "set of statistics per tensor is kept"
                )
