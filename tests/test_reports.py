"""Readers of tool reports, over files written by hand after the documented formats."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layerkit import random_qgraph

from gen.errors import UserError
from gen.program import Engine, lower, save_program
from gen.program.cost import step_cost
from gen.program.engine import load_engine
from gen.reports.calibrate import calibrate, write_engine
from gen.reports.cosim import read_cosim
from gen.reports.csynth import read_csynth
from gen.reports.link import parse_info, parse_link_log, read_link_logs
from gen.reports.measured import gather, save, stage_of
from gen.reports.table import rows, text
from gen.reports.text import integer, number
from gen.vitis.topology import topology

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "vitis"


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
    assert info.kernels == ("store", "wload", "pre", "gather_1", "reduce_1", "mac", "post")


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
    (tmp_path / "vitis" / "vectors").mkdir()
    cycles = {unit.name: 12 for unit in topology(1).units} | {"mac_1": 2400}
    (tmp_path / "vitis" / "vectors" / "cycles.json").write_text(json.dumps(cycles))
    linked = tmp_path / "vitis" / "hw.platform"
    linked.mkdir()
    (linked / "engine.222.json").write_text('{"clock_asked_mhz": 222, "clock_mhz": 198.3}')
    return tmp_path


def test_gathered_figures(reported):
    measured = gather(reported, {"mac": "mac_1", "post": "post_1"})
    assert (measured.clock_asked_mhz, measured.clock_mhz) == (222, 198.3)
    mac, post = measured.kernels["mac"], measured.kernels["post"]
    assert mac.cosim_cycles == 2431
    assert mac.simulated_cycles == 2400
    assert mac.pipeline_depth == 11
    # the module of one loop takes 131 cycles, 130 of them in the loop
    assert mac.loop_overheads == (1,)
    assert [(loop.name, loop.ii) for loop in mac.loops] == [("tiles", 1), ("words", 2)]
    assert (post.resources, post.cosim_cycles, post.pipeline_depth) == (None, None, None)
    assert post.simulated_cycles == 12
    saved = json.loads(save(measured, reported).read_text())
    assert saved["kernels"]["mac"]["resources"]["dsp"] == 1024
    assert saved["kernels"]["post"]["resources"] is None


@pytest.fixture(scope="module")
def program():
    qgraph = random_qgraph("linear", np.random.default_rng(3), size=(4, 4), channels=16)
    return lower(qgraph, Engine())


def test_table_of_modelled_and_measured(reported, program):
    measured = gather(reported, {"mac": "mac_1"})
    found = {(row.figure, row.unit): row for row in rows(program, measured)}
    assert found["clock", "MHz"].ratio == pytest.approx(198.3 / 222)
    assert found["step", "cycles"].modelled == step_cost(program).cycles
    assert found["step", "cycles"].measured == 2431
    assert found["step", "ms"].measured == pytest.approx(2431 / 198.3e3)
    deeper = {**program.engine.timing.stages, "mac": 10}
    timing = replace(program.engine.timing, stages=deeper, loop_entry=1, loop_exit=0)
    timed = replace(program, engine=replace(program.engine, timing=timing))
    assert found["step, measured stages", "cycles"].modelled == step_cost(timed).cycles
    assert step_cost(timed).cycles != step_cost(program).cycles
    assert (found["mac stages", "cycles"].modelled, found["mac stages", "cycles"].measured) == (
        program.engine.timing.stages["mac"], 10,
    )  # fmt: skip
    alone = found["mac alone", "cycles"]
    assert (alone.modelled, alone.measured) == (2400, 2431)
    # two products per DSP
    assert 2048 <= found["mac area", "DSP"].modelled < 2100
    assert found["mac slowest loop", "II"].measured == 2
    lines = text(list(found.values()))
    assert any("222" in line and "198.3" in line and "0.89" in line for line in lines)


def test_table_of_a_build_without_reports(tmp_path, program):
    found = rows(program, gather(tmp_path, {"mac": "mac_1", "gather_1": "gather_1"}))
    assert all(row.measured is None and row.ratio is None for row in found)
    stages = {row.figure: row.modelled for row in found}
    assert stages["gather_1 stages"] == program.engine.timing.stages["link"]


# --- calibration --------------------------------------------------------------------------------


def synthesised(folder, depths):
    """Reports made by hand: the example's, its loop's depth changed per kernel."""
    reports = folder / "vitis" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    example = (DATA / "csynth.xml").read_text()
    for kernel, depth in depths.items():
        changed = example.replace("<PipelineDepth>11<", f"<PipelineDepth>{depth}<")
        assert changed != example or depth == 11
        (reports / f"{kernel}_csynth.xml").write_text(changed)
    return calibrate(gather(folder, {kernel: f"{kernel}_1" for kernel in depths}))


def test_depths_become_stages(tmp_path):
    """A kernel's deepest loop counts; gather and reduce of all ranks have one figure."""
    found = synthesised(tmp_path, {"store": 13, "gather_1": 7, "gather_2": 9, "reduce_1": 6})
    assert found.stages == {"store": 12, "link": 8}
    assert (found.loop_entry, found.loop_exit) == (1, 0)
    timing = found.applied(Engine().timing)
    assert timing.stages == {**Engine().timing.stages, "store": 12, "link": 8}
    assert timing.loop_exit == 0
    assert {stage_of(each) for each in ("gather_3", "reduce_1", "mac")} == {"link", "mac"}


