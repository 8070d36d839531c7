"""Readers of tool reports, over files written by hand after the documented formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.errors import UserError
from gen.program import Engine, lower
from gen.program.cost import step_cycles
from gen.reports.cosim import read_cosim
from gen.reports.csynth import read_csynth
from gen.reports.link import parse_info, parse_link_log, read_link_logs
from gen.reports.measured import gather, save
from gen.reports.table import rows, text
from gen.reports.text import integer, number

DATA = Path(__file__).parent / "data" / "vitis"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12.0), (" 3.287 ", 3.287), ("1,024", 1024.0), ("~0", 0.0), ("12 ~ 40", 40.0),
        ("222 MHz", 222.0), ("-0.539", -0.539), ("undef", None), ("?", None), ("-", None),
        ("", None), (None, None), ("n/a", None), ("NA", None), ("none of it", None), ("x", None),
    ],
)  # fmt: skip
def test_numbers(text, value):
    assert number(text) == value


def test_integer_of_unknown():
    assert integer("undef") is None
    assert integer("4105") == 4105


def test_csynth_overall():
    report = read_csynth(DATA / "csynth.xml")
    assert report.top.name == "KERNEL"
    assert report.part == "xcu250-figd2104-2L-e"
    assert report.target_period_ns == 4.504
    assert report.top.estimated_period_ns == 3.287
    assert report.timing_met is True
    assert report.top.latency_best is None
    assert report.top.latency_average is None
    assert report.top.interval_max is None
    area = report.top.resources
    assert (area.bram18, area.dsp, area.ff, area.lut, area.uram) == (46, 1024, 51234, 70211, 0)
    assert report.available.dsp == 12288


def test_csynth_loops_nest_and_missed_ii_is_found():
    report = read_csynth(DATA / "csynth.xml")
    outer, inner = report.top.loops
    assert (outer.name, outer.depth, outer.ii, outer.trip_count) == ("entries", 0, None, None)
    assert (inner.name, inner.depth, inner.ii, inner.trip_count) == ("tiles", 1, 1, 4096)
    assert (inner.latency, inner.iteration_latency, inner.pipeline_depth) == (4105, 11, 11)
    (module,) = report.modules
    assert module.name == "KERNEL_statistics"
    assert (module.latency_best, module.latency_worst, module.interval_max) == (67, 131, 131)
    assert module.resources.dsp == 12  # the older tag DSP48E
    assert module.resources.uram is None
    (missed,) = report.missed_loops()
    assert (missed[0], missed[1].name, missed[1].ii) == ("KERNEL_statistics", "words", 2)


def test_csynth_asked_for_ii_is_respected(tmp_path):
    text = (DATA / "csynth.xml").read_text()
    wish = "<PipelineII>2</PipelineII>"
    assert text.count(wish) == 1
    path = tmp_path / "csynth.xml"
    path.write_text(text.replace(wish, f"{wish}<PipelineTargetII>2</PipelineTargetII>"))
    assert read_csynth(path).missed_loops() == []


def test_csynth_timing_missed(tmp_path):
    path = tmp_path / "csynth.xml"
    path.write_text((DATA / "csynth.xml").read_text().replace("3.287", "4.505"))
    assert read_csynth(path).timing_met is False


def test_csynth_with_nothing_in_it(tmp_path):
    path = tmp_path / "mac_csynth.xml"
    path.write_text("<profile><PerformanceEstimates/></profile>")
    report = read_csynth(path)
    assert report.top.name == "mac"
    assert report.top.resources.lut is None
    assert report.timing_met is None
    assert report.top.loops == () and report.modules == ()


@pytest.mark.parametrize("text", ["", "<profile>", "<html/>", "<profile/>"])
def test_csynth_refuses_what_it_is_not(tmp_path, text):
    path = tmp_path / "csynth.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"csynth\.xml"):
        read_csynth(path)


def test_missing_reports_are_user_errors(tmp_path):
    for read in (read_csynth, read_cosim):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read"):
        read_link_logs([tmp_path / "none"])


def test_cosim_takes_the_row_that_was_run():
    report = read_cosim(DATA / "cosim.rpt")
    assert (report.language, report.passed) == ("Verilog", True)
    assert (report.latency_min, report.latency_average, report.latency_max) == (1204, 1210, 1216)
    assert (report.interval_min, report.interval_average, report.interval_max) == (1205, 1211, 1217)
    assert report.total_cycles == 2431


def test_cosim_failed():
    assert read_cosim(DATA / "cosim_fail.rpt").passed is False


def test_cosim_without_total(tmp_path):
    path = tmp_path / "mac_cosim.rpt"
    path.write_text("|  VHDL| NA| NA| NA| NA| NA| NA| NA|\n|Verilog| Pass| 10| 11| 12| ?| ?| ?|\n")
    report = read_cosim(path)
    assert (report.passed, report.latency_max, report.interval_min) == (True, 12, None)
    assert report.total_cycles is None


def test_cosim_not_run_at_all(tmp_path):
    path = tmp_path / "mac_cosim.rpt"
    path.write_text("|  VHDL| NA| NA| NA| NA| NA| NA| NA|\n")
    assert read_cosim(path).passed is None
    path.write_text("nothing here\n")
    with pytest.raises(UserError, match="no co-simulation result"):
        read_cosim(path)


def test_link_log_scaled():
    log = read_link_logs([DATA / "link_scaled.log"])
    assert (log.asked_mhz, log.scaled_mhz, log.worst_slack_ns) == (222.0, 198.3, -0.539)
    assert log.timing_failed
    assert log.errors == ()


def test_link_log_clean_and_failed():
    clean = parse_link_log("INFO: all well\nWNS=0.021 | TNS=0.000\n")
    assert (clean.timing_failed, clean.scaled_mhz, clean.worst_slack_ns) == (False, None, 0.021)
    failed = parse_link_log("ERROR: [v++ 60-661] v++ link run 'run_link' failed\n" * 2)
    assert failed.errors == ("[v++ 60-661] v++ link run 'run_link' failed",)
    assert not failed.timing_failed


def test_info_clocks():
    text = (DATA / "xclbin.info").read_text()
    info = parse_info(text.replace("@MHZ@", "198.3").replace("@UUID@", "1-2-3"))
    assert info.kernel_mhz == 198.3
    assert [(clock.name, clock.kind) for clock in info.clocks] == [
        ("DATA_CLK", "DATA"), ("KERNEL_CLK", "KERNEL"),
    ]  # fmt: skip
    assert info.uuid == "1-2-3"
    assert info.platform == "xilinx_u250_gen3x16_xdma_4_1_202210_1"
    assert info.kernels == ("store", "wload", "pre", "mac", "post")


def test_info_of_something_else():
    with pytest.raises(UserError, match="neither a UUID nor clocks"):
        parse_info("usage: xclbinutil [options]")


# --- modelled against measured ------------------------------------------------------------------


@pytest.fixture
def reported(tmp_path):
    """A build in which one kernel was synthesised and co-simulated and the card linked."""
    reports = tmp_path / "vitis" / "reports"
    reports.mkdir(parents=True)
    (reports / "mac_csynth.xml").write_text((DATA / "csynth.xml").read_text())
    (reports / "mac_cosim.rpt").write_text((DATA / "cosim.rpt").read_text())
    linked = tmp_path / "vitis" / "hw.platform"
    linked.mkdir()
    (linked / "engine.222.json").write_text('{"clock_asked_mhz": 222, "clock_mhz": 198.3}')
    return tmp_path


def test_gathered_figures(reported):
    measured = gather(reported, ["mac", "post"])
    assert (measured.clock_asked_mhz, measured.clock_mhz) == (222, 198.3)
    mac, post = measured.kernels["mac"], measured.kernels["post"]
    assert mac.cosim_cycles == 2431
    assert mac.pipeline_depth == 11
    assert [(loop.name, loop.ii) for loop in mac.loops] == [("tiles", 1), ("words", 2)]
    assert (post.resources, post.cosim_cycles, post.pipeline_depth) == (None, None, None)
    saved = json.loads(save(measured, reported).read_text())
    assert saved["kernels"]["mac"]["resources"]["dsp"] == 1024
    assert saved["kernels"]["post"]["resources"] is None


def test_table_of_modelled_and_measured(reported):
    qgraph = random_qgraph("linear", np.random.default_rng(3), size=(4, 4), channels=16)
    program = lower(qgraph, Engine())
    found = {(row.figure, row.unit): row for row in rows(program, gather(reported, ["mac"]))}
    assert found["clock", "MHz"].ratio == pytest.approx(198.3 / 222)
    assert found["step", "cycles"].modelled == step_cycles(program)
    assert found["step", "cycles"].measured == 2431
    assert found["step", "ms"].measured == pytest.approx(2431 / 198.3e3)
    assert found["mac multipliers", "DSP"].modelled == 32 * 16 * 8
    assert found["mac slowest loop", "II"].measured == 2
    lines = text(list(found.values()))
    assert any("222" in line and "198.3" in line and "0.89" in line for line in lines)


def test_table_of_a_build_without_reports(tmp_path):
    qgraph = random_qgraph("linear", np.random.default_rng(3), size=(4, 4), channels=16)
    found = rows(lower(qgraph, Engine()), gather(tmp_path, ["mac"]))
    assert all(row.measured is None and row.ratio is None for row in found)


def test_damaged_link_description(reported):
    (path,) = (reported / "vitis").rglob("engine.222.json")
    path.write_text("{}")
    with pytest.raises(UserError, match="run make xclbin again"):
        gather(reported, ["mac"])
