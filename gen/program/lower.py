"""From the integer layer graph to the layer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gen.errors import UserError
from gen.layers import LayerGraph
from gen.program.ahead import send_rows_ahead
from gen.program.attention import cuts
from gen.program.buffers import Cursor, Places, host_weight, place, wload_entry
from gen.program.cache import cached
from gen.program.engine import Engine
from gen.program.entries import Entries, Statistics
from gen.program.flush import flushes
from gen.program.gate_tables import load_tables_early
from gen.program.intervals import check_norms, row_intervals, stats_intervals, store_intervals
from gen.program.layout import Stored, stored
from gen.program.limits import check_limits
from gen.program.memory import Allocation, Interval, allocate, check_capacity
from gen.program.planned import Planned, planned
from gen.program.program import Entry, Program
from gen.program.reorder import reorder
from gen.program.schedule import Node, Schedule, nodes, schedule
from gen.qlayers import QGraph


@dataclass(frozen=True)
class Maps:
    """Addresses in the memories of a rank."""

    store: Allocation
    sums: Allocation
    rows: Allocation


def lower(qgraph: QGraph, engine: Engine) -> Program:
    """The layer program of ``qgraph`` on ``engine``.

    Raises:
        UserError: a layer that the engine cannot run, or memories too small for the graph.
    """
    graph = qgraph.graph
    tensors = _tensors(qgraph, engine)
    order, layers = _layers(qgraph, tensors, engine)
    tensors = {**tensors, **{made.dest.name: made.dest for made in layers}}
    for made in layers:
        check_limits(made, engine)
    check_norms(graph, layers)
    plan, maps = _best_order(graph, tensors, order, layers, engine)
    placed = {
        name: replace(each, row=maps.store.address.get(name, 0)) for name, each in tensors.items()
    }
    layers = [_at(made, placed) for made in layers]
    static, dynamic = Cursor(), Cursor()
    # what changes per prompt lies together, and so does what changes per step
    hosts = [host_weight(made, graph.host_tensors, dynamic) for made in layers]
    places = [place(made, host, static, dynamic) for made, host in zip(layers, hosts, strict=True)]
    own = [0 if each.host_weight else each.ws_rows for each in places]
    cache = cached(layers, own, engine.cache_rows)
    statistics = Statistics(maps.sums.address, maps.rows.address)
    flush = flushes(plan, layers, engine)
    alone = {segment.first for segment in plan.segments if segment.count == 1}
    entries = [
        _entry(
            Entries(layers[work.layer], work.strip, statistics),
            places[work.layer],
            flush[index],
            cache[work.layer],
            index in alone,
        )
        for index, work in enumerate(plan.work)
    ]
    entries = send_rows_ahead(plan.segments, entries, engine.depths["rw"])
    entries = load_tables_early(plan.segments, entries)
    return Program(
        engine=engine,
        batch=graph.batch,
        input=graph.input,
        output=graph.output,
        segments=list(plan.segments),
        entries=entries,
        tensors=placed,
        stats=dict(maps.sums.address),
        row_stats=dict(maps.rows.address),
        static_words=static.word,
        dynamic_words=max(1, dynamic.word),
        step_biases=[each.step_bias for each in places if each.step_bias],
        step_affines=[each.step_affine for each in places if each.step_affine],
        host_weights=[each.host_weight for each in places if each.host_weight],
        store_peak=maps.store.peak,
        store_bound=maps.store.bound,
        stats_peak=maps.sums.peak,
        rows_peak=maps.rows.peak,
        static_rows=sum(own),
        cache_used=sum(rows for rows, at in zip(own, cache, strict=True) if at >= 0),
    )


def _tensors(qgraph: QGraph, engine: Engine) -> dict[str, Stored]:
    graph = qgraph.graph
    heads = {layer.dest: layer.heads for layer in graph.layers}
    return {
        name: stored(info, qgraph.tensors[name].bits, graph.batch, engine.ranks, heads.get(name, 0))
        for name, info in graph.tensors.items()
    }


def _layers(
    qgraph: QGraph, tensors: dict[str, Stored], engine: Engine
) -> tuple[list[Node], list[Planned]]:
    """Nodes in graph order, and layers whose attention logits are cut into strips that fit."""
    graph = qgraph.graph
    order = nodes(graph)
    layers = [planned(qgraph, qlayer, tensors, engine) for qlayer in qgraph.layers]
    found = cuts(graph, tensors, order, layers, engine)
    cut = {
        name: replace(tensors[name], strip=each.slots, copies=each.copies)
        for name, each in found.items()
    }
    for index, qlayer in enumerate(qgraph.layers):
        logits = {qlayer.layer.dest, *qlayer.layer.sources} & set(cut)
        if logits:
            (name,) = logits
            layers[index] = planned(qgraph, qlayer, {**tensors, **cut}, engine, found[name].slots)
    return order, layers


def _best_order(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    order: list[Node],
    layers: list[Planned],
    engine: Engine,
) -> tuple[Schedule, Maps]:
    """The order with fewer flushes if the memories hold it, else the order of the graph."""
    better = reorder(graph, order, layers, engine.lag, engine.pixels)
    if better != order:
        plan = schedule(better, layers)
        try:
            return plan, _maps(graph, tensors, layers, plan, engine)
        except UserError:
            pass
    plan = schedule(order, layers)
    return plan, _maps(graph, tensors, layers, plan, engine)


def _maps(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    layers: Sequence[Planned],
    plan: Schedule,
    engine: Engine,
) -> Maps:
    labels = [""] * plan.end()
    for work in plan.work:
        labels[work.time] = layers[work.layer].layer.name

    def placed(intervals: Sequence[Interval], align: int, member: str, unit: str) -> Allocation:
        made = allocate(intervals, align)
        check_capacity(intervals, made, getattr(engine, member), labels, unit, member)
        return made

    return Maps(
        store=placed(
            store_intervals(graph, tensors, plan, frozenset()), 1, "store_rows", "store rows"
        ),
        # sums of one group of all ranks lie in one word
        sums=placed(
            stats_intervals(graph, tensors, plan), engine.ranks, "stats_words", "words of sums"
        ),
        rows=placed(
            row_intervals(graph, tensors, plan), 1, "row_octets", "octets of row statistics"
        ),
    )


def _at(made: Planned, tensors: Mapping[str, Stored]) -> Planned:
    """A layer whose tensors have addresses."""

    def located(tensor: Stored | None) -> Stored | None:
        return tensors[tensor.name] if tensor else None

    return replace(
        made,
        sources=tuple(tensors[each.name] for each in made.sources),
        dest=tensors[made.dest.name],
        weight=located(made.weight),
        residual=located(made.residual),
    )


def _entry(
    make: Entries, places: Places, flush: tuple[int, int, int], cache: int, alone: bool
) -> Entry:
    made = make.made
    pp_once = int(alone and not places.pp.s0 and not places.pp.s1)
    return Entry(
        layer=made.layer.name,
        strip=make.index,
        sources=made.layer.sources,
        weight=made.weight.name if made.weight else None,
        residual=made.layer.residual,
        dest=made.layer.dest,
        store=make.store(*flush),
        pre=make.pre(places.uniform, pp_once),
        gather=make.gather(),
        reduce=make.reduce(),
        mac=make.mac(),
        post=make.post(),
        wload=wload_entry(made, places, make.shape.per_round, cache, pp_once),
    )
