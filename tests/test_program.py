"""Lowering: every layer kind executed from its entries and bytes, on one, two and four ranks."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from layerkit import KINDS, narrowed, prompted, random_inputs, random_qgraph, shortened
from program_emulator import Emulator

from gen import reference
from gen.errors import UserError
from gen.layers import Window
from gen.program import (
    DynamicBuffer,
    Engine,
    load_engine,
    load_program,
    lower,
    pack_static,
    save_program,
    structs,
    verify_program,
)
from gen.program.binary import KERNELS, header, program_bytes
from gen.program.cost import step_cost
from gen.program.parts import reference_part, stored_like, stored_part, written_rows
from gen.program.products import products
from gen.program.program_io import FORMAT
from gen.program.show import text
from gen.qlayers import Affine

HEADERS = Path(__file__).parent.parent / "hls" / "kernels"
# buffers so small that layers are cut into strips and rounds, and few outstanding writes
TIGHT = {
    "window_rows": 40,
    "weight_rows": 100,
    "units": 2,
    "scores_rows": 150,
    "sums": 64,
    "lag": 4,
    "scales": 8,
}


def drawn(kind, seed, size=None):
    """A graph of one kind; strided windows need even sizes."""
    rng = np.random.default_rng(1000 * KINDS.index(kind) + seed)
    size = size or (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    if kind.startswith("stride2"):
        size = (2 * -(-size[0] // 2), 2 * -(-size[1] // 2))
    qgraph = random_qgraph(kind, rng, batch=int(rng.integers(1, 4)), size=size)
    return qgraph, random_inputs(qgraph, rng)


def emulate(qgraph, program, inputs, observe=None, static=None):
    dynamic = DynamicBuffer(program, qgraph)
    dynamic.set_step(inputs.step_bias)
    dynamic.set_affine(inputs.step_affine)
    dynamic.set_prompt(inputs.prompt_q)
    static = pack_static(qgraph, program) if static is None else static
    emulator = Emulator(program, static, dynamic.data)
    return emulator.step(inputs.latent_q, observe)


def compared(qgraph, program, inputs, static=None):
    """Run a program; every execution of every entry must store what the reference says."""
    want, seen = {}, set()
    expected = reference.run(
        qgraph, *inputs.args(), observe=want.__setitem__, step_affine=inputs.step_affine
    )

    def observe(emulator, index, i0, i1):
        for entry in products(program.entries[index]):
            right = reference_part(program, entry, i0, i1, want[entry.layer])
            rows = emulator.read(*written_rows(entry, i0, i1))
            got = stored_like(stored_part(program, entry, rows), right)
            where = f"{entry.layer} {entry.strip} {i0} {i1}"
            np.testing.assert_array_equal(got, right, err_msg=where)
            seen.add(entry.layer)

    got = emulate(qgraph, program, inputs, observe, static)
    np.testing.assert_array_equal(got, expected)
    assert seen == set(want)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_program_computes_its_graph(kind, ranks):
    for seed in range(3):
        qgraph, inputs = drawn(kind, seed)
        program = lower(qgraph, Engine(ranks=ranks))
        verify_program(program)
        compared(qgraph, program, inputs)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_four_bits(kind, bits, ranks):
    """Weights of 4 bits in one word per step, those of 8 bits in two, in an array of either."""
    qgraph, inputs = drawn(kind, 5)
    qgraph = narrowed(qgraph, ranks % 3)
    program = lower(qgraph, Engine(ranks=ranks, weight_bits=bits, stored_bits=4))
    verify_program(program)
    compared(qgraph, program, inputs)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_tight_buffers_cut_layers(kind, ranks):
    """Strips of output slots, items one by one, rounds of few units."""
    qgraph, inputs = drawn(kind, 17, size=(12, 9))
    program = lower(qgraph, Engine(ranks=ranks, **TIGHT))
    verify_program(program)
    compared(qgraph, program, inputs)


def test_tight_buffers_do_cut():
    strips, rounds, items = 0, 0, 0
    for kind in KINDS:
        program = lower(drawn(kind, 17, size=(12, 9))[0], Engine(ranks=2, **TIGHT))
        strips += sum(entry.strip > 0 for entry in program.entries)
        rounds += sum(e.mac.shape.per_round < e.mac.shape.units for e in program.entries)
        items += sum(segment.n0 > 1 and segment.n1 == 1 for segment in program.segments)
    assert min(strips, rounds, items) > 3


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_logits_of_one_pair_at_a_time(kind, ranks):
    """A store that holds the logits of one item and head for a strip of queries."""
    qgraph, inputs = drawn(kind, 3, size=(12, 9))
    groups = -(-qgraph.graph.tensors["scores"].channels // (8 * ranks))
    program = lower(qgraph, Engine(ranks=ranks, scores_rows=5 * groups))
    verify_program(program)
    assert program.tensors["scores"].copies == 1
    products = [entry.layer for entry in program.entries if entry.layer in ("qk", "pv")]
    assert products == ["qk", "pv"] * (len(products) // 2)
    assert max(entry.strip for entry in program.entries) == 3
    compared(qgraph, program, inputs)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_prompts_of_every_length(ranks):
    """Up to the built one; a prompt may end within a group, at its end, or on another rank."""
    qgraph, inputs = prompted(np.random.default_rng(6), tokens=37)
    program = lower(qgraph, Engine(ranks=ranks))
    for tokens in (1, 7, 8, 9, 31, 32, 33, 36):
        compared(qgraph, program, shortened(inputs, tokens))


# (heads, channels): groups of a head that begin on every rank in turn, on every other one, on one;
# heads that are left over when all of these have had their turn; groups that are not full
HEADS = [(8, 40), (6, 80), (5, 8), (7, 24), (3, 32), (5, 20), (9, 40)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_heads_that_begin_at_any_rank(kind, heads, ranks):
    rng = np.random.default_rng(heads)
    qgraph = random_qgraph(kind, rng, batch=2, size=(5, 7), heads=heads)
    inputs = random_inputs(qgraph, rng)
    # all logits at once; those of one head, for a tile of queries
    tile = 4 * -(-qgraph.graph.tensors["scores"].channels // (8 * ranks))
    for scores, lag in ((0, 32), (tile, 4)):
        program = lower(qgraph, Engine(ranks=ranks, scores_rows=scores, lag=lag))
        verify_program(program)
        assert program.tensors["attended"].groups == -(-heads[1] // 8) * heads[0]
        compared(qgraph, program, inputs)


def test_store_of_a_group_that_is_not_the_head_s_is_noticed():
    """The words that a rank computes for a neighbour's group must not be written."""
    rng = np.random.default_rng(3)
    qgraph = random_qgraph("self_attention", rng, batch=1, size=(5, 7), heads=(4, 40))
    inputs = random_inputs(qgraph, rng)
    program = lower(qgraph, Engine(ranks=4))
    compared(qgraph, program, inputs)
    second = next(e for e in program.entries if e.layer == "pv" and e.heads.first == 1)
    static = np.frombuffer(pack_static(qgraph, program), np.uint8).reshape(4, -1, 64).copy()
    scale = static[0, second.wload.scale.base].view("<i4")
    assert scale[8] & 0x200, "rank 0 has no channel of the second head's first local group"
    scale[8:] &= 0xFF
    with pytest.raises(AssertionError):
        compared(qgraph, program, inputs, static)


