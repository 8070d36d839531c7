"""Rules about configurations: what is emitted is clean, planted violations are found."""

import json

import pytest

from gen.hlslint.check import check_paths
from gen.hlslint.rules import config_rules, link
from gen.program.program_io import FORMAT
from gen.vitis.board import load_board
from gen.vitis.emit import Options, emit


def write_program(build, ranks):
    program = {"format": FORMAT, "engine": {"ranks": ranks, "weight_bits": 8}}
    (build / "program.json").write_text(json.dumps(program))
    (build / "src").mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    build = tmp_path_factory.mktemp("build")
    write_program(build, 2)
    emit(build, load_board("u250"), Options())
    return build


def test_emitted_files_are_clean(emitted, tmp_path):
    assert check_paths([emitted]) == []
    for board, ranks in (("u55c", 2), ("u250", 1), ("u250", 4)):
        write_program(tmp_path, ranks)
        emit(tmp_path, load_board(board))
        assert check_paths([tmp_path]) == []


def test_configuration_outside_of_a_build(emitted, tmp_path):
    """Its ranks are those of its nk lines."""
    path = tmp_path / "link.cfg"
    path.write_text((emitted / "vitis" / LINK).read_text())
    assert check_paths([path]) == []
    path.write_text(path.read_text().replace("nk=store:2", "nk=store:1"))
    assert check_paths([path]) != []