def test_nothing_measured_changes_nothing(tmp_path):
    found = calibrate(gather(tmp_path, {"mac": "mac_1"}))
    assert found.empty
    assert found.applied(Engine().timing) == Engine().timing
    path = tmp_path / "engine.toml"
    with pytest.raises(UserError, match="run make csynth"):
        write_engine(path, found, Engine())
    assert not path.exists()


def test_board_file_takes_measured_timing(tmp_path):
    """Only the measured lines of a board file change, and the loader reads them."""
    path = tmp_path / "board.toml"
    before = (ROOT / "gen" / "boards" / "u250.toml").read_text()
    path.write_text(before)
    write_engine(path, synthesised(tmp_path, {"mac": 14, "gather_1": 5}), Engine())
    old, new = load_engine("u250"), load_engine(path)
    assert new.timing.stages == {**old.timing.stages, "mac": 13, "link": 4}
    assert replace(new, timing=old.timing) == old
    changed = [
        (a, b) for a, b in zip(before.splitlines(), path.read_text().splitlines(), strict=True)
        if a != b
    ]  # fmt: skip
    assert [b for _, b in changed] == [
        f"{line}  # measured: csynth"
        for line in ("loop_entry = 1", "loop_exit = 0", "link = 4", "mac = 13")
    ]


def test_engine_file_takes_measured_timing(tmp_path):
    """A new file holds the build's engine; one without the tables gains them."""
    found = synthesised(tmp_path, {"post": 21})
    engine = replace(Engine(), ranks=2, lag=40)
    new = tmp_path / "new.toml"
    write_engine(new, found, engine)
    assert load_engine(new) == replace(engine, timing=found.applied(engine.timing))
    bare = tmp_path / "bare.toml"
    bare.write_text("[engine]\nranks = 2")
    write_engine(bare, found, Engine())
    assert load_engine(bare).timing.stages["post"] == 20
    assert load_engine(bare).ranks == 2


@pytest.mark.parametrize("content", ["[engine\n", "[engine]\nrank = 2\n"])
def test_file_that_is_no_engine_is_left_alone(tmp_path, content):
    path = tmp_path / "engine.toml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"engine\.toml"):
        write_engine(path, synthesised(tmp_path, {"post": 21}), Engine())
    assert path.read_text() == content


def test_command_line(reported, program):
    save_program(program, reported / "program.json")
    path = reported / "engine.toml"
    command = [sys.executable, "-m", "gen.reports", str(reported), "--engine", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        f"measured timing written to {path}: loop_entry = 1, loop_exit = 0, mac = 10" in done.stdout
    )
    assert load_engine(path).timing.stages["mac"] == 10
    (reported / "vitis" / "reports" / "mac_csynth.xml").unlink()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("run make csynth") and "Traceback" not in done.stderr


def test_damaged_link_description(reported):
    (path,) = (reported / "vitis").rglob("engine.222.json")
    path.write_text("{}")
    with pytest.raises(UserError, match="run make xclbin again"):
        gather(reported, {"mac": "mac_1"})