@pytest.mark.parametrize("ranks", [1, 4])
def test_norms_that_change_per_step(ranks):
    """Gamma and beta come from the dynamic buffer, item by item, on every rank."""
    qgraph = random_qgraph("host_affine", np.random.default_rng(1), batch=3, size=(5, 6))
    inputs = random_inputs(qgraph, np.random.default_rng(2))
    program = lower(qgraph, Engine(ranks=ranks))
    (place,), (layer,) = program.step_affines, inputs.step_affine
    assert program.segment_of(program.entries_of(layer)[0]).n0 == 3
    dynamic, affine = DynamicBuffer(program, qgraph), inputs.step_affine[layer]
    assert dynamic.affine_layers == [layer]
    assert dynamic.set_affine(inputs.step_affine) == [(64 * place.word, 64 * place.words)]
    with pytest.raises(ValueError, match="no norm that changes"):
        dynamic.set_affine({"x": affine})
    with pytest.raises(ValueError, match="expected"):
        dynamic.set_affine({layer: Affine(affine.gamma[:, 1:], affine.beta)})


def some_program(kind="self_attention", seed=5, **engine):
    qgraph = random_qgraph(kind, np.random.default_rng(seed), size=(6, 5))
    return qgraph, lower(qgraph, Engine(**engine))


