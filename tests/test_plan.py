"""The plan: structure without weights, resources, the search and what it says."""

import json
from dataclasses import replace

import pytest
import torch
from layerkit import far_apart
from torch.utils.flop_counter import FlopCounterMode

from gen.__main__ import main
from gen.errors import EngineTooSmall, UserError
from gen.macs import macs_per_step
from gen.model import find_model
from gen.plan import command, fit, kinds
from gen.plan.command import make_plan
from gen.plan.engine_file import engine_toml
from gen.plan.limits import KINDS, load_limits
from gen.plan.report import Plan, as_dict, as_text
from gen.plan.resources import (
    big_memories,
    big_memory,
    dsp_lanes,
    link_wires,
    mac_dsps,
    memory,
    rank_costs,
)
from gen.plan.search import Choice, fits, fitting, place, search, used_resources
from gen.plan.structure import layer_graph, load_structure, skeleton
from gen.program import lower
from gen.program.cost import step_cost
from gen.program.cost_clocks import move_cycles
from gen.program.engine import four_bit_kinds, load_engine
from gen.program.sampler import with_sampler
from gen.program.structs import Addr, Move
from gen.vitis.topology import topology


@pytest.fixture(scope="module")
def cifar():
    return make_plan("ddpm-cifar10-32")


def stable_diffusion_engine():
    """What ``gen plan sd15 --batch 1`` finds (docs/plan.md); the search takes minutes."""
    return replace(
        load_engine("u250"),
        window_rows=4096, weight_rows=2048, cache_rows=0, store_rows=45056, scores_rows=16384,
        stats_words=1536, row_octets=512, row_groups=512, fabric_outputs=2,
    )  # fmt: skip


def test_stable_diffusion_keeps_the_array_busy():
    """64x64 latents, one sample."""
    graph = layer_graph(find_model("sd15"), 1)
    engine = stable_diffusion_engine()
    assert place(engine, load_limits("u250"), [0], [0]) is not None
    program = lower(skeleton(graph), engine)
    units = engine.ranks * engine.pixels * engine.inputs * engine.outputs
    assert macs_per_step(graph) / units / step_cost(program).cycles >= 0.90


