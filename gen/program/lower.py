"""From the integer layer graph to the layer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gen.errors import EngineTooSmall, StoreFull
from gen.layers import LayerGraph
from gen.program.ahead import leave_sums, send_rows_ahead, send_rows_first
from gen.program.attention import cuts
from gen.program.buffers import Cursor, Places, host_weight, place_all, wload_entry
from gen.program.cache import cached, keepable
from gen.program.constants import keep_constants
from gen.program.early import with_early
from gen.program.engine import Engine
from gen.program.entries import Entries, Statistics
from gen.program.flush import Flush, execution, flushes
from gen.program.gate_tables import load_tables_early
from gen.program.intervals import check_norms, row_intervals, stats_intervals, store_intervals
from gen.program.join import at_item, join
from gen.program.layout import Stored, stored
from gen.program.limits import check_limits, check_row_scales
from gen.program.memory import Allocation, Interval, allocate, check_capacity
from gen.program.moves import NO_MOVES, Homes, Placement, moves_table
from gen.program.planned import Planned, planned
from gen.program.program import Entry, Program
from gen.program.reorder import reorder
from gen.program.sampler import updates_of
from gen.program.schedule import Node, Schedule, Work, nodes, schedule
from gen.program.served import Key, served_by
from gen.program.spill import Chooser
from gen.qlayers import QGraph


@dataclass(frozen=True)
class Statics:
    """Addresses of sums and of row statistics in the memories of a rank."""

    sums: Allocation
    rows: Allocation


@dataclass(frozen=True)
class Mapped:
    """Layers in their order with everything that they keep in a rank's memories."""

    layers: list[Planned]
    plan: Schedule
    store: Allocation
    bound: int
    homes: Homes
    tensors: dict[str, Stored]
    statistics: Statics


def lower(qgraph: QGraph, engine: Engine, spill: bool = True) -> Program:
    """The layer program of ``qgraph`` on ``engine``. ``spill``: tensors may lie in DDR where the
    store does not hold all that are alive.

    Raises:
        EngineTooSmall: a layer or memories that this engine does not hold; a ``StoreFull`` if
            only the tensors are too many and ``spill`` is not set.
        UserError: a layer that no engine runs.
    """
    graph = qgraph.graph
    mapped = _mapped(qgraph, engine, spill)
    plan, homes = mapped.plan, mapped.homes
    own = [keepable(made) for made in mapped.layers]
    cache = cached(mapped.layers, own, engine.cache_rows)
    layers = with_early(plan, mapped.layers, cache)
    dynamic = Cursor()
    # what changes per prompt lies together, and behind it what changes per step
    hosts = [host_weight(made, graph.host_tensors, dynamic) for made in layers]
    prompt_words = dynamic.word
    served = served_by(plan, layers)
    places, static_words = place_all(
        {key: layers[key.layer].of_heads(key.heads) for key in served.ordered}, hosts, dynamic
    )
    sums, rows = mapped.statistics.sums, mapped.statistics.rows
    statistics = Statistics(sums.address, rows.address)
    flush = flushes(plan, layers, engine, homes.moves)
    moves, counts = moves_table(homes.moves)
    alone = {segment.first for segment in plan.segments if segment.count == 1}

    def entry(work: Work, key: Key, index: int) -> Entry:
        made = layers[work.layer].of_heads(work.heads)
        whole = _entry(
            Entries(made, work.strip, statistics, homes.staging[work.layer]),
            places[key],
            flush[index],
            counts[index],
            cache[work.layer],
            index in alone,
        )
        if work.item is None:
            return whole
        return at_item(whole, work.item)

    entries = []
    for index, work in enumerate(plan.work):
        made = entry(work, served.keys[index], index)
        if work.beside is not None:
            beside = entry(work.beside, served.beside[index], index)
            made = join(made, beside, execution(work, layers).shape, engine)
        entries.append(made)
    entries = keep_constants(plan.segments, entries)
    entries = send_rows_ahead(plan.segments, entries, engine.depths["rw"])
    entries = send_rows_first(plan.segments, entries, engine.depths["rw"])
    entries = leave_sums(plan.segments, entries, engine)
    entries = load_tables_early(plan.segments, entries)
    return Program(
        engine=engine,
        batch=graph.batch,
        input=graph.input,
        output=graph.output,
        segments=list(plan.segments),
        entries=entries,
        tensors=mapped.tensors,
        stats=dict(sums.address),
        row_stats=dict(rows.address),
        static_words=static_words,
        dynamic_words=max(1, dynamic.word),
        updates=updates_of(
            graph,
            engine,
            mapped.tensors[graph.input],
            mapped.tensors[graph.output],
            prompt_words,
            dynamic.word,
        ),
        step_biases=[each.step_bias for each in places.values() if each.step_bias],
        step_affines=[each.step_affine for each in places.values() if each.step_affine],
        host_weights=[each for each in hosts if each],
        store_peak=mapped.store.peak,
        store_bound=mapped.bound,
        stats_peak=sums.peak,
        rows_peak=rows.peak,
        static_rows=sum(own),
        cache_used=sum(rows for rows, at in zip(own, cache, strict=True) if at >= 0),
        moves=moves,
        spilled=homes.ddr,
        spill_rows=homes.ddr_rows,
    )