def test_too_small_engines_are_refused_by_layer():
    qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(8, 8), channels=136)
    for change, words in (
        ({"window_rows": 8}, r"layer conv .* window rows, the engine has 8; .*window_rows >= 18"),
        ({"weight_rows": 80}, "layer conv .* needs 81 weight rows, the engine has 80"),
        ({"store_rows": 64}, r"layer x: .* needs 76 store rows .* 64 of the .*store_rows >= 76"),
        ({"row_groups": 16}, "layer conv .* needs 17 local groups of a pixel"),
        ({"items": 1}, "needs 2 batch items"),
        ({"depths": {**Engine().depths, "pp": 16}}, "the FIFO pp holds 16"),
    ):
        with pytest.raises(UserError, match=words):
            lower(qgraph, Engine(**change))
    norm = random_qgraph("concat_groupnorm_silu", np.random.default_rng(4), size=(4, 4))
    with pytest.raises(UserError, match=r"words of sums are needed .* stats_words"):
        lower(norm, Engine(stats_words=4))
    attention = random_qgraph("self_attention", np.random.default_rng(1), size=(8, 8))
    for change in (
        {"sums": 8, "units": 1},
        {"row_octets": 2},
        {"scores_rows": 8},
        {"window_rows": 1},
    ):
        with pytest.raises(UserError, match=rf"layer qk: the logits .*\({next(iter(change))}\)"):
            lower(attention, Engine(**change))


def test_misaligned_scales_and_odd_windows_are_refused():
    qgraph = random_qgraph("concat_groupnorm_silu", np.random.default_rng(2), size=(4, 4))
    qgraph.layers[-1].read = dataclasses.replace(qgraph.layers[-1].read, align=(0, 8))
    with pytest.raises(UserError, match=r"layer conv: .* 2\^8 apart"):
        lower(qgraph, Engine())
    for window, words in (
        (Window((3, 3)), "layer conv: a 3x3 window with padding"),
        (Window((3, 3), 3, (1, 1, 1, 1)), "layer conv: stride 3"),
        (Window((5, 5), 1, (2, 2, 2, 2)), "layer conv: a 5x5 window has more than 9 taps"),
    ):
        qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(4, 4))
        qgraph.layers[-1].layer = dataclasses.replace(qgraph.layers[-1].layer, window=window)
        with pytest.raises(UserError, match=words):
            lower(qgraph, Engine())


def test_weights_of_few_tiles_stay_on_the_card():
    qgraph = random_qgraph("stride2", np.random.default_rng(3), size=(16, 16), channels=64)
    everything = lower(qgraph, Engine(cache_rows=10_000))
    assert everything.cache_used == everything.static_rows > 0
    small = lower(qgraph, Engine(cache_rows=everything.static_rows - 1))
    kept = [entry.wload.cache >= 0 for entry in small.entries]
    tiles = [entry.mac.shape.octets for entry in small.entries]
    assert kept[tiles.index(min(tiles))] and not all(kept)
    assert all(e.wload.cache == -1 for e in lower(qgraph, Engine()).entries)


def test_program_file_round_trip(tmp_path):
    for kind in ("self_attention", "cross_attention", "host_bias"):
        _, program = some_program(kind, ranks=2)
        path = tmp_path / f"{kind}.json"
        save_program(program, path)
        assert load_program(path) == program


def test_damaged_program_files_are_refused(tmp_path):
    _, program = some_program()
    path = tmp_path / "program.json"
    with pytest.raises(UserError, match="cannot be read"):
        load_program(path)
    save_program(program, path)
    whole = path.read_text()
    for damaged, words in (
        (whole[:1000], "is not JSON"),
        (whole.replace(f'"format": {FORMAT}', '"format": 99'), "another format"),
        (whole.replace('"first_rows"', '"last_rows"', 1), "incomplete"),
        (whole.replace('"batch"', '"bunch"'), "incomplete"),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match=words):
            load_program(path)


def test_structs_mirror_the_header():
    """Every struct of program.hpp has the same members in the same order here."""
    source = re.sub(r"//[^\n]*", "", (HEADERS / "program.hpp").read_text())
    seen = set()
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", source, re.DOTALL):
        members = []
        for kind, names in re.findall(r"(\w+)\s+([^;]+);", body):
            for each in names.split(","):
                found = re.match(r"\s*(\w+)(?:\[(\w+)\])?", each)
                members.append((kind, found[1], found[2]))
        mirror = dataclasses.fields(getattr(structs, name))
        assert [m[1] for m in members] == [f.name for f in mirror], name
        for (kind, _, length), member in zip(members, mirror, strict=True):
            assert member.metadata.get("length") == (length and getattr(structs, length))
            plain = str(member.type).replace("tuple[", "").replace(", ...]", "")
            assert plain == ("int" if kind == "int32_t" else kind), (name, member.name)
        seen.add(name)
    assert {"Segment", "Region", "StoreEntry", "GatherEntry", "ReduceEntry", "WloadEntry"} <= seen
    for enum, prefix in (("Ring", "RING_"), ("Stats", "STATS_"), ("Buffer", "BUFFER_")):
        body = re.search(rf"enum {enum} \{{(.*?)\}};", source, re.DOTALL)[1]
        for member, value in re.findall(r"(\w+)\s*=\s*(\d+)", body):
            assert member.startswith(prefix) and getattr(structs, member) == int(value)
    norms = re.findall(r"NORM_(\w+)\s*=\s*(\d+)", source)
    assert {name.lower(): int(value) for name, value in norms} == structs.NORM