LINK = "link/hw.222.cfg"
HLS = "hls/mac.cfg"
CONFIGS = {
    "config-line": [(LINK, "[vivado]", "[vivada]"), (LINK, "nk=mac:2", "nk mac:2")],
    "config-remark": [(LINK, "synth.jobs=8", "synth.jobs=8 # many")],
    "config-part": [
        (HLS, "part=xcu250", "part=xcu200"),
        (HLS, "part=xcu250-figd2104-2L-e", "platform=xilinx_u280_xdma"),
    ],
    "config-target": [(HLS, "flow_target=vitis", "flow_target=vitis\ntarget=sw_emu")],
    "config-file": [
        ("compile/mac.cfg", "pre_tcl=/", "pre_tcl="),
        ("compile/mac.cfg", "pre.tcl", "post.tcl"),
        (HLS, "syn.file=/", "syn.file="),
    ],
    "hls-uncertainty": [
        (HLS, "clock_uncertainty=12%\n", ""),
        (HLS, "clock_uncertainty=12%", "clock_uncertainty=1%"),
    ],
    "hls-clock": [
        (HLS, "clock=4.504ns\n", ""),
        (HLS, "[hls]", "freqhz=222000000\n[hls]"),
    ],
    "hls-style": [(HLS, "syn.compile.pipeline_style=flp\n", "")],
    "hls-language": [(HLS, "syn.cflags=-std=c++14", "syn.cflags=-std=c++17")],
    "link-key": [
        (LINK, "slr=mac_1", "slrs=mac_1"),
        (LINK, "stream_connect=pre_1.px_s:", "stream_connect=pre_1.px_s\n# "),
    ],
    "link-kernel": [
        (LINK, "nk=mac:2", "nk=mac2:2"),
        (LINK, "nk=mac:2\n", ""),
        (LINK, "nk=mac:2", "nk=mac:2\nnk=mac:1"),
        (LINK, "nk=mac:2", "nk=mac:2:mac_1.mac_2"),
    ],
    "link-port": [
        (LINK, "sp=store_1.latent", "sp=store_1.latent_r"),
        (LINK, "sp=store_1.latent", "sp=store_7.latent"),
        (LINK, "pre_1.px_s:", "pre_1.px_r:"),
        (LINK, "slr=mac_1", "slr=mac_9"),
        (LINK, "sp=store_1.latent", "sp=store_1.xs_s"),
    ],
    "link-memory": [
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:DDR[4]"),
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:HBM[0]"),
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:DDR[2:1]"),
        (LINK, "sp=store_1.latent:DDR[0]\n", ""),
        (LINK, "sp=store_1.latent:DDR[0]\n", "sp=store_1.latent:DDR[0]\n" * 2),
    ],
    "link-slr": [
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR4"),
        (LINK, "slr=mac_1:SLR0\n", ""),
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR0\nslr=mac_1:SLR1"),
        (LINK, "slr=store_1:SLR0", "slr=store_1:SLR1"),
    ],
    "link-crossing": [
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR1"),
        (LINK, "slr=reduce_2:SLR1", "slr=reduce_2:SLR2"),
    ],
    "link-stream": [
        (LINK, "mac_1.ks_s", "mac_1.ws_s"),
        (LINK, "pre_1.px_s:gather_1.px_s", "gather_1.px_s:pre_1.px_s"),
        (LINK, "mac_1.as_s:post_1.as_s", "mac_1.as_s:post_1.rs_s"),
        (LINK, "store_1.rs_s:post_1.rs_s", "store_1.xs_s:post_1.rs_s"),
        (LINK, "mac_1.as_s:post_1.as_s", "mac_1.as_s:post_2.as_s"),
        (LINK, "gather_1.to_right_s:gather_2.from_left_s",
         "gather_2.to_left_s:gather_2.from_left_s"),
        (LINK, "gather_1.to_right_s:gather_2", "reduce_1.to_right_s:gather_2"),
    ],
    "link-self": [(LINK, "pre_1.px_s:gather_1.px_s", "gather_1.ks_s:gather_1.px_s")],
    "link-open": [
        (LINK, "stream_connect=gather_2.ss_s", "# stream_connect=gather_2.ss_s"),
        (LINK, "stream_connect=reduce_2.to_left_s", "# stream_connect=reduce_2.to_left_s"),
    ],
    "link-depth": [
        (LINK, "mac_1.as_s:post_1.as_s:32", "mac_1.as_s:post_1.as_s"),
        (LINK, "mac_1.as_s:post_1.as_s:32", "mac_1.as_s:post_1.as_s:0"),
    ],
    "link-clock": [
        (LINK, "kernel_frequency=0:222", "kernel_frequency=0:300"),
        (LINK, "kernel_frequency=0:222", "kernel_frequency=0:222.5"),
        (LINK, "kernel_frequency=0:222\n", ""),
        (LINK, "[vivado]", "[clock]\nfreqHz=100000000:mac_7.ap_clk\n[vivado]"),
    ],
    "link-timing": [
        (LINK, "[vivado]",
         "[advanced]\nparam=compiler.skipTimingCheckAndFrequencyScaling=1\n[vivado]")
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "old", "new"),
    [
        pytest.param(rule, *case, id=f"{rule}-{number}")
        for rule, listed in CONFIGS.items()
        for number, case in enumerate(listed)
    ],
)
def test_planted_configuration(emitted, rule, name, old, new):
    path = emitted / "vitis" / name
    good = path.read_text()
    assert old in good
    try:
        path.write_text(good.replace(old, new, 1))
        found = check_paths([emitted])
    finally:
        path.write_text(good)
    assert rule in {each.rule for each in found}, found
    assert {each.path for each in found} == {str(path)}


def test_every_configuration_rule_has_a_planted_violation():
    assert {rule.name for rule in config_rules.all} == {*CONFIGS, "link-width"}


def test_port_that_is_too_wide(emitted, monkeypatch):
    """No legal engine has one: the bound is moved instead."""
    monkeypatch.setattr(link, "MAX_PORT_BITS", 1024)
    found = check_paths([emitted / "vitis" / LINK])
    assert {each.rule for each in found} == {"link-width"}
    assert any("mac_1.as_s is 2048 bits wide" in each.message for each in found)


def test_too_many_masters_on_one_memory(tmp_path):
    write_program(tmp_path, 4)
    emit(tmp_path, load_board("u250"))
    path = tmp_path / "vitis" / LINK
    assert "link-memory" not in {each.rule for each in check_paths([tmp_path])}
    text = path.read_text()
    for bank in (1, 2, 3):
        text = text.replace(f"DDR[{bank}]", "DDR[0]")
    path.write_text(text)
    assert "16 masters on DDR[0], which takes fewer" in {f.message for f in check_paths([tmp_path])}