def test_macs_agree_with_torch_counter():
    """torch counts two operations per MAC, and the time embedding, which the host computes."""
    model = find_model("ddpm-cifar10-32")
    unet = load_structure(model)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        unet(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    counted = counter.get_total_flops() / 2
    embedding = sum(
        layer.weight.numel()
        for name, layer in unet.named_modules()
        if isinstance(layer, torch.nn.Linear) and "time_emb" in name
    )
    assert macs_per_step(layer_graph(model)) == counted - embedding


def test_every_part_costs_something_and_says_why():
    engine = load_engine("u250")
    for base in (engine, *four_bit_kinds(engine)):
        for cost in rank_costs(replace(base, fabric_outputs=2)):
            assert sum(cost.resources.as_dict().values()) > 0, cost.part
            assert cost.source


@pytest.mark.parametrize(("bits", "lanes"), [(8, 2), (4, 3)])
def test_dsp_lanes_follow_the_packing(bits, lanes):
    # lanes = 1 + floor((27 - W) / (W + A - 1)); two int8 lanes are 18 bits apart
    assert dsp_lanes(bits) == lanes
    assert dsp_lanes(4) == 1 + (27 - 4) // (4 + 8 - 1)
    engine = replace(load_engine("u250"), fabric_outputs=2, weight_bits=bits, stored_bits=bits)
    macs = engine.pixels * engine.inputs * (engine.outputs - 2)
    assert mac_dsps(engine) == macs // lanes


def test_widened_rows_cost_multiplexers_and_half_the_cache():
    """The array stays that of 8-bit weights."""
    engine = replace(load_engine("u250"), cache_rows=8192)
    widened = replace(engine, stored_bits=4)
    assert mac_dsps(widened) == mac_dsps(engine)
    added = sum(e.resources.lut for e in rank_costs(widened))
    added -= sum(e.resources.lut for e in rank_costs(engine))
    assert added == 8 * 16 * 8
    kept = [big_memory(each, "cache", "uram").uram for each in (engine, widened)]
    assert kept == [2 * 15, 2 * 8]


def test_memories_fill_whole_blocks():
    assert memory(4096, 72, "uram").uram == 1
    assert memory(4097, 72, "uram").uram == 2
    assert memory(4096, 73, "uram").uram == 2
    assert memory(513, 72, "bram").bram36 == 2
    assert memory(64, 512, "lutram").lut == 512


def test_shift_registers_of_half_the_depth_share_a_lut():
    """A LUT6 is one of 32 positions or two of 16 (UG574); deeper FIFOs lie in block RAM."""
    engine = load_engine("u250")

    def streams(depth):
        made = replace(engine, depths={**engine.depths, "as": depth})
        return next(cost.resources for cost in rank_costs(made) if cost.part == "streams")

    assert streams(1) == streams(16)
    assert streams(17) == streams(32)
    assert streams(17).lut - streams(16).lut == 2048 // 2
    assert streams(17).ff == streams(16).ff
    assert streams(33).lut == streams(16).lut - 2048 // 2
    assert streams(33).bram36 > streams(32).bram36 == streams(16).bram36


def test_links_cost_nothing_in_one_rank_and_stay_within_the_crossing():
    engine = load_engine("u250")
    assert link_wires(replace(engine, ranks=1)) == 0
    assert link_wires(replace(engine, ranks=4)) <= load_limits("u250").link_wires


def test_engine_of_the_board_file_fits_its_board():
    for board in ("u250", "u55c"):
        limits, own = load_limits(board), load_engine(board)
        for engine in (own, *four_bit_kinds(own)):
            used = used_resources(engine).as_dict()
            assert engine.ranks <= limits.slrs
            for kind in KINDS:
                assert used[kind] <= limits.usable(kind), (board, engine.weight_bits, kind)


def test_placement_respects_every_limit():
    limits, engine = load_limits("u250"), replace(load_engine("u250"), store_rows=8192)
    placed = place(engine, limits, [0, 4096, 8192], [0, 100, 150])
    assert placed is not None
    used = used_resources(placed).as_dict()
    for kind in KINDS:
        assert used[kind] <= limits.usable(kind), kind
    assert placed.cache_rows == 8192


def test_placement_gives_up_cache_before_the_engine():
    limits, engine = load_limits("u250"), replace(load_engine("u250"), store_rows=8192)
    count = sum(big_memory(engine, name, "uram").uram for name in big_memories(engine))
    tight = replace(limits, resources={**limits.resources, "uram": count, "bram36": 400},
                    headroom={**limits.headroom, "uram": 1.0, "bram36": 1.0})  # fmt: skip
    placed = place(engine, tight, [0, 65536], [0, 1000])
    assert placed is not None
    assert placed.cache_rows == 0


def test_nothing_fits_without_uram_and_bram():
    limits = load_limits("u250")
    bare = replace(limits, resources={**limits.resources, "uram": 1, "bram36": 200})
    assert place(load_engine("u250"), bare, [0], [0]) is None


def test_plan_is_within_limits_and_adds_up(cifar):
    data = as_dict(cifar)
    assert data["fits"] and data["source"] == "modelled"
    assert data["mac_units"] >= 14000
    for each in data["resources"].values():
        for kind, value in each.items():
            assert 0 < value["used"] <= value["limit"] < value["available"], kind
    parts = data["breakdown"]
    assert sum(part["cycles"] for part in parts.values()) == pytest.approx(
        data["cycles_per_step"], abs=2
    )
    ideal = data["macs_per_step"] / data["mac_units"]
    assert data["efficiency"] == pytest.approx(ideal / data["cycles_per_step"])
    assert data["ms_per_step"] == pytest.approx(data["cycles_per_step"] / 222e3)
    assert len(data["layers"]) == 10


def test_text_names_what_json_holds(cifar):
    text = as_text(cifar)
    for word in ("modelled", "efficiency", "bound by", "costliest", "crossing"):
        assert word in text


def test_engine_file_is_a_board(cifar, tmp_path):
    path = tmp_path / "engine.toml"
    for engine in (cifar.choice.engine, *four_bit_kinds(cifar.choice.engine)):
        path.write_text(engine_toml(engine, "x", "u250"))
        assert load_engine(path) == engine


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("stored_bits = 5", r"stored_bits = 5 in \[engine\]; 8 or 4 are possible"),
        ("weight_bits = 4\nstored_bits = 8", "stored_bits = 8 .* with weight_bits = 4 only 4 is"),
        ("weight_bits = 2", r"weight_bits = 2 in \[engine\]; 8 or 4 are possible"),
    ],
)
def test_bits_that_no_engine_has(lines, message, tmp_path):
    path = tmp_path / "engine.toml"
    path.write_text(f"[engine]\n{lines}\n")
    with pytest.raises(UserError, match=message):
        load_engine(path)