def test_engine_defaults_are_those_of_the_kernels():
    source = (HEADERS / "params.hpp").read_text()
    constants = {
        name: int(value) for name, value in re.findall(r"static const int (\w+) = (\d+);", source)
    }
    engine = Engine()
    for name, depth in engine.depths.items():
        assert constants[f"DEPTH_{name.upper()}"] == depth, name
    for name, stages in engine.timing.stages.items():
        assert constants[f"STAGES_{name.upper()}"] == stages, name
    short = {"pixels": "PP", "inputs": "PI", "outputs": "PO"}
    for member in dataclasses.fields(Engine):
        if member.type == "int" and member.name != "scores_rows":
            constant = short.get(member.name, member.name.upper())
            assert constants[constant] == getattr(engine, member.name), member.name


def test_binary_holds_everything_once():
    _, program = some_program()
    data = np.frombuffer(program_bytes(program), "<i4")
    one = {k: len(list(structs.words(getattr(program.entries[0], k)))) for k in KERNELS}
    count = 15 + 4 * len(program.segments) + len(program.entries) * sum(one.values())
    assert len(data) == count
    assert list(data[:15]) == header(program)
    assert list(data[15:19]) == list(structs.words(program.segments[0]))
    last = list(structs.words(program.entries[-1].wload))
    assert list(data[-len(last) :]) == last
    with pytest.raises(AssertionError):
        list(structs.words(structs.Addr(1 << 31)))


def test_dynamic_buffer_reports_what_changed():
    qgraph, program = some_program("host_bias", ranks=2)
    rng = np.random.default_rng(0)
    dynamic = DynamicBuffer(program, qgraph)
    before = dynamic.data.copy()
    ranges = dynamic.set_step(random_inputs(qgraph, rng).step_bias)
    touched = np.zeros(before.shape[1], bool)
    for start, size in ranges:
        touched[start : start + size] = True
    changed = dynamic.data != before
    assert not changed[:, ~touched].any() and changed.any(axis=1).all()
    with pytest.raises(ValueError, match="no biases"):
        dynamic.set_step({"nothing": np.zeros((2, 4), np.int32)})
    with pytest.raises(ValueError, match="expected"):
        dynamic.set_step({dynamic.step_layers[0]: np.zeros((9, 4), np.int32)})
    qgraph, program = some_program("cross_attention")
    dynamic = DynamicBuffer(program, qgraph)
    assert dynamic.prompt_tensors == ["k", "v"]
    with pytest.raises(ValueError, match="no layer uses"):
        dynamic.set_prompt({"x": np.zeros((2, 4, 4), np.int8)})
    _, tokens, channels = qgraph.graph.host_tensors["k"].shape
    assert dynamic.set_prompt({"k": np.zeros((2, 1, channels), np.int8)})
    for wrong in (
        np.zeros((2, 4, channels - 1), np.int8),
        np.zeros((2, 0, channels), np.int8),
        np.zeros((2, tokens + 1, channels), np.int8),
        np.zeros((1, tokens, channels), np.int8),
        np.zeros((2, tokens, channels), np.int16),
        np.zeros(3, np.int8),
    ):
        with pytest.raises(ValueError, match=rf"expected int8 \(2, 1 to {tokens}, {channels}\)"):
            dynamic.set_prompt({"k": wrong})


def test_table_names_layers_and_cost():
    _, program = some_program("conv3x3")
    table = text(program)
    assert all(entry.layer in table for entry in program.entries)
    assert f"* model: {step_cost(program).cycles} cycles" in table