def _mapped(qgraph: QGraph, engine: Engine, spill: bool) -> Mapped:
    """The tensors in the store, with products of attention joined if it holds what these need,
    or else some of them in DDR for a while.
    """
    try:
        return _in_store(qgraph, engine, join=True)
    except EngineTooSmall:
        try:
            return _in_store(qgraph, engine, join=False)
        except StoreFull:
            if not spill:
                raise
    try:
        return _spilled(qgraph, engine, join=True)
    except EngineTooSmall:
        return _spilled(qgraph, engine, join=False)


def _tensors(qgraph: QGraph, engine: Engine) -> dict[str, Stored]:
    graph = qgraph.graph
    heads = {layer.dest: layer.heads for layer in graph.layers}
    return {
        name: stored(info, qgraph.tensors[name].bits, graph.batch, engine.ranks, heads.get(name, 0))
        for name, info in graph.tensors.items()
    }


def _layers(
    qgraph: QGraph, tensors: dict[str, Stored], engine: Engine, spill: bool, join: bool
) -> tuple[list[Node], list[Planned]]:
    """Nodes in graph order, and layers whose attention logits are cut into strips that fit."""
    graph = qgraph.graph
    order = nodes(graph)
    layers = [planned(qgraph, qlayer, tensors, engine) for qlayer in qgraph.layers]
    found = cuts(graph, tensors, order, layers, engine, spill, join)
    cut = {
        name: replace(tensors[name], strip=each.slots, copies=each.copies)
        for name, each in found.items()
    }
    for index, qlayer in enumerate(qgraph.layers):
        logits = {qlayer.layer.dest, *qlayer.layer.sources} & set(cut)
        if logits:
            (name,) = logits
            made = planned(qgraph, qlayer, {**tensors, **cut}, engine, found[name].slots)
            layers[index] = replace(made, joined=found[name].joined)
    for made in layers:
        check_limits(made, engine)
    check_norms(graph, layers)
    check_row_scales(graph, layers, engine)
    return order, layers


def _in_store(qgraph: QGraph, engine: Engine, join: bool) -> Mapped:
    """All tensors in the store as long as they are alive: in the order with fewer flushes if the
    memories hold it, else in the order of the graph.
    """
    graph, tensors = qgraph.graph, _tensors(qgraph, engine)
    order, layers = _layers(qgraph, tensors, engine, spill=False, join=join)
    tensors |= {made.dest.name: made.dest for made in layers}
    better = reorder(graph, order, layers, engine.lag, engine.pixels)
    for nodes_in_order in [better, order] if better != order else [order]:
        plan = schedule(nodes_in_order, layers)
        updated = engine.sampler_pixels > 0
        intervals = store_intervals(graph, tensors, plan, frozenset(), updated)
        try:
            store = allocate(intervals, 1)
            check_capacity(intervals, store, engine.store_rows, _labels(plan, layers),
                           "store rows", "store_rows", StoreFull)  # fmt: skip
            statistics = _statics(graph, tensors, layers, plan, engine)
            break
        except EngineTooSmall:
            if nodes_in_order is order:
                raise
    placed = {name: replace(each, row=store.address.get(name, 0)) for name, each in tensors.items()}
    rows = [{role: placed[tensor.name].row for role, tensor in made.roles} for made in layers]
    homes = Homes(rows, [{} for _ in layers], moves=[NO_MOVES for _ in plan.work])
    layers = [_at(made, each) for made, each in zip(layers, rows, strict=True)]
    return Mapped(layers, plan, store, store.bound, homes, placed, statistics)