def test_rows_are_stored_in_the_bits_of_the_array_unless_said(tmp_path):
    path = tmp_path / "engine.toml"
    for bits in (8, 4):
        path.write_text(f"[engine]\nweight_bits = {bits}\n")
        assert load_engine(path).stored_bits == bits


@pytest.fixture(scope="module")
def four_bits():
    return make_plan("models/shapes-ldm", bits="w4a8")


def test_plan_of_four_bit_weights_compares_both_kinds(four_bits):
    """The best engine of either, the faster one first."""
    kinds = as_dict(four_bits)["kinds"]
    assert sorted((each["array_bits"], each["stored_bits"]) for each in kinds) == [(4, 4), (8, 4)]
    assert kinds[0]["cycles_per_step"] == four_bits.choice.cost.cycles
    assert kinds[0]["cycles_per_step"] <= kinds[1]["cycles_per_step"]
    text = as_text(four_bits)
    for choice in (four_bits.choice, *four_bits.others):
        assert f"{choice.cost.cycles:,} cycles, {choice.used.lut:,} LUT" in text


def test_of_equally_fast_kinds_the_one_that_needs_less(four_bits, monkeypatch):
    choices = [four_bits.choice, *four_bits.others]
    level = [replace(each, cost=replace(each.cost, cycles=1000)) for each in choices]
    level.sort(key=lambda each: -each.used.dsp)
    bases = four_bit_kinds(load_engine("u250"))
    for order in (level, level[::-1]):
        made = iter(order)
        monkeypatch.setattr(kinds, "search", lambda *_, made=made: next(made))
        best, _ = kinds.search_kinds(None, bases, four_bits.limits, 1)
        assert best.engine.weight_bits == 4


def test_a_kind_that_does_not_fit_is_left_out(four_bits, monkeypatch):
    def only_narrow(qgraph, base, *_):
        if base.weight_bits == 8:
            raise EngineTooSmall("no room")
        return four_bits.choice

    monkeypatch.setattr(kinds, "search", only_narrow)
    bases = four_bit_kinds(load_engine("u250"))
    assert kinds.search_kinds(None, bases, four_bits.limits, 1) == (four_bits.choice,)
    with pytest.raises(EngineTooSmall, match="no room"):
        kinds.search_kinds(None, bases[:1], four_bits.limits, 1)


def test_stable_diffusion_of_four_bit_weights_is_not_slower():
    """On the engine above with rows that are widened; the narrow array is slower by a sixth."""
    graph = layer_graph(find_model("sd15"), 1)
    engine = stable_diffusion_engine()
    qgraph = skeleton(graph, 4)
    cycles = [step_cost(lower(qgraph, kind)).cycles for kind in four_bit_kinds(engine)]
    wide = step_cost(lower(skeleton(graph), engine)).cycles
    assert place(four_bit_kinds(engine)[0], load_limits("u250"), [0], [0]) is not None
    assert cycles[0] <= wide < 0.9 * cycles[1]