def test_board_files_name_engines(tmp_path):
    engine = load_engine("u250")
    assert engine.ranks == 4 and engine.cache_rows > 0
    with pytest.raises(UserError, match="board moon was not found"):
        load_engine("moon")
    path = tmp_path / "b.toml"
    path.write_text("[engine]\nstore_rows = 64\n[fifo]\nks = 7\n[timing.stages]\nmac = 12\n")
    assert load_engine(path) == dataclasses.replace(
        Engine(),
        store_rows=64,
        depths={**Engine().depths, "ks": 7},
        timing=dataclasses.replace(Engine().timing, stages={**Engine().timing.stages, "mac": 12}),
    )
    for wrong, words in (
        ("[engine]\nstore_lines = 64\n", r"unknown key store_lines in \[engine\]"),
        ("[engine]\nstore_rows = -5\n", r"store_rows = -5 in \[engine\]; a whole number of"),
        ("[engine]\nstore_rows = 'a'\n", r"store_rows = 'a' in \[engine\]"),
        ("[engine]\nstore_rows = 10.5\n", r"store_rows = 10.5 in \[engine\]"),
        ("[engine]\nranks = true\n", r"ranks = True in \[engine\]"),
        ("[fifo]\nxs = 0\n", r"xs = 0 in \[fifo\]; a whole number of at least 1"),
        ("[timing.stages]\nmac = -8\n", r"mac = -8 in \[timing.stages\]"),
        ("[clock]\ntarget_mhz = 0\n", r"target_mhz = 0 in \[clock\]"),
        ("[clock]\ntarget_mhz = 'fast'\n", r"target_mhz = 'fast' in \[clock\]"),
        ("engine = 3\n", r"engine is no table"),
        ("[engine]\nmemories = 3\n", r"engine.memories is no table"),
        ("[timing.stages]\nmul = 64\n", r"unknown key mul in \[timing.stages\]"),
        ("[engine]\nranks = 3\n", "ranks = 3 .* 1, 2 or 4 are possible"),
        ("[engine]\npixels = 24\n", "pixels = 24 .* possible: 32, 64, 128"),
        ("[engine]\nnormalisers = 0\n", "normalisers = 0 .* possible: 1, 2, 4, 8"),
        ("[engine]\nfabric_outputs = 9\n", "fabric_outputs = 9 .* possible: 0 to 8"),
        ("[engine]\nguard = 0\n", "guard = 0 .* a number from 1 to"),
        ("[engine]\nstore_rows = 99999999999\n", "store_rows = 99999999999 .* from 1 to"),
        ("[engine]\nunits = 65\n", "units = 65 .* 1 to 64 are possible"),
        ("[engine]\njoined_units = 256\n", "joined_units = 256 .* possible: 2 to 255"),
        ("[engine]\njoined_units = 161\n", r"qp = 320 in \[fifo\]; at least 322 .* joined_units"),
        ("[engine]\nitems = 9\n", r"qp = 320 in \[fifo\]; at least 384 .* units and items"),
        ("[engine]\nlag = 48\n", r"ys = 192 in \[fifo\]; at least 196 .* lag and pixels"),
        ("[fifo]\nrs = 131\n", r"rs = 131 in \[fifo\]; at least 132 .* lag and pixels"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=words):
            load_engine(path)


# ranks, (heads, channels of one), size, batch, other parameters of the engine
JOINED = (
    (1, (3, 40), (16, 16), 2, {}),
    (1, (1, 24), (14, 15), 3, {}),
    (2, (2, 16), (16, 15), 2, {"weight_bits": 4}),
    (2, (2, 48), (20, 16), 1, {}),
    (2, (2, 16), (24, 20), 2, {"scores_rows": 500, "lag": 16}),
    (4, (2, 32), (16, 16), 2, {}),
    # heads that begin at every rank, at every other one, and behind a sub of the one in front
    (4, (6, 40), (16, 16), 2, {}),
    (4, (7, 24), (16, 16), 1, {}),
    (4, (3, 16), (20, 16), 3, {"weight_bits": 4}),
    (4, (9, 40), (32, 24), 1, {"scores_rows": 1000}),
    (2, (3, 40), (16, 16), 2, {"lag": 20}),
)


@pytest.mark.parametrize(("ranks", "heads", "size", "batch", "members"), JOINED)
def test_joined_products(ranks, heads, size, batch, members):
    """The product with V of a pair beside that with K of the next one, of an item and of two."""
    rng = np.random.default_rng(1)
    qgraph = random_qgraph("self_attention", rng, batch=batch, size=size, heads=heads)
    program = lower(qgraph, Engine(ranks=ranks, **members))
    joined = [entry for entry in program.entries if entry.parts]
    assert joined
    shapes = [entry.mac.shape for entry in joined]
    assert all(shape.pv_every == shape.units // shape.pv_units for shape in shapes)
    verify_program(program)
    compared(qgraph, program, random_inputs(qgraph, rng))