def _spilled(qgraph: QGraph, engine: Engine, join: bool) -> Mapped:
    """Tensors in the store while they are needed, whole or strip by strip, else in DDR.

    What is chosen may not fit in the order of addresses, as free rows lie apart; then less is
    chosen, in steps that a choice takes notice of.
    """
    graph, tensors = qgraph.graph, _tensors(qgraph, engine)
    order, layers = _layers(qgraph, tensors, engine, spill=True, join=join)
    tensors |= {made.dest.name: made.dest for made in layers}
    chooser = Chooser(graph, tensors, order, layers)
    budget = engine.store_rows
    while True:
        choice = chooser.choose(budget)
        cut = list(layers)
        for index, slots in choice.slots.items():
            cut[index] = planned(qgraph, qgraph.layers[index], tensors, engine, slots)
            check_limits(cut[index], engine)
        plan = schedule(order, cut)
        placement = Placement(choice, chooser.uses, chooser.size, order, cut, plan)
        store = allocate(placement.intervals(), 1)
        if store.peak <= engine.store_rows:
            break
        budget -= max(1, engine.store_rows // 64, (store.peak - engine.store_rows) // 2)
    statistics = _statics(graph, tensors, cut, plan, engine)
    homes = placement.homes(store, tensors)
    first = {each.tensor: each for each in reversed(choice.residences)}
    last = {each.tensor: each for each in choice.residences}
    shown = {**first, graph.output: last[graph.output]}
    placed = {
        name: replace(each, row=placement.row(name, shown[name].first, store))
        if name in shown
        else each
        for name, each in tensors.items()
    }
    cut = [_at(made, rows) for made, rows in zip(cut, homes.rows, strict=True)]
    return Mapped(cut, plan, store, store.bound, homes, placed, statistics)


def _labels(plan: Schedule, layers: Sequence[Planned]) -> list[str]:
    """Name of the layer at every time."""
    labels = [""] * plan.end()
    for work in plan.work:
        labels[work.time] = layers[work.layer].layer.name
    return labels


def _statics(
    graph: LayerGraph,
    tensors: Mapping[str, Stored],
    layers: Sequence[Planned],
    plan: Schedule,
    engine: Engine,
) -> Statics:
    labels = _labels(plan, layers)

    def placed(intervals: Sequence[Interval], align: int, member: str, unit: str) -> Allocation:
        made = allocate(intervals, align)
        check_capacity(intervals, made, getattr(engine, member), labels, unit, member)
        return made

    return Statics(
        # sums of one group of all ranks lie in one word
        sums=placed(
            stats_intervals(graph, tensors, plan), engine.ranks, "stats_words", "words of sums"
        ),
        rows=placed(
            row_intervals(graph, tensors, plan), 1, "row_octets", "octets of row statistics"
        ),
    )


def _at(made: Planned, rows: Mapping[str, int]) -> Planned:
    """A layer whose tensors have addresses, but for those that are staged."""

    def located(role: str, tensor: Stored) -> Stored:
        return replace(tensor, row=rows.get(role, 0))

    return replace(
        made,
        sources=tuple(located(f"source{s}", each) for s, each in enumerate(made.sources)),
        dest=located("dest", made.dest),
        weight=located("weight", made.weight) if made.weight else None,
        residual=located("residual", made.residual) if made.residual else None,
    )


def _entry(
    make: Entries,
    places: Places,
    flush: Flush,
    moves: tuple[int, int, int, int],
    cache: int,
    alone: bool,
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
        heads=made.heads,
        store=make.store(flush, moves),
        pre=make.pre(places.uniform, pp_once),
        gather=make.gather(),
        reduce=make.reduce(),
        mac=make.mac(),
        post=make.post(),
        wload=wload_entry(made, places, make.shape.per_round, cache, pp_once),
    )
