"""Test benches of the kernels: they pass under g++, and they notice faults."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from bench_builds import ENGINE, KERNELS, QUICK, SMALL, make_build

from gen.errors import UserError
from gen.hlslint.check import check_paths, gather
from gen.program.sampler import buffer_words
from gen.vitis.bench import (
    _compare,
    bench_units,
    build_first_layers,
    first_layers,
    record,
    unit_cycles,
)
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench
from gen.vitis.topology import topology


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A build with normalisation, attention and host values, and its vectors."""
    folder = tmp_path_factory.mktemp("bench") / "build"
    qgraph, program = make_build(folder, "cross_attention")
    record(folder, progress=False)
    return folder, qgraph, program


@pytest.mark.csim
def test_vectors_are_complete_and_agree(recorded):
    folder, _, program = recorded
    vectors = folder / "vitis" / "vectors"
    units = {u.name: u for k in ENGINE.kernels for u in bench_units(ENGINE, k)}
    assert {"store_1", "store_2", "gather_4"} <= set(units) and "store_3" not in units
    for unit in units.values():
        found = {path.stem for path in (vectors / unit.name).glob("*.bin")}
        assert found == set(unit.kernel.ports)
    for each in ENGINE.connections:
        ends = (each.source, each.output), (each.sink, each.input)
        files = [vectors / u.name / f"{port.name}.bin" for u, port in ends if u.name in units]
        sent = {path.read_bytes() for path in files}
        assert len(sent) <= 1
        for data in sent:
            assert len(data) % (each.output.bits // 8) == 0
            # nothing is added, and keys and values come from the host
            assert bool(data) == (each.output.stream not in ("rs", "ks"))
    for name, words in buffer_words(program).items():
        paths = list(vectors.rglob(f"{name}.bin"))
        assert len(paths) == 2  # of two ranks
        assert [path.stat().st_size for path in paths] == [64 * words] * 2
    weights = [(vectors / f"wload_{n}" / "weights.bin").read_bytes() for n in (1, 2)]
    assert weights[0] != weights[1]


@pytest.mark.csim
def test_cycles_of_every_unit_are_kept(recorded):
    folder, _, _ = recorded
    cycles = json.loads((folder / "vitis" / "vectors" / "cycles.json").read_text())
    assert set(cycles) == {unit.name for unit in ENGINE.units}
    assert all(value > 0 for value in cycles.values())


def test_cycles_leave_out_what_a_unit_waits_for():
    processes = [
        {"name": f"{process}_1", "cycles": 100, "starved": starved, "blocked": 7}
        for process, starved in (("pre.norm", 60), ("pre.apply", 20))
    ] + [
        {"name": f"{unit.name}", "cycles": 50, "starved": 0, "blocked": 0}
        for unit in topology(1).units
        if unit.name != "pre_1"
    ]
    found = unit_cycles(topology(1), {"processes": processes})
    assert found["pre_1"] == 73
    assert found["mac_1"] == 50


@pytest.mark.csim
def test_generated_kernels_benches_and_configurations_are_clean(recorded):
    folder, _, _ = recorded
    emit(folder, load_board("u250"))
    sources, configs = gather([folder])
    names = {path.name for path in sources}
    assert names == {f"{name}{end}" for name in KERNELS for end in (".cpp", "_tb.cpp")}
    assert configs
    found = check_paths([folder], folders=[folder / "src"])
    assert [str(each) for each in found] == []


@pytest.mark.csim
def test_bench_passes_and_notices_faults(recorded, tmp_path):
    """wload's bench: a wrong expected word, a missing one, and one too many are all failures."""
    folder, _, _ = recorded
    assert run_bench(folder, "wload") == ["wload_1: wload: PASS", "wload_2: wload: PASS"]
    good = folder / "vitis" / "vectors" / "wload_1"

    def damaged(change, file="ws_s.bin"):
        vectors = tmp_path / "wload"
        vectors.mkdir(exist_ok=True)
        for path in good.iterdir():
            data = path.read_bytes()
            (vectors / path.name).write_bytes(change(data) if path.name == file else data)
        return vectors

    for change, message in (
        (lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:], "1 of .* elements differ"),
        (lambda data: data[:-128], "ws_s has 1 elements left"),
        (lambda data: data + bytes(128), "ws_s ends after"),
        (lambda data: data[:-1], "ends within an element"),
    ):
        with pytest.raises(UserError, match=message):
            run_bench(folder, "wload", damaged(change))
    with pytest.raises(UserError, match="reload has 2 values, not 1"):
        run_bench(folder, "wload", damaged(lambda data: data * 2, "reload.bin"))


