"""Lowering: every layer kind executed from its entries and bytes, and planted faults caught."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from layerkit import KINDS, random_inputs, random_qgraph
from program_emulator import Emulator

from gen import reference
from gen.errors import UserError
from gen.layers import Window
from gen.program import (
    DynamicBuffer,
    Engine,
    extract,
    load_engine,
    load_program,
    lower,
    pack_static,
    save_program,
    structs,
    verify_program,
)
from gen.program.binary import KERNELS, header, program_bytes
from gen.program.check import ProgramError
from gen.program.cost import costs, step_cycles
from gen.program.show import text

ENGINE = Engine()
HEADER = Path(__file__).parent.parent / "hls" / "kernels" / "program.hpp"


def sized(kind, rng):
    """A graph of one kind; strided windows need even sizes here."""
    size = None
    if kind == "stride2_asymmetric":
        size = (2 * int(rng.integers(1, 5)), 2 * int(rng.integers(1, 5)))
    return random_qgraph(kind, rng, batch=int(rng.integers(1, 4)), size=size)


def emulate(qgraph, program, inputs, observe=None):
    dynamic = DynamicBuffer(program)
    dynamic.set_step(inputs.step_bias)
    dynamic.set_prompt(inputs.prompt_q)
    emulator = Emulator(program, pack_static(qgraph, program), dynamic.data)
    return emulator, emulator.step(inputs.latent_q, observe and (lambda *a: observe(emulator, *a)))


@pytest.mark.parametrize("kind", KINDS)
def test_program_computes_its_graph(kind):
    """Every stored tensor after every entry equals the reference, from bytes and entries alone."""
    for seed in range(4):
        rng = np.random.default_rng(1000 * KINDS.index(kind) + seed)
        qgraph = sized(kind, rng)
        program = lower(qgraph, ENGINE)
        verify_program(program)
        inputs = random_inputs(qgraph, rng)
        want = {}
        expected = reference.run(qgraph, *inputs.args(), observe=want.__setitem__)
        compared = set()

        def observe(emulator, entry, i0, i1, program=program, want=want, compared=compared):
            segment = program.segment_of([e.layer for e in program.entries].index(entry.layer))
            tensor = program.tensors[entry.dest]
            stored = emulator.rows[tensor.row : tensor.row + tensor.rows]
            got = extract(program, entry.dest, stored)
            right = want[entry.layer]
            if right.ndim == 4 and right.shape[1:] != got.shape[1:]:  # logits of one item and head
                right = right[i0, i1].T.reshape(got.shape)
            elif (i0, i1) != (segment.n0 - 1, segment.n1 - 1):
                return
            np.testing.assert_array_equal(got, right, err_msg=f"{kind} {entry.layer}")
            compared.add(entry.layer)

        _, result = emulate(qgraph, program, inputs, observe)
        np.testing.assert_array_equal(result, expected)
        assert compared == set(want)


def some_program(kind="self_attention", seed=5, engine=ENGINE):
    qgraph = random_qgraph(kind, np.random.default_rng(seed), size=(6, 5))
    return qgraph, lower(qgraph, engine)


def changed(program, index, kernel, **values):
    entry = program.entries[index]
    part = dataclasses.replace(getattr(entry, kernel), **values)
    entries = list(program.entries)
    entries[index] = dataclasses.replace(entry, **{kernel: part})
    return dataclasses.replace(program, entries=entries)


def index_of(program, layer):
    return [entry.layer for entry in program.entries].index(layer)


def moved(region, rows):
    return dataclasses.replace(
        region, row=dataclasses.replace(region.row, base=region.row.base + rows)
    )


def test_planted_overlap_is_caught():
    _, program = some_program()
    q, k = program.tensors["q.out"], index_of(program, "k")
    dest = program.entries[k].store.dest
    wrong = changed(program, k, "store", dest=moved(dest, q.row - dest.row.base))
    with pytest.raises(ProgramError, match=r"layer qk: reading q\.out .*finds a value of k\.out"):
        verify_program(wrong)


@pytest.mark.parametrize("rows", [-1, 1])
def test_planted_off_by_one_address_is_caught(rows):
    _, program = some_program("concat_groupnorm_silu")
    conv = index_of(program, "conv")
    first, second = program.entries[conv].store.source
    wrong = changed(program, conv, "store", source=(first, moved(second, rows)))
    with pytest.raises(ProgramError, match="layer conv"):
        verify_program(wrong)


def test_planted_stride_and_capacity_faults_are_caught():
    _, program = some_program()
    qk = index_of(program, "qk")
    weights = program.entries[qk].store.weights
    wrong = changed(
        program, qk, "store", weights=dataclasses.replace(weights, px_group=weights.px_group + 1)
    )
    with pytest.raises(ProgramError, match="layer qk"):
        verify_program(wrong)
    small = dataclasses.replace(ENGINE, store_rows=program.store_peak - 8)
    with pytest.raises(ProgramError, match="is addressed"):
        verify_program(dataclasses.replace(program, engine=small))


@pytest.mark.parametrize(
    ("kernel", "change", "stream"),
    [
        ("mac", {"taps": 1}, "ws"),
        ("post", {"planes": 1}, "ys"),
        ("pre", {"fill": 1}, "xs"),
        ("wload", {"pp_words": 2}, "pp"),
        ("wload", {"bias_words": 7}, "qp"),
    ],
)
def test_stream_counts_must_agree(kernel, change, stream):
    qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(4, 4))
    program = lower(qgraph, ENGINE)
    verify_program(program)
    wrong = changed(program, index_of(program, "conv"), kernel, **change)
    with pytest.raises(ProgramError, match=f"elements of {stream} are sent"):
        verify_program(wrong)


def test_prefetching_must_agree():
    qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(4, 4))
    program = lower(qgraph, ENGINE)
    conv = index_of(program, "conv")
    assert program.entries[conv].mac.load_first == 0
    with pytest.raises(ProgramError, match="loaded twice"):
        verify_program(changed(program, conv, "mac", load_first=1))
    with pytest.raises(ProgramError, match="mac prefetches"):
        verify_program(changed(program, conv - 1, "mac", next_rows=1))


def test_too_small_engines_are_refused_by_layer():
    qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(8, 8), channels=136)
    for change, words in (
        ({"window_rows": 8}, "layer conv .* window rows, the engine has 8"),
        ({"weight_rows": 80}, "layer conv .* needs 81 weight rows, the engine has 80"),
        ({"store_rows": 64}, "store rows are needed .* the engine has 64"),
        ({"items": 1}, "a batch of 2"),
    ):
        with pytest.raises(UserError, match=words):
            lower(qgraph, dataclasses.replace(ENGINE, **change))
    attention = random_qgraph("self_attention", np.random.default_rng(1), size=(8, 8))
    with pytest.raises(UserError, match=r"layer pv .* row sums, the engine has 8"):
        lower(attention, dataclasses.replace(ENGINE, sums=8))
    shallow = dataclasses.replace(ENGINE, depths={**ENGINE.depths, "ks": 1})
    with pytest.raises(UserError, match=r"layer qk .* FIFO ks holds 1"):
        lower(attention, shallow)


def test_misaligned_scales_and_odd_windows_are_refused():
    qgraph = random_qgraph("concat_groupnorm_silu", np.random.default_rng(2), size=(4, 4))
    qgraph.layers[-1].read = dataclasses.replace(qgraph.layers[-1].read, align=(0, 8))
    with pytest.raises(UserError, match=r"layer conv: .* 2\^8 apart"):
        lower(qgraph, ENGINE)
    qgraph = random_qgraph("conv3x3", np.random.default_rng(2), size=(4, 4))
    layer = dataclasses.replace(qgraph.layers[-1].layer, window=Window((3, 3)))
    qgraph.layers[-1].layer = layer
    with pytest.raises(UserError, match="layer conv: a 3x3 window with padding"):
        lower(qgraph, ENGINE)


def test_program_file_round_trip(tmp_path):
    for kind in ("self_attention", "cross_attention", "host_bias"):
        _, program = some_program(kind)
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
        (whole.replace('"format": 1', '"format": 99'), "another format"),
        (whole.replace('"next_rows"', '"last_rows"', 1), "incomplete"),
        (whole.replace('"batch"', '"bunch"'), "incomplete"),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match=words):
            load_program(path)


def test_structs_mirror_the_header():
    """Every struct of program.hpp has the same members in the same order here."""
    source = re.sub(r"//[^\n]*", "", HEADER.read_text())
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
    assert {"Segment", "Region", "StoreEntry", "WloadEntry"} <= seen


def test_binary_holds_everything_once():
    _, program = some_program()
    data = np.frombuffer(program_bytes(program), "<i4")
    one = {k: len(list(structs.words(getattr(program.entries[0], k)))) for k in KERNELS}
    count = 8 + 4 * len(program.segments) + len(program.entries) * sum(one.values())
    assert len(data) == count
    assert list(data[:8]) == header(program)
    assert list(data[8:12]) == list(structs.words(program.segments[0]))
    last = list(structs.words(program.entries[-1].wload))
    assert list(data[-len(last) :]) == last
    with pytest.raises(AssertionError):
        list(structs.words(structs.Addr(1 << 31)))


def test_dynamic_buffer_reports_what_changed():
    qgraph, program = some_program("host_bias")
    rng = np.random.default_rng(0)
    dynamic = DynamicBuffer(program)
    before = dynamic.data.copy()
    ranges = dynamic.set_step(random_inputs(qgraph, rng).step_bias)
    touched = np.zeros(len(before), bool)
    for start, size in ranges:
        touched[start : start + size] = True
    assert not (dynamic.data != before)[~touched].any() and (dynamic.data != before).any()
    with pytest.raises(ValueError, match="no biases"):
        dynamic.set_step({"nothing": np.zeros((2, 4), np.int32)})
    with pytest.raises(ValueError, match="expected"):
        dynamic.set_step({dynamic.step_layers[0]: np.zeros((9, 4), np.int32)})
    _, program = some_program("cross_attention")
    dynamic = DynamicBuffer(program)
    assert dynamic.prompt_tensors == ["k", "v"]
    with pytest.raises(ValueError, match="no layer uses"):
        dynamic.set_prompt({"x": np.zeros((2, 4, 4), np.int8)})
    with pytest.raises(ValueError, match="expected int8"):
        dynamic.set_prompt({"k": np.zeros((2, 4, 4), np.int8)})


def test_cost_and_table():
    _, program = some_program("conv3x3")
    table = text(program)
    assert all(entry.layer in table for entry in program.entries) and "* model" in table
    for cost, entry in zip(costs(program), program.entries, strict=True):
        shape = entry.mac.shape
        assert cost.busy == shape.groups * shape.tiles * shape.gates * shape.steps < cost.cycles
    assert step_cycles(program) > sum(cost.total for cost in costs(program))


def test_board_files_name_engines(tmp_path):
    assert load_engine("u250").store_rows == 32768
    with pytest.raises(UserError, match="board moon was not found"):
        load_engine("moon")
    path = tmp_path / "b.toml"
    path.write_text("[engine]\nstore_rows = 64\n[fifo]\nks = 7\n")
    assert load_engine(path) == dataclasses.replace(
        Engine(), store_rows=64, depths={**Engine().depths, "ks": 7}
    )
    path.write_text("[engine]\nstore_lines = 64\n")
    with pytest.raises(UserError, match="unknown key store_lines"):
        load_engine(path)
