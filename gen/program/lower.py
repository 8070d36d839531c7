"""From the integer layer graph to the layer program."""

from __future__ import annotations

from gen.program.buffers import Cursor, host_weight, step_bias, wload_entry
from gen.program.engine import Engine
from gen.program.entries import mac_entry, post_entry, pre_entry, store_entry
from gen.program.layout import GROUP, Stored, stored
from gen.program.memory import Allocation, allocate, check_capacity
from gen.program.planned import Planned, planned
from gen.program.program import Entry, Program
from gen.program.schedule import Schedule, schedule, stats_intervals, store_intervals
from gen.qlayers import QGraph


def lower(qgraph: QGraph, engine: Engine) -> Program:
    """The layer program of ``qgraph`` on ``engine``.

    Raises:
        UserError: a layer that the engine cannot run, or memories too small for the graph.
    """
    graph = qgraph.graph
    order = schedule(graph)
    bare = {
        name: stored(info, qgraph.tensors[name].bits, graph.batch)
        for name, info in graph.tensors.items()
    }
    layers = [planned(qgraph, qlayer, bare, engine) for qlayer in qgraph.layers]
    store, stats = _memories(qgraph, bare, order, engine)
    tensors = {name: _at(each, store.address.get(name, 0)) for name, each in bare.items()}
    layers = [planned(qgraph, qlayer, tensors, engine) for qlayer in qgraph.layers]
    ahead = [_prefetch(order, layers, index) for index in range(len(layers))]

    dynamic, static = Cursor(), Cursor()
    biases = [step_bias(made, dynamic) for made in layers]
    weights = [host_weight(made, graph.host_tensors, graph.batch, dynamic) for made in layers]
    entries = []
    for index, made in enumerate(layers):
        prefetched = index > 0 and ahead[index - 1]
        following = layers[index + 1] if ahead[index] else None
        next_rows = following.shape.steps * following.gates if following else 0
        entries.append(
            Entry(
                layer=made.layer.name,
                sources=made.layer.sources,
                weight=made.weight.name if made.weight else None,
                residual=made.layer.residual,
                dest=made.layer.dest,
                store=store_entry(made),
                pre=pre_entry(made, stats.address),
                mac=mac_entry(made, prefetched, next_rows),
                post=post_entry(made, stats.address),
                wload=wload_entry(
                    made, static, biases[index], weights[index], prefetched, ahead[index]
                ),
            )
        )
    return Program(
        engine=engine,
        batch=graph.batch,
        input=graph.input,
        output=graph.output,
        segments=list(order.segments),
        entries=entries,
        tensors=tensors,
        stats=dict(stats.address),
        static_words=static.word,
        dynamic_words=max(1, dynamic.word),
        step_biases=[each for each in biases if each],
        host_weights=[each for each in weights if each],
        store_peak=store.peak,
        store_bound=store.bound,
        stats_peak=stats.peak,
    )


def _memories(
    qgraph: QGraph, bare: dict[str, Stored], order: Schedule, engine: Engine
) -> tuple[Allocation, Allocation]:
    """Addresses of tensors in the store and of their sums in the statistics memory."""
    graph = qgraph.graph
    labels = [""] * order.end()
    for index, layer in enumerate(graph.layers):
        labels[order.time[index]] = layer.name
    rows = store_intervals(graph, bare, order)
    store = allocate(rows, GROUP)
    check_capacity(rows, store, engine.store_rows, labels, "store rows")
    channels = stats_intervals(graph, bare, order)
    stats = allocate(channels, GROUP)
    check_capacity(channels, stats, engine.stats_channels, labels, "channels of statistics")
    return store, stats


def _at(tensor: Stored, row: int) -> Stored:
    return Stored(**{**tensor.__dict__, "row": row})


def _prefetch(order: Schedule, layers: list[Planned], index: int) -> bool:
    """Entry ``index`` loads the first weights of the next: from DDR, in the same segment.

    Across segments the next entry may be one of two, with different numbers of weights.
    """
    if index + 1 >= len(layers) or layers[index + 1].weight is not None:
        return False
    return any(s.first <= index and index + 1 < s.first + s.count for s in order.segments)
