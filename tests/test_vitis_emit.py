"""Emitted inputs of the Vitis tools: what they say, and what is refused."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gen.emit import kernel_tops, line_ports
from gen.errors import UserError
from gen.program.program_io import FORMAT
from gen.vitis.board import board_names, load_board
from gen.vitis.depths import read_depths
from gen.vitis.emit import Options, emit, period_ns
from gen.vitis.topology import CLOCK_KEYS, RANKS, topology

ROOT = Path(__file__).resolve().parent.parent


def write_program(folder, ranks):
    program = {"format": FORMAT, "engine": {"ranks": ranks, "weight_bits": 8}}
    (folder / "program.json").write_text(json.dumps(program))
    (folder / "src").mkdir(exist_ok=True)


@pytest.fixture
def build(tmp_path):
    write_program(tmp_path, 1)
    return tmp_path


def lines(build, name):
    return (build / "vitis" / name).read_text().splitlines()


def values(build, name, key):
    return [line.split("=", 1)[1] for line in lines(build, name) if line.startswith(f"{key}=")]


@pytest.mark.parametrize("ranks", RANKS)
def test_topology_is_closed(ranks):
    """Every stream port is one end of one connection, of its own type and direction."""
    engine = topology(ranks)
    ends = []
    for each in engine.connections:
        assert each.source != each.sink and each.output.output and not each.input.output
        assert each.output.element == each.input.element
        assert each.output.stream == each.input.stream
        assert each.output.bits % 8 == 0 and each.output.bits <= 4096
        ends += [(each.source.name, each.output.name), (each.sink.name, each.input.name)]
    ports = [(unit.name, port.name) for unit in engine.units for port in unit.kernel.streams]
    assert sorted(ends) == sorted(ports)
    names = [unit.name for unit in engine.units]
    assert len(set(names)) == len(names) == 7 * ranks
    assert len({each.fifo for each in engine.connections}) == len(engine.connections)


def test_ports_in_the_order_of_the_contract():
    four = topology(4)
    assert four.kernel("store").ports == ("latent", "result", "xs_s", "rs_s", "ys_s")
    assert four.kernel("wload").ports == (
        "weights", "dynamic", "reload", "hd_s", "pp_s", "ws_s", "qp_s",
    )  # fmt: skip
    assert four.kernel("mac").ports == ("gs_s", "ks_s", "ws_s", "as_s", "bs_s")
    assert four.kernel("gather_1").ports == (
        "px_s", "from_right_s", "to_right_s", "gs_s", "ks_s", "ss_s",
    )  # fmt: skip
    assert four.kernel("reduce_3").ports == (
        "st_s", "from_left_s", "from_right_s", "to_left_s", "to_right_s", "sg_s",
    )  # fmt: skip
    assert topology(1).kernel("gather_1").ports == ("px_s", "gs_s", "ks_s", "ss_s")
    assert {kernel.name for kernel in four.kernels if kernel.started} == {"store", "wload"}


def test_elements_of_the_line():
    """Rightward rank r sends r+1 words, leftward R-1-r come back (docs/engine.md)."""
    four = topology(4)
    types = {each.fifo: (each.output.element, each.output.bits) for each in four.connections}
    assert types["gather.r12"] == ("lda::Beat<1>", 512)
    assert types["gather.r34"] == ("lda::Beat<3>", 1536)
    assert types["gather.r21"] == ("lda::Beat<3>", 1536)
    assert types["reduce.r43"] == ("lda::StatBeat<1>", 640)
    assert types["gs_3"] == ("lda::Beat<4>", 2048)
    assert types["sg_3"] == ("lda::StatBeat<4>", 2560)
    assert [four.crossing_wires(rank) for rank in range(3)] == [4 * (512 + 640) + 8] * 3


@pytest.mark.parametrize("ranks", RANKS)
def test_topology_is_that_of_the_sources(ranks):
    tops = kernel_tops(ranks)
    kernels = topology(ranks).kernels
    assert {(k.name, k.kind, k.rank) for k in kernels} == set(tops)
    for kernel in kernels:
        if kernel.rank is not None:
            many = "Beat" if kernel.kind == "gather" else "StatBeat"
            line = [(p.name, p.element) for p in kernel.streams if p.stream == "link"]
            assert line == [(n, f"lda::{many}<{c}>") for n, c in line_ports(kernel.rank, ranks)]


def test_widths_are_those_of_the_compiler(tmp_path):
    """sizeof of every stream element; docs/engine.md speaks of bits."""
    engines = topology(4), topology(4, 4)
    elements = {(p.element, p.bits) for e in engines for k in e.kernels for p in k.streams}
    checks = [f'static_assert(sizeof({e}) * 8 == {bits}, "");' for e, bits in elements]
    source = tmp_path / "widths.cpp"
    source.write_text("\n".join(['#include "types.hpp"', *sorted(checks)]) + "\n")
    flags = ["-std=c++14", "-fsyntax-only", "-Ihls/sim", "-Ihls/kernels"]
    subprocess.run(["g++", *flags, str(source)], check=True, cwd=ROOT)


def test_link_of_one_rank(build):
    emit(build, load_board("u250"))
    name = "link/hw.222.cfg"
    assert lines(build, name)[1] == "kernel_frequency=0:222"
    assert values(build, name, "nk") == [
        "store:1", "wload:1", "pre:1", "gather_1:1:gather_1", "reduce_1:1:reduce_1", "mac:1",
        "post:1",
    ]  # fmt: skip
    assert values(build, name, "sp") == [
        "store_1.latent:DDR[0]", "store_1.result:DDR[0]",
        "wload_1.weights:DDR[0]", "wload_1.dynamic:DDR[0]",
    ]  # fmt: skip
    assert len(values(build, name, "stream_connect")) == 15
    assert set(values(build, name, "slr")) == {f"{u.name}:SLR0" for u in topology(1).units}


def test_strategy_comes_before_the_steps_it_would_reset(build):
    emit(build, load_board("u250"))
    found = values(build, "link/hw.222.cfg", "prop")
    assert found[0] == "run.impl_1.strategy=Performance_Explore"
    assert any("STEPS" in value for value in found[1:])


def test_several_strategies(build):
    emit(build, load_board("u250"), Options(strategies=("Performance_Explore", "B")))
    assert values(build, "link/hw.222.cfg", "impl.strategies") == ["Performance_Explore,B"]
    assert not [v for v in values(build, "link/hw.222.cfg", "prop") if "impl_1.strategy" in v]


def test_emulation_has_no_implementation(build):
    emit(build, load_board("u250"))
    assert "[vivado]" not in lines(build, "link/hw_emu.222.cfg")
    assert "[vivado]" in lines(build, "link/hw.222.cfg")


def test_four_ranks_fill_the_u250(build):
    write_program(build, 4)
    emit(build, load_board("u250"))
    name = "link/hw.222.cfg"
    assert values(build, name, "nk")[0] == "store:4"
    assert "gather_3:1:gather_3" in values(build, name, "nk")
    assert "store_4.latent:DDR[3]" in values(build, name, "sp")
    assert "mac_3:SLR2" in values(build, name, "slr")
    connections = values(build, name, "stream_connect")
    assert len(connections) == 4 * 15 + 3 * 4
    link = read_depths(topology(4), build)["link"]
    assert f"gather_2.to_left_s:gather_1.from_right_s:{link}" in connections
    assert f"reduce_3.to_right_s:reduce_4.from_left_s:{link}" in connections
    assert json.loads("\n".join(lines(build, "vitis.json")))["crossing_wires"] == [4616] * 3


def test_second_board_from_data_only(build):
    write_program(build, 2)
    emit(build, load_board("u55c"))
    name = "link/hw.222.cfg"
    assert "wload_2.weights:HBM[8:15]" in values(build, name, "sp")
    assert "post_2:SLR1" in values(build, name, "slr")
    assert "part=xcu55c-fsvh2892-2L-e" in lines(build, "hls/mac.cfg")
    assert "xcu55c" in (build / "vitis" / "hls" / "mac.tcl").read_text()
    assert "PLATFORM ?= xilinx_u55c_gen3x16_xdma_3_202210_1" in lines(build, "settings.mk")


@pytest.mark.parametrize("name", board_names())
def test_boards_are_consistent(name):
    board = load_board(name)
    assert board.name == name
    for rank in board.ranks:
        assert rank.slr < board.slrs
        first, _, last = rank.memory.split("[")[1].rstrip("]").partition(":")
        assert int(first) <= int(last or first) < len(board.memory_slr)
        assert rank.memory.startswith(board.memory_kind)
    assert max(board.memory_slr) < board.slrs
    assert list(board.clocks_mhz) == sorted(board.clocks_mhz, reverse=True)
    assert all(len(tag) <= 15 for tag in board.memories)  # the limit of xclbin metadata
    assert board.tools.known and not set(board.tools.warned) & set(board.tools.known)


def test_another_engine_leaves_nothing_of_the_one_before(build):
    write_program(build, 2)
    emit(build, load_board("u250"))
    assert (build / "vitis" / "hls" / "gather_2.tcl").is_file()
    write_program(build, 1)
    emit(build, load_board("u250"), Options(extra_clocks_mhz=(180,)))
    assert not (build / "vitis" / "hls" / "gather_2.tcl").exists()
    emit(build, load_board("u250"))
    assert (build / "vitis" / "link" / "hw.180.cfg").is_file()  # the same engine's


def test_clock_spellings(build):
    expected = {
        "kernel_frequency": "kernel_frequency=0:222",
        "freqHz": "freqHz=222000000:mac_1.ap_clk",
        "defaultFreqHz": "defaultFreqHz=222000000",
    }
    assert set(expected) == set(CLOCK_KEYS)
    for key, line in expected.items():
        emit(build, load_board("u250"), Options(clock_key=key))
        found = lines(build, "link/hw.222.cfg")
        assert line in found
        others = {other for other in CLOCK_KEYS if other != key}
        assert not any(text.startswith(f"{other}=") for text in found for other in others)


def test_fallback_clocks_have_configurations(build):
    emit(build, load_board("u250"), Options(extra_clocks_mhz=(180,)))
    for mhz in (222, 200, 180, 150):
        assert f"kernel_frequency=0:{mhz}" in lines(build, f"link/hw.{mhz}.cfg")


def test_kernels_may_be_compiled_for_a_faster_clock(build):
    emit(build, load_board("u250"), Options(hls_clock_mhz=300, extra_clocks_mhz=(250,)))
    assert "clock=300000000:mac" in lines(build, "compile/mac.cfg")
    assert "clock=3.333ns" in lines(build, "hls/mac.cfg")
    assert (build / "vitis" / "link" / "hw.250.cfg").exists()


def test_link_faster_than_the_kernels_is_refused(build):
    with pytest.raises(UserError, match="HLS_CLOCK=250"):
        emit(build, load_board("u250"), Options(extra_clocks_mhz=(250,)))


@pytest.mark.parametrize("mhz", [150, 199, 200, 222, 233, 300, 333])
def test_period_is_never_longer_than_the_clock_allows(mhz):
    period = float(period_ns(mhz))
    assert period * mhz <= 1000
    assert (period + 0.001) * mhz > 1000


def test_depths_are_those_of_the_kernels(build):
    one = topology(1)
    known = read_depths(one, build)
    assert set(known) == set(one.streams) == set(topology(4).streams) - {"link"}
    (build / "src" / "engine.hpp").write_text("struct E { static const int DEPTH_KS = 4096; };")
    assert read_depths(one, build) == {**known, "ks": 4096}
    emit(build, load_board("u250"))
    connections = values(build, "link/hw.222.cfg", "stream_connect")
    assert "gather_1.ks_s:mac_1.ks_s:4096" in connections
    assert f"mac_1.as_s:post_1.as_s:{known['as']}" in connections


def test_stream_without_depth_is_refused(build, tmp_path):
    defaults = tmp_path / "params.hpp"
    defaults.write_text("static const int DEPTH_XS = 64;\n")
    with pytest.raises(UserError, match="stream px has no depth"):
        read_depths(topology(1), build, defaults)


def test_pipeline_style_is_said_everywhere(build):
    emit(build, load_board("u250"), Options(pipeline_style="frp"))
    assert "syn.compile.pipeline_style=frp" in lines(build, "hls/mac.cfg")
    assert "    config_compile -pipeline_style frp" in lines(build, "hls/mac.tcl")
    assert lines(build, "compile/pre.tcl") == ["config_compile -pipeline_style frp"]


def test_configs_have_no_remarks_behind_values(build):
    emit(build, load_board("u250"))
    for path in (build / "vitis").rglob("*.cfg"):
        for line in path.read_text().splitlines():
            assert line.startswith("#") or "#" not in line


def test_unchanged_files_are_not_touched(build):
    first = emit(build, load_board("u250"))
    stamps = {path: path.stat().st_mtime_ns for path in first}
    assert emit(build, load_board("u250")) == []
    assert {path: path.stat().st_mtime_ns for path in first} == stamps
    changed = emit(build, load_board("u250"), Options(jobs=2))
    assert {path.parent.name for path in changed} == {"link"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(clock_key="freq"), "no clock key"),
        (Options(strategies=()), "choose from Performance_Explore"),
    ],
)
def test_refused_options(build, options, message):
    with pytest.raises(UserError, match=message):
        emit(build, load_board("u250"), options)


def test_engine_that_does_not_fit(build):
    write_program(build, 4)
    with pytest.raises(UserError, match=r"4 ranks, which do not fit on u55c; build it for 1 or 2"):
        emit(build, load_board("u55c"))
    narrow = replace(load_board("u250"), link_wires=4615)
    with pytest.raises(UserError, match="4616 wires would cross"):
        emit(build, narrow)
    assert not (build / "vitis").exists()
    write_program(build, 3)
    with pytest.raises(UserError, match="is not a layer program"):
        emit(build, load_board("u250"))


def test_refused_folders(tmp_path):
    spaced = tmp_path / "my build"
    spaced.mkdir()
    write_program(spaced, 1)
    with pytest.raises(UserError, match="space"):
        emit(spaced, load_board("u250"))
    with pytest.raises(UserError, match="run make build first"):
        emit(tmp_path, load_board("u250"))
    with pytest.raises(UserError, match="choose one of u250, u55c"):
        load_board("u200")


def test_board_lacking_a_field(tmp_path):
    (tmp_path / "odd.toml").write_text('name = "odd"\n')
    with pytest.raises(UserError, match="lacks the field 'part'"):
        load_board("odd", tmp_path)
