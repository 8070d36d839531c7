"""Test benches of the kernels: they pass under g++, and they notice faults."""

from dataclasses import replace

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.emit import emit_sources
from gen.errors import UserError
from gen.hlslint.check import check_paths, gather
from gen.program import Engine, lower, pack_static, save_program
from gen.qgraph_io import save_qgraph
from gen.vitis.bench import build_first_layers, emit_benches, first_layers, pointer_depths, record
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench
from gen.vitis.topology import ENGINE

SMALL = replace(Engine(), store_rows=4096, window_rows=64, weight_rows=128, stats_channels=512)


def make_build(folder, kind):
    qgraph = random_qgraph(kind, np.random.default_rng(11), size=(5, 6), channels=24)
    program = lower(qgraph, SMALL)
    folder.mkdir(exist_ok=True)
    save_qgraph(qgraph, folder)
    save_program(program, folder / "program.json")
    (folder / "weights.bin").write_bytes(pack_static(qgraph, program))
    emit_sources(program, folder / "src")
    emit_benches(folder, program)
    return qgraph, program


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
    for kernel in ENGINE.kernels:
        found = {path.stem for path in (vectors / kernel.name).glob("*.bin")}
        assert found == set(ENGINE.ports(kernel.name))
    for stream in ENGINE.streams:
        sent = (vectors / stream.source / f"{stream.port}.bin").read_bytes()
        assert sent == (vectors / stream.sink / f"{stream.port}.bin").read_bytes()
        assert len(sent) % (stream.bits // 8) == 0
    for stream in ("xs", "px", "ws", "as", "ys", "pp", "qp", "ss"):
        assert (vectors / ENGINE.stream(stream).source / f"{stream}_s.bin").stat().st_size > 0
    for name, words in pointer_depths(program).items():
        (path,) = vectors.rglob(f"{name}.bin")
        assert path.stat().st_size == 64 * words


@pytest.mark.csim
def test_generated_kernels_benches_and_configurations_are_clean(recorded):
    folder, _, _ = recorded
    emit(folder, load_board("u250"))
    sources, configs = gather([folder])
    names = {path.name for path in sources}
    assert names == {f"{k.name}{end}" for k in ENGINE.kernels for end in (".cpp", "_tb.cpp")}
    assert configs
    found = check_paths([folder], folders=[folder / "src"])
    assert [str(each) for each in found] == []


@pytest.mark.csim
def test_bench_passes_and_notices_faults(recorded, tmp_path):
    """wload's bench: a wrong expected word, a missing one, and one too many are all failures."""
    folder, _, _ = recorded
    assert run_bench(folder, "wload") == ["wload: PASS"]
    good = folder / "vitis" / "vectors" / "wload"

    def damaged(change):
        vectors = tmp_path / "wload"
        vectors.mkdir(exist_ok=True)
        for path in good.iterdir():
            data = path.read_bytes()
            (vectors / path.name).write_bytes(change(data) if path.name == "ws_s.bin" else data)
        return vectors

    for change, message in (
        (lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:], "1 of .* elements differ"),
        (lambda data: data[:-64], "ws_s has 1 elements left"),
        (lambda data: data + bytes(64), "ws_s ends after"),
        (lambda data: data[:-1], "ends within an element"),
    ):
        with pytest.raises(UserError, match=message):
            run_bench(folder, "wload", damaged(change))


@pytest.mark.csim
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["store", "pre", "mac", "post"])
def test_other_benches_pass(recorded, kernel):
    assert run_bench(recorded[0], kernel) == [f"{kernel}: PASS"]


def test_bench_needs_vectors(tmp_path):
    with pytest.raises(UserError, match="run make vectors first"):
        run_bench(tmp_path, "mac")


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


@pytest.mark.cosim
@pytest.mark.vitis
@pytest.mark.parametrize("kernel", [kernel.name for kernel in ENGINE.kernels])
def test_cosimulation(recorded, kernel):
    """The RTL of every kernel against the same vectors, where Vitis is installed."""
    from gen.vitis.hls_run import run_hls
    from gen.vitis.tools import hls_command

    folder, _, _ = recorded
    try:
        hls_command(folder, "cosim")
    except UserError:
        pytest.skip("Vitis HLS is not installed: neither vitis_hls nor vitis-run was found")
    emit(folder, load_board("u250"))
    lines = run_hls(folder, kernel, "cosim")
    assert any("cosim passed" in line for line in lines)