def test_json_of_the_command(tmp_path, capsys):
    out = tmp_path / "deep" / "plan.json"
    status = main(["plan", "models/shapes-ldm", "--json", "--out", str(out)])
    assert status == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["cycles_per_step"] == json.loads(out.read_text())["cycles_per_step"]


def test_faster_clock_is_faster_in_time_only(cifar):
    assert as_dict(cifar)["levers"]["clock 300 MHz"] == pytest.approx(
        as_dict(cifar)["ms_per_step"] * 222 / 300
    )


def test_unknown_board_and_cards():
    with pytest.raises(UserError, match="u250"):
        make_plan("ddpm-cifar10-32", board="u999")
    with pytest.raises(UserError, match="at least one"):
        make_plan("ddpm-cifar10-32", cards=0)


def test_build_plans_where_the_boards_engine_is_too_small(tmp_path, monkeypatch):
    qgraph = skeleton(layer_graph(find_model("models/shapes-ldm")))
    program, planned = fit.fitted(qgraph, "u250")
    assert not planned and program.engine == load_engine("u250")
    small = replace(load_engine("u250"), store_rows=256)
    four, _ = fit.fitted(skeleton(qgraph.graph, 4), "u250")
    assert four.engine in four_bit_kinds(load_engine("u250"))
    kinds_of = four_bit_kinds(load_engine("u250"))
    cycles = [step_cost(lower(skeleton(qgraph.graph, 4), kind)).cycles for kind in kinds_of]
    assert step_cost(four).cycles == min(cycles)
    # the faster kind and a sampler may exceed the board together
    fastest = with_sampler(replace(four.engine, stored_bits=4), qgraph.graph)
    alone, both = (used_resources(each).lut for each in (four.engine, fastest))
    assert four.engine.weight_bits == 8 and alone < both
    sampler, _ = fit.fitted(skeleton(qgraph.graph, 4), "u250", sampler=True)
    assert sampler.engine.sampler_pixels and fits(sampler.engine, load_limits("u250"))
    limits = load_limits("u250")
    headroom = {**limits.headroom, "lut": (alone + both) / 2 / limits.resources["lut"]}
    tight = replace(limits, headroom=headroom)
    assert fits(four.engine, tight) and not fits(fastest, tight)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "load_limits", lambda board: tight)
        sampler, _ = fit.fitted(skeleton(qgraph.graph, 4), "u250", sampler=True)
    assert sampler.engine.sampler_pixels and fits(sampler.engine, tight)
    monkeypatch.setattr(fit, "load_engine", lambda board: small)
    program, planned = fit.fitted(qgraph, "u250")
    assert planned and program.engine.store_rows >= program.store_peak > 256
    with pytest.raises(UserError, match="store"):
        fit.fitted(qgraph, str(tmp_path / "engine.toml"))
    with pytest.raises(UserError, match=r"engine\.toml is an engine without a sampler"):
        fit.fitted(qgraph, str(tmp_path / "engine.toml"), sampler=True)


def test_a_layer_that_no_engine_runs_is_refused_at_once(monkeypatch):
    """Without a search for an engine or for a smaller image."""
    qgraph = far_apart(skeleton(layer_graph(find_model("models/shapes-ldm"))))
    limits, base = load_limits("u250"), load_engine("u250")
    with pytest.raises(UserError, match=r"^layer conv_out: .* 2\^8 apart") as caught:
        search(qgraph, base, limits, 1)
    assert not isinstance(caught.value, EngineTooSmall)

    def unwanted(*_, **__):
        raise AssertionError("searched")

    with monkeypatch.context() as patch:
        patch.setattr(fit, "search_kinds", unwanted)
        with pytest.raises(UserError, match=r"^layer conv_out: .* 2\^8 apart"):
            fit.fitted(qgraph, "u250")
        # another engine has more room
        patch.setattr(fit, "load_engine", lambda board: replace(base, window_rows=1))
        with pytest.raises(AssertionError, match="searched"):
            fit.fitted(qgraph, "u250")
    monkeypatch.setattr(command, "_smaller", unwanted)
    monkeypatch.setattr(command, "skeleton", lambda *_: qgraph)
    with pytest.raises(UserError, match=r"^layer conv_out: .* 2\^8 apart"):
        make_plan("models/shapes-ldm")


