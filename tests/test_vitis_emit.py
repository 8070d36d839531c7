"""Emitted inputs of the Vitis tools: what they say, and what is refused."""

import pytest

from gen.errors import UserError
from gen.vitis.board import board_names, load_board
from gen.vitis.depths import read_depths
from gen.vitis.emit import Options, emit, period_ns
from gen.vitis.topology import CLOCK_KEYS, ENGINE


@pytest.fixture
def build(tmp_path):
    (tmp_path / "program.json").write_text("{}")
    (tmp_path / "src").mkdir()
    return tmp_path


def lines(build, name):
    return (build / "vitis" / name).read_text().splitlines()


def values(build, name, key):
    return [line.split("=", 1)[1] for line in lines(build, name) if line.startswith(f"{key}=")]


def test_topology_is_closed():
    for stream in ENGINE.streams:
        assert stream.name in ENGINE.kernel(stream.source).streams
        assert stream.name in ENGINE.kernel(stream.sink).streams
        assert stream.source != stream.sink
        assert stream.bits % 8 == 0 and stream.bits <= 4096
    uses = [name for kernel in ENGINE.kernels for name in kernel.streams]
    assert sorted(uses) == sorted([stream.name for stream in ENGINE.streams] * 2)


def test_ports_in_the_order_of_the_contract():
    assert ENGINE.ports("store") == ("latent", "result", "xs_s", "ks_s", "rs_s", "ys_s")
    assert ENGINE.ports("mac") == ("px_s", "ks_s", "ws_s", "as_s")
    assert {kernel.name for kernel in ENGINE.kernels if kernel.started} == {"store", "wload"}


def test_link_of_one_rank(build):
    emit(build, load_board("u250"))
    name = "link/hw.222.cfg"
    assert lines(build, name)[1] == "kernel_frequency=0:222"
    assert values(build, name, "nk") == ["store:1", "wload:1", "pre:1", "mac:1", "post:1"]
    assert values(build, name, "sp") == [
        "store_1.latent:DDR[0]", "store_1.result:DDR[0]",
        "wload_1.weights:DDR[0]", "wload_1.dynamic:DDR[0]",
    ]  # fmt: skip
    assert len(values(build, name, "stream_connect")) == 11
    assert set(values(build, name, "slr")) == {f"{k.name}_1:SLR0" for k in ENGINE.kernels}


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
    emit(build, load_board("u250"), Options(ranks=4))
    name = "link/hw.222.cfg"
    assert values(build, name, "nk")[0] == "store:4"
    assert "store_4.latent:DDR[3]" in values(build, name, "sp")
    assert "mac_3:SLR2" in values(build, name, "slr")
    assert len(values(build, name, "stream_connect")) == 44


def test_second_board_from_data_only(build):
    emit(build, load_board("u55c"), Options(ranks=3))
    name = "link/hw.222.cfg"
    assert "wload_2.weights:HBM[8:15]" in values(build, name, "sp")
    assert "post_3:SLR2" in values(build, name, "slr")
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
    assert set(board.tools.warned) <= set(board.tools.known)


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
    known = read_depths(ENGINE, build)
    assert set(known) == {stream.name for stream in ENGINE.streams}
    (build / "src" / "engine.hpp").write_text("struct E { static const int DEPTH_KS = 4096; };")
    assert read_depths(ENGINE, build) == {**known, "ks": 4096}
    emit(build, load_board("u250"))
    connections = values(build, "link/hw.222.cfg", "stream_connect")
    assert "store_1.ks_s:mac_1.ks_s:4096" in connections
    assert f"mac_1.as_s:post_1.as_s:{known['as']}" in connections


def test_stream_without_depth_is_refused(build, tmp_path):
    defaults = tmp_path / "params.hpp"
    defaults.write_text("static const int DEPTH_XS = 64;\n")
    with pytest.raises(UserError, match="stream px has no depth"):
        read_depths(ENGINE, build, defaults)


def test_pipeline_style_is_said_everywhere(build):
    emit(build, load_board("u250"), Options(pipeline_style="flp"))
    assert "syn.compile.pipeline_style=flp" in lines(build, "hls/mac.cfg")
    assert "    config_compile -pipeline_style flp" in lines(build, "hls/mac.tcl")
    assert lines(build, "compile/pre.tcl") == ["config_compile -pipeline_style flp"]


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
        (Options(ranks=5), "5 ranks do not fit on u250"),
        (Options(ranks=0), "choose 1 to 4"),
        (Options(clock_key="freq"), "no clock key"),
        (Options(strategies=()), "choose from Performance_Explore"),
    ],
)
def test_refused_options(build, options, message):
    with pytest.raises(UserError, match=message):
        emit(build, load_board("u250"), options)


def test_refused_folders(tmp_path):
    spaced = tmp_path / "my build"
    spaced.mkdir()
    (spaced / "program.json").write_text("{}")
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
