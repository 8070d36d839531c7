"""Tensors that lie in DDR for a while: whole ones and strips of them, bit for bit against the
integer reference; what is chosen, and that the checks notice wrong moves.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import unets
from bench_builds import RANKS as RANKS_OF_BUILD
from bench_builds import SMALL, make_build
from diffusers import UNet2DConditionModel, UNet2DModel
from generic_card import GenericCard, GraphRun, ranked
from layerkit import KINDS, Kit, far_apart, random_inputs
from storekit import least_store
from test_models_on_card import of_model
from test_program import compared, drawn

from gen.errors import EngineTooSmall, StoreFull, UserError
from gen.hlslint.check import check_paths
from gen.program import Engine, lower, verify_program
from gen.program.check import ProgramError
from gen.program.cost import step_cost
from gen.program.program import moved_rows
from gen.program.sampler import buffer_words
from gen.program.structs import Addr
from gen.vitis.bench import record
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench
from gen.vitis.topology import topology

RANKS = pytest.mark.parametrize("ranks", [1, 2, 4])


def conditioned() -> unets.Case:
    """Attention, cross attention and skip connections; a guided pair."""
    return unets.case(UNet2DConditionModel, unets.TINY, 2, 16, 16, 5)


def unconditioned() -> unets.Case:
    """Three levels, asymmetric padding, heads as wide as the channels."""
    return unets.case(UNet2DModel, unets.DDPM_LIKE, 1, 24, 16, 0)


def staged(program) -> int:
    """Entries that fetch or put strips."""
    return sum(bool(e.store.moves_before or e.store.moves_after) for e in program.entries)


def fetched_whole(program) -> int:
    """Moves of whole tensors."""
    return sum(e.store.moves_once for e in program.entries)


@cache
def programs(make, ranks: int):
    """Stores of rows on which tensors are moved whole, and on which they are moved in strips."""
    qgraph, _ = of_model(make)
    peak = lower(qgraph, Engine(ranks=ranks)).store_peak
    least = least_store(qgraph, Engine(ranks=ranks))
    whole = next(
        rows
        for rows in range(peak, least, -max(1, peak // 50))
        if lower(qgraph, Engine(ranks=ranks, store_rows=rows)).moves
    )
    return {"whole": whole, "strips": least}


@pytest.mark.csim
@RANKS
@pytest.mark.parametrize("how", ["whole", "strips"])
@pytest.mark.parametrize("make", [conditioned, unconditioned])
def test_a_unet_whose_tensors_do_not_fit_the_store(make, how, ranks):
    rows = programs(make, ranks)[how]
    graph = GraphRun(*of_model(make), Engine(ranks=ranks, store_rows=rows))
    assert graph.program.store_peak <= rows
    assert fetched_whole(graph.program) > 1 if how == "whole" else staged(graph.program) > 5
    assert (staged(graph.program) == 0) == (how == "whole")
    card = GenericCard(*ranked(ranks))
    assert graph.first_difference(card) is None
    # a second step finds what the first one has left in DDR
    first = graph.on(card).copy()
    np.testing.assert_array_equal(graph.on(card), first)
    assert step_cost(graph.program).cycles == pytest.approx(card.cycles, rel=0.03)


@RANKS
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_in_the_smallest_store(kind, ranks):
    for size in ((12, 9), (16, 16)):
        qgraph, inputs = drawn(kind, 17, size=size)
        program = lower(
            qgraph, Engine(ranks=ranks, store_rows=least_store(qgraph, Engine(ranks=ranks)))
        )
        verify_program(program)
        compared(qgraph, program, inputs)


def test_strips_are_as_long_as_the_store_allows():
    qgraph, _ = of_model(unconditioned)
    least = least_store(qgraph, Engine())
    counts = [
        lower(qgraph, Engine(store_rows=rows)).executions for rows in (least, 2 * least, 4 * least)
    ]
    assert counts[0] > counts[1] >= counts[2]


def test_more_rows_move_less():
    qgraph, _ = of_model(unconditioned)
    least = least_store(qgraph, Engine())
    made = [lower(qgraph, Engine(store_rows=rows)) for rows in (least, 2 * least, 4 * least)]
    moved = [moved_rows(program) for program in made]
    assert moved[0] > moved[1] >= moved[2]
    assert made[0].spill_rows > 0


def test_a_model_that_fits_is_not_changed():
    qgraph, _ = of_model(unconditioned)
    program = lower(qgraph, Engine())
    assert not program.moves and not program.spilled and program.spill_rows == 0
    assert lower(qgraph, Engine(), spill=False) == program


def test_what_never_fits_is_refused_by_layer():
    qgraph, _ = of_model(unconditioned)
    least = least_store(qgraph, Engine())
    wanted = rf"queries, keys, values, logits and result .* needs \d+ .* engine's {least - 1} can"
    with pytest.raises(UserError, match=wanted):
        lower(qgraph, Engine(store_rows=least - 1))
    qgraph, _ = drawn("conv3x3", 17, size=(16, 16))
    with pytest.raises(UserError, match=r"layer conv: .* in strips of 32 pixel slots"):
        lower(qgraph, Engine(store_rows=least_store(qgraph, Engine()) - 1))


def test_only_a_full_store_makes_tensors_lie_in_ddr(monkeypatch):
    """What more room would not cure is refused at once, with its own sentence."""
    qgraph, _ = drawn("conv3x3", 17, size=(16, 16))
    small = Engine(store_rows=least_store(qgraph, Engine()))
    with pytest.raises(StoreFull, match=r"store rows are needed .* choose an engine with"):
        lower(qgraph, small, spill=False)
    assert lower(qgraph, small).moves

    def spilled(*_, **__):
        raise AssertionError("tensors were to lie in DDR")

    monkeypatch.setattr(sys.modules[lower.__module__], "_spilled", spilled)
    with pytest.raises(AssertionError, match="lie in DDR"):
        lower(qgraph, small)
    narrow = Engine(window_rows=1)
    with pytest.raises(EngineTooSmall, match="window_rows >= ") as caught:
        lower(qgraph, narrow)
    assert not isinstance(caught.value, StoreFull)
    with pytest.raises(UserError, match=r"2\^8 apart") as caught:
        lower(far_apart(qgraph), Engine())
    assert not isinstance(caught.value, EngineTooSmall)


def wrong_moves():
    """What can be wrong with a move."""

    def at(change):
        def changed(program, number):
            moves = list(program.moves)
            moves[number] = change(moves[number])
            return replace(program, moves=moves)

        return changed

    def later(address):
        return Addr(address.base + 1, address.s0, address.s1)

    return {
        "ddr": at(lambda m: replace(m, ddr=later(m.ddr))),
        "store": at(lambda m: replace(m, store=later(m.store))),
        "rows": at(lambda m: replace(m, rows=m.rows - 1) if m.rows > 1 else replace(m, rows=0)),
        "direction": at(lambda m: replace(m, put=1 - m.put)),
        "pieces": at(lambda m: replace(m, repeat=m.repeat - 1)),
        "apart": at(lambda m: replace(m, ddr_stride=m.ddr_stride + 1, repeat=max(2, m.repeat))),
    }


@pytest.mark.parametrize("what", wrong_moves())
@pytest.mark.parametrize("how", ["whole", "strips"])
def test_wrong_moves_are_noticed(how, what):
    qgraph, _ = of_model(unconditioned)
    program = lower(qgraph, Engine(store_rows=programs(unconditioned, 1)[how]))
    verify_program(program)
    for number in range(0, len(program.moves), max(1, len(program.moves) // 12)):
        with pytest.raises(ProgramError):
            verify_program(wrong_moves()[what](program, number))


def test_a_missing_move_is_noticed():
    qgraph, _ = of_model(unconditioned)
    program = lower(qgraph, Engine(store_rows=programs(unconditioned, 1)["strips"]))
    for index, entry in enumerate(program.entries):
        for member in ("moves_once", "moves_before", "moves_after"):
            if not getattr(entry.store, member):
                continue
            entries = list(program.entries)
            fewer = {member: getattr(entry.store, member) - 1}
            entries[index] = replace(entry, store=replace(entry.store, **fewer))
            with pytest.raises(ProgramError):
                verify_program(replace(program, entries=entries))


def residuals_beside_attention(batch, size, heads):
    """Two tensors that are read behind an attention lie in DDR meanwhile."""
    rng = np.random.default_rng(7)
    kit, channels = Kit(rng, batch, size), heads[0] * heads[1]
    kept = [kit.produce(name, channels, "stream") for name in ("first", "second")]
    q, k, v = (kit.produce(name, channels, "operand", heads=heads[0]) for name in "qkv")
    last = kit.attention(q, k, v, heads[0], host=False)
    for number, each in enumerate(kept):
        last = kit.static(f"proj{number}", [last], (channels, "stream", size, 1), residual=each)
    qgraph = kit.finish(last)
    return qgraph, random_inputs(qgraph, rng)


@pytest.mark.csim
def test_joined_products_beside_tensors_in_ddr():
    graph = GraphRun(
        *residuals_beside_attention(2, (13, 16), (4, 40)),
        Engine(ranks=2, scores_rows=600, store_rows=1513),
    )
    assert graph.program.moves
    assert any(entry.parts for entry in graph.program.entries)
    verify_program(graph.program)
    assert graph.first_difference(GenericCard(*ranked(2))) is None


@pytest.mark.csim
def test_kernels_with_moves_pass_their_bench_and_the_linter(tmp_path):
    """store has one more port, which everything that follows from the ports knows."""
    folder = tmp_path / "build"
    _, program = make_build(folder, "residual", replace(SMALL, store_rows=80), size=(16, 16))
    assert staged(program) and program.spill_rows
    assert "spill" in topology(RANKS_OF_BUILD, spill=True).kernel("store").ports
    record(folder, progress=False)
    assert run_bench(folder, "store") == ["store_1: store: PASS", "store_2: store: PASS"]
    vectors = folder / "vitis" / "vectors" / "store_2"
    words = buffer_words(program)["spill"]
    data = bytearray((vectors / "spill.bin").read_bytes())
    assert len(data) == 64 * words and any(data)
    data[0] ^= 1
    (vectors / "spill.bin").write_bytes(data)
    with pytest.raises(UserError, match="spill: 1 of 256 elements differ"):
        run_bench(folder, "store")
    emit(folder, load_board("u250"))
    link = next((folder / "vitis" / "link").glob("hw.*.cfg")).read_text()
    assert "sp=store_4.spill:DDR[3]\n" in link
    assert [str(each) for each in check_paths([folder], folders=[folder / "src"])] == []