def test_moves_take_longer_at_a_faster_clock():
    """The memory keeps its speed in GB/s, for reads and writes."""
    for put in (0, 1):
        move = Move(put, 4096, 1, 0, 0, Addr(0), Addr(0))
        slow, fast = (move_cycles(move, 64 * mhz / 13000) for mhz in (250, 300))
        assert fast == pytest.approx(1.2 * slow, rel=0.02)


def test_a_store_that_cannot_hold_everything_is_as_large_as_fits():
    qgraph = skeleton(layer_graph(find_model("models/shapes-ldm"), 1, 64, 64))
    limits = load_limits("u250")
    tight = replace(limits, resources={**limits.resources, "uram": 130})
    shape = replace(
        load_engine("u250"), store_rows=1 << 24, row_octets=1 << 24, scores_rows=4096, cache_rows=0
    )
    largest = lower(qgraph, shape)
    roomy = fitting(qgraph, shape, largest, limits)
    assert not roomy.moves and roomy.engine.store_rows >= largest.store_peak
    program = fitting(qgraph, shape, largest, tight)
    assert program.moves and program.engine.store_rows < largest.store_peak
    used = used_resources(program.engine)
    assert used.uram <= tight.usable("uram")
    larger = replace(program.engine, store_rows=program.engine.store_rows + 4096)
    assert place(larger, tight, [0], [0]) is None
    cost = step_cost(program)
    assert step_cost(roomy).cycles < cost.cycles - cost.moves * 0.9
    choice = Choice(program.engine, program, cost, used)
    plan = Plan("x", qgraph.graph, choice, tight, 222.0, 1, 0.0)
    data = as_dict(plan)
    assert data["spilled"]["cycles"] == data["breakdown"]["moves"]["cycles"] == cost.moves > 0
    assert data["spilled"]["tensors"] == len(program.spilled)
    assert data["spilled"]["ddr_rows"] == program.spill_rows > 0
    assert f"{cost.moves:,} cycles" in as_text(plan)
    parts = sum(part["cycles"] for part in data["breakdown"].values())
    assert parts == pytest.approx(cost.cycles, abs=2)
    with pytest.raises(UserError, match="store rows at once"):
        fitting(qgraph, shape, largest, replace(tight, resources={**tight.resources, "uram": 112}))


@pytest.mark.parametrize("sampler", [False, True])
def test_advice_is_about_what_was_asked_for(monkeypatch, sampler):
    """The request that would fit keeps the prompt's length and the sampler."""
    asked = []

    def search(qgraph, bases, *_):
        graph = qgraph.graph
        asked.append((graph.batch, graph.tensors[graph.input].height))
        assert all(bool(base.sampler_pixels) == sampler for base in bases)
        assert any(tensor.shape[1] == 154 for tensor in graph.host_tensors.values())
        raise EngineTooSmall("no room")

    monkeypatch.setattr(command, "search_kinds", search)
    with pytest.raises(EngineTooSmall, match="No smaller latent of this model fits either"):
        make_plan("models/shapes-ldm", tokens=154, sampler=sampler)
    assert asked == [(2, 16), (1, 16), (1, 8)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_wires_between_slrs_are_those_of_the_link(ranks):
    """The plan counts what the link configuration has."""
    design = topology(ranks, 8)
    wires = {design.crossing_wires(rank) for rank in range(ranks - 1)} or {0}
    assert wires == {link_wires(replace(load_engine("u250"), ranks=ranks))}
