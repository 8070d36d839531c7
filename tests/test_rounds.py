"""Units of a round: what hides behind a visit of a tile, and what does not."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from layerkit import random_inputs, random_qgraph
from test_program import compared

from gen.program import Engine, lower, verify_program
from gen.program.cost import step_cost
from gen.program.early import last_round, with_early
from gen.program.rounds import per_round
from gen.program.structs import RING_NONE, Shape

ENGINE = Engine()


def of_weights(early, units=16, steps=20, tiles=3, gates=1, engine=ENGINE):
    """Units of a round of a layer whose fill takes no time."""
    return per_round(units, gates, steps, tiles, steps, 0, engine, early)


def test_rounds_are_as_short_as_they_hide_what_goes_on_beside_them():
    assert of_weights(None) == 1
    for fill, units in ((16, 1), (17, 2), (36, 2), (37, 3), (77, 4), (10000, 16)):
        assert per_round(16, 1, 20, 3, 20, fill, ENGINE) == units
    # rounds are equal: 5 units would do
    assert per_round(16, 1, 20, 3, 20, 96, ENGINE) == 4
    # the guard cycles behind a layer's only tile
    assert [of_weights(None, tiles=1, steps=steps) for steps in (64, 63, 20)] == [1, 2, 4]


def test_rounds_are_as_long_as_weights_of_the_first_one_come_early():
    """Behind its first tile, the last round takes 40 cycles per unit; a drain takes 100."""
    assert [of_weights(early) for early in (0, 60, 61, 80, 1000)] == [2, 2, 4, 4, 4]
    assert of_weights(0, tiles=2) == 1
    assert of_weights(1000, tiles=2) == 8  # the last of rounds of 5 or 6 would be a short one
    assert of_weights(1000, tiles=2, units=15) == 5
    assert of_weights(1000, steps=64) == 1
    assert of_weights(1000, steps=2) == 16


def test_a_gated_group_is_not_torn():
    assert of_weights(1000, units=6, gates=2) == 6
    assert of_weights(0, units=6, gates=2) == 2


@pytest.mark.parametrize(("member", "most"), [("units", 3), ("weight_rows", 79)])
def test_buffers_limit_a_round(member, most):
    assert of_weights(1000, units=9, engine=replace(ENGINE, **{member: most})) == 3
    assert of_weights(1000, engine=replace(ENGINE, **{member: 0})) == 0


def test_cycles_of_a_last_round():
    """Of the array, or of post where a unit has fewer steps than octets; halves of rows count."""
    shape = Shape(11, 4, 1, 20, 9, 4, 20, RING_NONE, 0)
    assert last_round(shape, ENGINE) == 5 * 3 * 9
    assert last_round(replace(shape, steps=2), ENGINE) == 5 * 3 * 4
    joined = replace(shape, units=10, per_round=10, pv_units=2, pv_steps=50)
    assert last_round(joined, ENGINE) == 5 * (2 * 50 + 8 * 9)


@pytest.mark.parametrize("cached", [False, True])
def test_rows_that_come_in_the_round_before(cached):
    """A row of the cache in a cycle, one from DDR in two; none of the ring, none before a step."""
    qgraph = random_qgraph("self_attention", np.random.default_rng(3), batch=2, size=(16, 16),
                           heads=(2, 64))  # fmt: skip
    mapped = sys.modules["gen.program.lower"]._mapped(qgraph, ENGINE, spill=True)
    assert all(made.early is None for made in mapped.layers)
    layers = with_early(mapped.plan, mapped.layers, [0 if cached else -1] * len(mapped.layers))
    assert sorted(made.ring for made in layers) == [RING_NONE] * (len(layers) - 2) + [1, 2]
    cycles, seen = 0, set()
    for work in mapped.plan.work:
        made = layers[work.layer]
        if work.layer not in seen:
            rows = cycles if cached else cycles // 2
            assert made.early == (0 if made.ring else rows)
            seen.add(work.layer)
        cycles = last_round(made.of_heads(work.heads).shape(made.strips[work.strip]), ENGINE)
    assert max(made.early for made in layers) > 100


@pytest.mark.parametrize("kind", ["geglu", "self_attention", "conv3x3", "layernorm"])
def test_rounds_change_cycles_and_no_value(kind, monkeypatch):
    rng = np.random.default_rng(3)
    qgraph = random_qgraph(kind, rng, batch=2, size=(8, 8), channels=128)
    program = lower(qgraph, ENGINE)
    module = sys.modules["gen.program.lower"]
    monkeypatch.setattr(module, "with_early", lambda plan, layers, cache: list(layers))
    without = lower(qgraph, ENGINE)
    rounds = [[e.mac.shape.per_round for e in each.entries] for each in (program, without)]
    assert rounds[0] != rounds[1] or kind == "conv3x3"
    assert step_cost(program).cycles < 1.01 * step_cost(without).cycles
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, rng))
