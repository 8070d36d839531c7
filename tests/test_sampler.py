"""The sampler on the card: several steps in one start against the integer reference."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from bench_builds import write_build
from cpp import FAST
from generic_card import GenericCard, ranked
from samplerkit import SeveralSteps, eps_graph, sampled

from gen.errors import UserError
from gen.hlslint.check import check_paths
from gen.program import Engine, lower
from gen.program.cost import start_cycles, update_cycles
from gen.program.sampler import result_words, with_sampler
from gen.vitis.bench import record
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench

SAMPLER = (*FAST, "-DLDA_SAMPLER=256")


@pytest.mark.csim
@pytest.mark.parametrize(
    ("ranks", "batch", "prompt", "size", "channels", "replicas"),
    [
        # a guided pair, padding slots, two groups of input channels
        (1, 2, True, (5, 7), 4, 4),
        (2, 2, True, (5, 7), 4, 4),
        (4, 2, True, (5, 7), 4, 4),
        (1, 1, False, (8, 8), 4, 1),
        (2, 1, False, (8, 8), 4, 1),
        (4, 4, True, (4, 4), 3, 2),  # two guided pairs, one group
        (1, 2, False, (3, 9), 2, 4),  # two latents, no pairs
    ],
)
def test_several_steps_equal_the_reference(ranks, batch, prompt, size, channels, replicas):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        qgraph = eps_graph(rng, batch, prompt, size, channels, replicas)
        made = SeveralSteps(rng, qgraph, sampled(qgraph, ranks), steps=1 + seed + 1)
        result, state = made.expected()
        got, states = made.on(
            GenericCard(*ranked(ranks, *SAMPLER, f"-DLDA_SAMPLER_CHANNELS={channels}"))
        )
        np.testing.assert_array_equal(got, result)
        for each in states:
            np.testing.assert_array_equal(each, state)


@pytest.mark.csim
@pytest.mark.parametrize("ranks", [1, 4])
def test_cycles_of_a_start_follow_the_model(ranks):
    rng = np.random.default_rng(2)
    qgraph = eps_graph(rng, size=(12, 10))
    made = SeveralSteps(rng, qgraph, sampled(qgraph, ranks), steps=4)
    card = GenericCard(*ranked(ranks, *SAMPLER, "-DLDA_SAMPLER_CHANNELS=4"))
    made.on(card)
    results = [np.zeros((result_words(made.program, 4), 64), np.uint8) for _ in range(ranks)]
    buffers = made.weights, made.dynamic, made.latent, results
    cycles = {}
    for steps in (1, 4):
        assert card.step(*buffers, reload=False, steps=steps) == 0
        cycles[steps] = card.cycles
    assert update_cycles(made.program) > 8 * 4 * 16
    assert start_cycles(made.program, cycles[1], 4) == pytest.approx(cycles[4], rel=0.05)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A build with a sampler and four ranks, its benches and the vectors of a start."""
    folder = tmp_path_factory.mktemp("several") / "build"
    qgraph = eps_graph(np.random.default_rng(5))
    small = Engine(ranks=4, store_rows=4096, window_rows=256, weight_rows=512)
    program = lower(qgraph, with_sampler(small, qgraph.graph))
    write_build(folder, qgraph, program)
    record(folder, progress=False)
    return folder


@pytest.mark.csim
@pytest.mark.parametrize("kernel", ["store", "wload", "pre", "mac"])
def test_benches_run_two_steps(recorded, kernel):
    lines = run_bench(recorded, kernel)
    assert any("PASS" in line for line in lines)


@pytest.mark.csim
def test_bench_notices_a_wrong_state(recorded, tmp_path):
    shutil.copytree(recorded / "vitis" / "vectors" / "store_1", tmp_path / "store_1")
    latent = tmp_path / "store_1" / "latent.bin"
    data = bytearray(latent.read_bytes())
    data[-64 + 2] ^= 1  # of the only coefficient of the state
    latent.write_bytes(bytes(data))
    with pytest.raises(UserError, match="test bench of store failed"):
        run_bench(recorded, "store", tmp_path / "store_1")


def test_emitted_sources_are_clean(recorded):
    emit(recorded, load_board("u250"))
    assert [str(each) for each in check_paths([recorded])] == []
    text = (recorded / "src" / "store.cpp").read_text()
    assert "int32_t steps" in text and "port=steps" in text
