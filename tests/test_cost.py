"""The cost model against the timed simulation: every kind of layer, and the bundled model."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from generic_card import ROW, GenericCard, ranked
from layerkit import KINDS, narrowed, random_qgraph

from gen.model import find_model
from gen.plan.structure import layer_graph, skeleton
from gen.program import Engine, lower, verify_program
from gen.program.binary import program_bytes
from gen.program.cost import CostModel, step_cost

pytestmark = pytest.mark.csim

# Cycles depend on no value; these make every divisor and every shift a valid one.
ANY = 1
LEAST = 3000  # cycles; what begins and ends a step weighs more in shorter ones


def simulated(program, *flags, reload=False):
    """Cycles of a step; with weights that are on the card already unless ``reload``."""
    card = GenericCard(*ranked(program.ranks), *flags)
    assert card.set_program(program_bytes(program)) == 0, card.error

    def buffers(size):
        return [np.full(size, ANY, np.uint8) for _ in range(program.ranks)]

    arguments = (
        buffers(64 * program.static_words),
        buffers(64 * program.dynamic_words),
        buffers(ROW * program.input_rows),
        buffers(ROW * program.output_rows),
        buffers(ROW * program.spill_rows),
    )
    for again in (True,) if reload else (True, False):
        assert card.step(*arguments, again) == 0, card.error
    return card.cycles


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind, ranks):
    compared = 0
    for seed, size, channels in ((1, 32, 320), (2, 16, 640), (3, 24, 136)):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        qgraph = random_qgraph(kind, rng, batch=2, size=(size, size), channels=channels)
        program = lower(qgraph, Engine(ranks=ranks))
        cycles = simulated(program, reload=True)
        if cycles >= LEAST:
            assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)
            compared += 1
    assert compared


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    "heads, size, rows",
    [((8, 40), 32, 2048), ((8, 40), 32, 512), ((4, 80), 16, 0), ((5, 24), 24, 1024)],
)
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_heads(kind, heads, size, rows, ranks):
    """Strips of one head at a time, all heads at once, heads that begin at any rank."""
    rng = np.random.default_rng(heads)
    qgraph = random_qgraph(kind, rng, batch=1, size=(size, size), heads=heads)
    program = lower(qgraph, Engine(ranks=ranks, scores_rows=rows))
    cycles = simulated(program, reload=True)
    assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_attentions_of_many_tiny_executions(kind, ranks):
    """Their parameters and K and V of the host come from DDR in runs of a few words, and some
    executions pass unlike those before.
    """
    compared = 0
    for batch in (1, 2, 3):
        for size in ((8, 8), (12, 6)):
            rng = np.random.default_rng(batch)
            qgraph = random_qgraph(kind, rng, batch=batch, size=size, heads=(12, 16))
            program = lower(qgraph, Engine(ranks=ranks))
            cycles = simulated(program, reload=True)
            if cycles >= LEAST / 3:
                assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)
                compared += 1
    assert compared == 6


def test_a_unit_takes_its_steps_or_what_its_words_take_to_leave():
    assert [Engine().unit_cycles(steps) for steps in (1, 2, 3, 40)] == [2, 2, 3, 40]
    assert [Engine(pixels=128).unit_cycles(steps) for steps in (1, 8, 9)] == [8, 8, 9]


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", ["linear", "geglu"])
def test_units_that_post_is_slower_than(kind, ranks):
    """Two words a cycle leave the array, post takes one."""
    qgraph = random_qgraph(kind, np.random.default_rng(1), batch=2, size=(32, 32), channels=48)
    program = lower(qgraph, Engine(ranks=ranks, pixels=64, lag=20))
    cycles = simulated(program, "-DLDA_PP=64", "-DLDA_LAG=20", reload=True)
    assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)


@pytest.fixture(scope="module")
def bundled():
    return skeleton(layer_graph(find_model("models/shapes-ldm")))


@pytest.mark.parametrize("ranks, cached", [(4, 4096), (4, 0), (2, 4096), (1, 4096)])
def test_bundled_model(bundled, ranks, cached):
    program = lower(bundled, Engine(ranks=ranks, cache_rows=cached))
    assert step_cost(program).cycles == pytest.approx(simulated(program), rel=0.03)


def test_halves_of_a_pair_hide_each_others_drains(bundled):
    """Readers of a group norm begin with the first item while the second one is not finished."""
    program = lower(bundled, Engine(ranks=4, cache_rows=4096))
    readers = sum(entry.pre.sums_before > 0 for entry in program.entries)
    entries = [
        replace(entry, pre=replace(entry.pre, sums_left=0, sums_before=0))
        for entry in program.entries
    ]
    waiting = replace(program, entries=entries)
    assert readers > 10
    assert simulated(program) + 40 * readers < simulated(waiting)
    assert step_cost(waiting).cycles == pytest.approx(simulated(waiting), rel=0.03)


def test_products_with_v_do_not_wait_for_the_last_logits(bundled):
    program = lower(bundled, Engine(ranks=4, cache_rows=4096))
    pres = [entry.pre for entry in program.entries]
    loops = [program.segment_of(k).n1 > 1 for k in range(len(pres))]
    queued = [k for k, pre in enumerate(pres) if loops[k] and pre.rows_sent]
    readers = len(queued)
    assert readers == 11  # two attentions in each of seven blocks, of which three are joined
    cycles = [step_cost(program).cycles]
    measured = [simulated(program)]
    for first in (1, 0):  # rows that are sent before the last ones are kept, or behind them
        entries = list(program.entries)
        for k in queued:
            entries[k - 1] = with_pre(entries[k - 1], rows_ahead=0)
            entries[k] = with_pre(entries[k], rows_sent=0, rows_first=first)
        waiting = replace(program, entries=entries)
        verify_program(waiting)
        cycles.append(step_cost(waiting).cycles)
        measured.append(simulated(waiting))
        assert cycles[-1] == pytest.approx(measured[-1], rel=0.03)
    for found in (cycles, measured):
        assert found[0] + 5 * readers < found[1]
        assert found[1] + 5 * readers < found[2]


def with_pre(entry, **values):
    return replace(entry, pre=replace(entry.pre, **values))


def test_executions_and_tiles_that_are_not_followed(bundled):
    # Both are counted on from those before; that changes little.
    program = lower(bundled, Engine(ranks=4))
    all_followed = CostModel(program.engine, followed=10**9).cost(program).cycles
    assert step_cost(program).cycles == pytest.approx(all_followed, rel=0.003)


def test_layers_of_a_step(bundled):
    program = lower(bundled, Engine(ranks=4, cache_rows=4096))
    cost = step_cost(program)
    assert [layer.layer for layer in cost.layers] == [entry.layer for entry in program.entries]
    assert sum(layer.executions for layer in cost.layers) == program.executions
    assert all(0 < layer.multiply <= layer.cycles for layer in cost.layers)
    assert 0.9 * cost.cycles < sum(layer.cycles for layer in cost.layers) <= cost.cycles


def test_weights_of_four_bits_are_waited_for_less(bundled):
    narrow = skeleton(bundled.graph, 4)
    eight = step_cost(lower(bundled, Engine(ranks=4)))
    widened = step_cost(lower(narrow, Engine(ranks=4, stored_bits=4)))
    four = step_cost(lower(narrow, Engine(ranks=4, weight_bits=4, stored_bits=4)))
    assert max(four.weights, widened.weights) < eight.weights
    # widened on their way they are multiplied as ever
    assert [each.multiply for each in widened.layers] == [each.multiply for each in eight.layers]
    assert widened.cycles < eight.cycles
    # products of attention and the two layers at the ends are multiplied in two passes
    twice = {product_of(q.layer.name) for q in narrow.layers if q.weight_bits == 8}
    one, other = multiplied(eight), multiplied(four)
    assert one.keys() == other.keys()
    for name, cycles in one.items():
        if name in twice:
            assert cycles <= other[name] <= 2 * cycles
        else:
            assert cycles == other[name]


def product_of(layer):
    """The attention of a product, both of which may share executions; else the layer itself."""
    return layer.removesuffix(".qk").removesuffix(".pv")


def multiplied(cost):
    """Cycles in which the array multiplies, by layer or attention."""
    found = Counter()
    for each in cost.layers:
        found[product_of(each.layer)] += each.multiply
    return found


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("array", [8, 4])
@pytest.mark.parametrize("kind", ["conv3x3", "geglu", "self_attention", "cross_attention"])
def test_layers_on_an_engine_of_four_bit_rows(kind, array, ranks):
    bits = {"weight_bits": array, "stored_bits": 4}
    flags = [f"-DLDA_{name.upper()}={value}" for name, value in bits.items()]
    for seed, size, channels in ((1, 32, 320), (2, 16, 640)):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        qgraph = random_qgraph(kind, rng, batch=2, size=(size, size), channels=channels)
        program = lower(narrowed(qgraph), Engine(ranks=ranks, **bits))
        cycles = simulated(program, *flags, reload=True)
        assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)


@pytest.mark.parametrize(("ranks", "cached"), [(4, 8192), (4, 0), (1, 8192)])
def test_bundled_model_of_widened_rows(bundled, ranks, cached):
    engine = Engine(ranks=ranks, stored_bits=4, cache_rows=cached)
    program = lower(skeleton(bundled.graph, 4), engine)
    cycles = simulated(program, "-DLDA_STORED_BITS=4", "-DLDA_CACHE=8192")
    assert step_cost(program).cycles == pytest.approx(cycles, rel=0.03)


@pytest.mark.parametrize("kernel", ["store", "pre", "scale", "rows", "link", "mac", "post"])
def test_stages_of_every_kernel_count(bundled, kernel):
    program = lower(bundled, Engine(ranks=4))
    timing = program.engine.timing
    slower = replace(timing, stages={**timing.stages, kernel: timing.stages[kernel] + 30})
    slow = replace(program, engine=replace(program.engine, timing=slower))
    assert step_cost(slow).cycles > step_cost(program).cycles + 30