@pytest.mark.csim
def test_bench_of_a_middle_rank_passes(recorded):
    assert run_bench(recorded[0], "gather_2") == ["gather_2: gather_2: PASS"]


@pytest.mark.csim
@pytest.mark.slow
@pytest.mark.parametrize("array", [8, 4])
def test_benches_of_four_bit_rows_pass(array, tmp_path):
    """Vectors, ports and kernels of the same width: K and V of the ring, weights of 8 bits in two
    words or in halves.
    """
    folder = tmp_path / "build"
    make_build(folder, "self_attention", replace(SMALL, weight_bits=array, stored_bits=4))
    record(folder, progress=False)
    for kernel in ("wload", "mac"):
        assert run_bench(folder, kernel) == [f"{kernel}_{n}: {kernel}: PASS" for n in (1, 2)]
    emit(folder, load_board("u250"))
    assert check_paths([folder], folders=[folder / "src"]) == []


@pytest.mark.csim
@pytest.mark.slow
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in QUICK])
def test_other_benches_pass(recorded, kernel):
    units = bench_units(ENGINE, ENGINE.kernel(kernel))
    assert run_bench(recorded[0], kernel) == [f"{unit.name}: {kernel}: PASS" for unit in units]


@pytest.mark.csim
def test_kernels_that_differ_are_not_recorded(recorded, tmp_path):
    """Weights that are not those of the integer layer graph: no vectors, no half of them."""
    folder = tmp_path / "build"
    shutil.copytree(recorded[0], folder, ignore=shutil.ignore_patterns("vectors", "work"))
    weights = np.fromfile(folder / "weights.bin", dtype=np.int8)
    (folder / "weights.bin").write_bytes((-(weights // 2)).astype(np.int8).tobytes())
    with pytest.raises(AssertionError, match="differs from the integer reference"):
        record(folder, progress=False)
    assert not (folder / "vitis" / "vectors").exists()


def test_recordings_that_differ_name_the_port(tmp_path):
    for take, data in (("a", b"12"), ("b", b"13")):
        (tmp_path / take / "mac_1").mkdir(parents=True)
        (tmp_path / take / "mac_1" / "as_s.bin").write_bytes(data)
    _compare(tmp_path / "a", tmp_path / "a")
    with pytest.raises(AssertionError, match="as_s of mac_1 depends on memory that no kernel has"):
        _compare(tmp_path / "a", tmp_path / "b")


def test_bench_needs_vectors(tmp_path):
    make_build(tmp_path / "build", "linear")
    with pytest.raises(UserError, match="run make vectors first"):
        run_bench(tmp_path / "build", "mac")
    with pytest.raises(UserError, match="gather is no kernel"):
        run_bench(tmp_path / "build", "gather")


def test_benches_of_another_engine_are_dropped(tmp_path):
    folder = tmp_path / "build"
    make_build(folder, "linear")
    assert (folder / "vitis" / "bench" / "gather_4_tb.cpp").is_file()
    make_build(folder, "linear", replace(SMALL, ranks=2))
    assert not (folder / "vitis" / "bench" / "gather_4_tb.cpp").exists()
    assert (folder / "vitis" / "bench" / "gather_2_tb.cpp").is_file()


def test_first_layers_are_a_build_of_their_own(tmp_path):
    qgraph, _ = make_build(tmp_path / "build", "concat_groupnorm_silu")
    whole = [each.layer.name for each in qgraph.layers]
    part = first_layers(qgraph, whole[0])
    kept = [each.layer.name for each in part.layers]
    assert kept == whole[: len(kept)] and len(kept) < len(whole)
    assert part.tensors[part.graph.output].bits == 16
    folder = build_first_layers(tmp_path / "build", whole[0])
    emit(folder, load_board("u250"))
    assert (folder / "src" / "mac.cpp").is_file()
    assert (folder / "vitis" / "link" / "hw.222.cfg").is_file()
    with pytest.raises(UserError, match="there is no layer nonsense"):
        first_layers(qgraph, "nonsense")
