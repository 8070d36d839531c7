"""The list scheduler: independent layers fill the time in which others' results are written."""

import numpy as np
import pytest
from layerkit import Kit, random_inputs, random_qgraph
from test_program import compared

from gen.layers import Read, Window
from gen.program import Engine, lower, verify_program
from gen.program.flush import micro_slots
from gen.program.reorder import dependencies, reorder
from gen.program.schedule import nodes
from gen.program.structs import FLUSH_NEVER, Shape

KERNEL = Window((3, 3), pad=(1, 1, 1, 1))
NORM = Read("group", groups=2, eps=1e-5)


def resnet_block(inputs=64, channels=64, size=(16, 16)):
    """Convolutions and a shortcut, in the order in which a framework lists them: the shortcut last
    before it is added.
    """
    kit = Kit(np.random.default_rng(1), batch=2, size=size)
    x = kit.produce("x", inputs, "stream")
    wide, full = (channels, "stream", size, 1), (64, "stream", size, 1)
    hidden = kit.static("conv1", [x], wide, NORM, KERNEL, table=True)
    again = kit.static("norm", [hidden], wide, NORM, KERNEL, table=True)
    shortcut = kit.static("shortcut", [x], full)
    return kit.finish(kit.static("conv2", [again], full, NORM, KERNEL, True, residual=shortcut))


def order(program):
    return [entry.layer for entry in program.entries]


def flushed(program):
    return [entry.layer for entry in program.entries if entry.store.flush != FLUSH_NEVER]


@pytest.mark.parametrize("ranks", [1, 4])
def test_shortcut_runs_while_results_are_written(ranks):
    qgraph = resnet_block()
    program = lower(qgraph, Engine(ranks=ranks))
    verify_program(program)
    assert order(program) == ["x", "conv1", "shortcut", "norm", "conv2"]
    assert flushed(program) == ["conv1", "conv2"]  # norm need not wait
    compared(qgraph, program, random_inputs(qgraph, np.random.default_rng(2)))


def test_order_of_the_graph_where_memory_is_short():
    """The early shortcut lives longer; without room for it the graph's order stays."""
    qgraph = resnet_block(inputs=8, channels=128)
    roomy = lower(qgraph, Engine(lag=24))
    kept = lower(qgraph, Engine(lag=24, store_rows=roomy.store_bound - 1))
    verify_program(kept)
    assert order(kept) == ["x", "conv1", "norm", "shortcut", "conv2"]
    assert kept.store_peak < roomy.store_peak


def test_dependencies_are_kept():
    for kind in ("self_attention", "residual", "concat_groupnorm_silu"):
        qgraph = random_qgraph(kind, np.random.default_rng(0))
        found = nodes(qgraph.graph)
        needs = dependencies(qgraph.graph, found)
        program = lower(qgraph, Engine(lag=16))
        names = [layer.name for layer in qgraph.graph.layers]
        place = {name: program.entries_of(name)[0] for name in names}
        for at, node in enumerate(found):
            for before in needs[at]:
                last = max(place[names[layer]] for layer in found[before])
                assert all(place[names[layer]] > last for layer in node)


def test_ties_keep_the_order_of_the_graph():
    qgraph = random_qgraph("self_attention", np.random.default_rng(3), size=(4, 4))
    assert order(lower(qgraph, Engine()))[:3] == ["q", "k", "v"]
    assert reorder(qgraph.graph, [], [], 8, 32) == []


@pytest.mark.parametrize(
    ("units", "per_round", "gates", "octets"), [(5, 2, 1, 13), (8, 4, 2, 8), (1, 1, 1, 1)]
)
def test_micro_slots_follow_the_loop_order(units, per_round, gates, octets):
    shape = Shape(units, per_round, gates, octets, 1, 1, 1, 0, 0)
    slots = micro_slots(shape, 32)
    groups, step = units // gates, per_round // gates
    number = 0
    for first in range(0, groups, step):
        for tile in range(-(-octets // 4)):
            for group in range(first, min(groups, first + step)):
                assert slots[group, tile] == number
                number += 1
    assert slots.size == number
