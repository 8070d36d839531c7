"""Several steps in one start of a program whose tensors lie in DDR for a while: bit for bit against
the integer reference, and that the checks notice a latent which shares rows with the result.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import unets
from bench_builds import SMALL, write_build
from cpp import FAST
from diffusers import UNet2DConditionModel
from generic_card import GenericCard, ranked
from samplerkit import SeveralSteps, eps_graph, sampled
from storekit import least_store
from test_models_on_card import of_model
from test_spill import staged

from gen.errors import UserError
from gen.hlslint.check import check_paths
from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.cost import start_cycles
from gen.program.sampler import result_words, with_sampler
from gen.vitis.bench import record
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench

# a latent and a result of 128 rows of one rank, of 96 of several; their layers need fewer
SIZE = (16, 16)


def unet() -> unets.Case:
    """Attention, cross attention and skip connections; a guided pair."""
    return unets.case(UNet2DConditionModel, unets.TINY, 2, 16, 16, 5)


def graph(prompt: bool):
    """A graph whose last layer reads the latent, too; a guided pair, or two latents."""
    return eps_graph(np.random.default_rng(3), prompt=prompt, size=SIZE, again=True)


@cache
def model():
    return of_model(unet)[0]


def card(ranks: int) -> GenericCard:
    return GenericCard(*ranked(ranks, *FAST, "-DLDA_SAMPLER=512", "-DLDA_SAMPLER_CHANNELS=4"))


def several(qgraph, ranks: int, steps: int, seed: int = 0) -> SeveralSteps:
    """Steps on the engine with the smallest store."""
    rows = least_store(qgraph, with_sampler(Engine(ranks=ranks), qgraph.graph))
    program = sampled(qgraph, ranks, store_rows=rows)
    assert program.moves and program.store_peak <= rows
    return SeveralSteps(np.random.default_rng(seed), qgraph, program, steps)


def compare(made: SeveralSteps) -> None:
    """What the software card computes, with the reference."""
    result, state = made.expected()
    got, states = made.on(card(made.program.ranks))
    np.testing.assert_array_equal(got, result)
    for each in states if made.steps > 1 else ():
        np.testing.assert_array_equal(each, state)


@pytest.mark.csim
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("prompt", [False, True])
def test_several_steps_in_the_smallest_store(prompt, ranks, steps):
    compare(several(graph(prompt), ranks, steps, seed=steps))


@pytest.mark.csim
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("ranks", [1, 4])
def test_several_steps_of_a_unet_in_strips(ranks, steps):
    made = several(model(), ranks, steps)
    assert staged(made.program) > 5
    compare(made)


@pytest.mark.csim
def test_cycles_of_a_start_follow_the_model():
    made = several(model(), 4, 4)
    generic = card(4)
    made.on(generic)
    results = [np.zeros((result_words(made.program, 4), 64), np.uint8) for _ in range(4)]
    buffers = made.weights, made.dynamic, made.latent, results, made.spill
    cycles = {}
    for steps in (1, 4):
        assert generic.step(*buffers, reload=False, steps=steps) == 0
        cycles[steps] = generic.cycles
    assert start_cycles(made.program, cycles[1], 4) == pytest.approx(cycles[4], rel=0.05)


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_sampler_writes_where_the_first_layer_reads(ranks):
    """A latent that goes to DDR and comes back elsewhere for its last reader."""
    program = several(graph(prompt=True), ranks, 1).program
    assert "latent" in program.spilled
    first, last = program.entries[0].store, program.entries[-1].store
    assert first.source[0].row.base == program.io.input_row
    assert last.source[1].row.base != program.io.input_row


@pytest.mark.csim
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_shared_rows_of_latent_and_result_are_noticed(ranks):
    """A placement for single steps, in fewer rows than latent and result have together."""
    qgraph = graph(prompt=False)
    right = sampled(qgraph, ranks)
    rows = right.input_rows + right.output_rows - 1
    program = lower(qgraph, replace(right.engine, store_rows=rows, sampler_pixels=0))
    verify_program(program)
    program = replace(program, engine=right.engine, updates=right.updates)
    with pytest.raises(ProgramError, match=r"sampler's update: .* of conv_out.out finds"):
        verify_program(program)
    for steps in (1, 2):
        made = SeveralSteps(np.random.default_rng(1), qgraph, program, steps)
        if steps == 1:
            compare(made)
        else:
            with pytest.raises(AssertionError, match="Mismatched elements"):
                compare(made)


def wrong_updates():
    """What can be wrong with the update of a latent of two groups of a guided pair."""
    return {
        "octets": lambda plan: replace(plan, octets=plan.octets - 1),
        "pair": lambda plan: replace(plan, pair_octets=0),
        "groups": lambda plan: replace(plan, groups=plan.groups - 1),
        "apart": lambda plan: replace(plan, group_rows=plan.group_rows + 1),
    }


@pytest.mark.parametrize("what", wrong_updates())
def test_wrong_updates_are_noticed(what):
    program = several(graph(prompt=True), 1, 1).program
    with pytest.raises(ProgramError, match="the sampler's update: "):
        verify_program(replace(program, updates=wrong_updates()[what](program.updates)))


def test_the_latent_has_rows_only_while_it_needs_them():
    """Between its last reader and the update they are others'."""
    without, program = lower(model(), Engine(ranks=4)), sampled(model(), 4)
    assert (program.store_peak, program.store_bound) == (without.store_peak, without.store_bound)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_never_fits_is_refused(ranks):
    qgraph = graph(prompt=False)
    program = sampled(qgraph, ranks)
    need, single = (least_store(qgraph, each) for each in (program.engine, Engine(ranks=ranks)))
    # without a sampler the latent's rows are free when the result is there
    assert single < need == program.input_rows + program.output_rows
    sentence = rf"latent and result: what the store exchanges with the host needs {need} store rows"
    with pytest.raises(UserError, match=sentence):
        sampled(qgraph, ranks, store_rows=need - 1)


@pytest.mark.csim
def test_kernels_with_both_pass_their_bench_and_the_linter(tmp_path):
    """store has the ports of moves and of several steps."""
    folder = tmp_path / "build"
    qgraph = graph(prompt=True)
    engine = with_sampler(SMALL, qgraph.graph)
    program = lower(qgraph, replace(engine, store_rows=least_store(qgraph, engine)))
    assert program.moves and program.has_sampler
    write_build(folder, qgraph, program)
    record(folder, progress=False)
    assert run_bench(folder, "store") == ["store_1: store: PASS", "store_2: store: PASS"]
    emit(folder, load_board("u250"))
    assert [str(each) for each in check_paths([folder], folders=[folder / "src"])] == []
