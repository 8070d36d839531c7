"""Runs of Vitis HLS over one kernel: csim, csynth, cosim."""

from __future__ import annotations

import shutil
from pathlib import Path

from gen.errors import UserError
from gen.reports.cosim import read_cosim
from gen.reports.csynth import CsynthReport, read_csynth
from gen.reports.measured import simulated_cycles
from gen.vitis.engine import engine_of, kernel_of
from gen.vitis.tools import Result, hls_command, run_logged

STEPS = ("csim", "csynth", "cosim")
# printed at exit by the tool's streams, with status 0; the hardware would hang
LEFTOVER = "contains leftover data"
# share by which the cycles of co-simulation may differ from those of the timed simulation
CYCLES_WITHIN = 0.1


def report_path(build: Path, step: str, kernel: str) -> Path:
    """Where a step's report is kept: the file whose presence says that the step succeeded."""
    suffix = {"csim": "csim.log", "csynth": "csynth.xml", "cosim": "cosim.rpt"}[step]
    return build / "vitis" / "reports" / f"{kernel}_{suffix}"


def _keep(found: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(target.name + ".tmp")
    shutil.copyfile(found, scratch)
    scratch.replace(target)


def _newest(folder: Path, name: str, step: str) -> Path:
    found = sorted(folder.rglob(name), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{step} ended without writing {name} below {folder}; read its log there")
    return found[-1]


def _fail(result: Result, kernel: str, step: str, log: Path) -> None:
    lines = [
        line.removeprefix("ERROR:").strip()
        for line in result.text.splitlines()
        if line.startswith("ERROR:")
    ]
    told = [line for line in lines if line]
    first = f" ({told[0]})" if told else ""
    raise UserError(f"{step} of kernel {kernel} failed{first}; the log is {log}")


def _bench(build: Path, kernel: str, step: str) -> None:
    bench = build / "vitis" / "bench" / f"{kernel}_tb.cpp"
    if not bench.is_file():
        raise UserError(f"{step} of {kernel} has no test bench {bench}; run make vectors first")


def summary(report: CsynthReport) -> list[str]:
    """What a person wants to know of a synthesis at once."""
    top, area = report.top, report.top.resources
    lines = [
        f"{top.name}: {area.lut} LUT, {area.ff} FF, {area.dsp} DSP, {area.bram18} BRAM18, "
        f"{area.uram} URAM; estimated period {top.estimated_period_ns} ns "
        f"of {report.target_period_ns} ns"
    ]
    if report.timing_met is False:
        lines.append(f"{top.name}: the estimated period misses the target clock")
    lines += [
        f"{function}: loop {loop.name} reaches II {loop.ii} instead of {loop.target_ii or 1}"
        for function, loop in report.missed_loops()
    ]
    return lines


def cycles_remark(measured: int | None, expected: int | None) -> str:
    """Measured cycles of a unit beside those of the timed simulation, for the end of a line."""
    if measured is None or not expected:
        return ""
    off = measured / expected - 1
    remark = f"; the timed simulation expects {expected} ({100 * off:+.1f} %)"
    if abs(off) > CYCLES_WITHIN:
        remark += (
            f", more than {100 * CYCLES_WITHIN:.0f} % off: its pipeline depths are wrong; "
            "make csynth, then make reports ENGINE_FILE=... takes the measured ones over"
        )
    return remark


def run_hls(build: Path, kernel: str, step: str, cosim_options: str = "") -> list[str]:
    """Run one step for one kernel and keep its report; lines to print.

    Raises:
        UserError: a tool or file is missing, the tool failed, streams held leftover data, or
            the co-simulation did not pass.
    """
    build = build.resolve()
    unit = engine_of(build).units_of(kernel_of(build, kernel))[0].name
    script = build / "vitis" / "hls" / f"{kernel}.tcl"
    if not script.is_file():
        raise UserError(f"{script} does not exist; run make vitis-files first")
    command = hls_command(script, f"make {step}")
    if step != "csynth":
        _bench(build, kernel, step)
    work = build / "vitis" / "work" / step / kernel
    log = work / f"{step}.log"
    settings = {"LDA_HLS_STEP": step, "LDA_HLS_WORK": str(work), "LDA_HLS_COSIM": cosim_options}
    target = report_path(build, step, kernel)
    target.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    result = run_logged(command, log, work, settings)
    if result.status != 0:
        _fail(result, kernel, step, log)
    if step != "csynth" and LEFTOVER in result.text:
        raise UserError(
            f"{step} of kernel {kernel} left data in a stream, on which the card would hang; "
            f"the log {log} names it"
        )
    if step == "csim":
        _keep(log, target)
        return [f"{kernel}: csim passed"]
    if step == "csynth":
        lines = summary(read_csynth(_newest(work, "csynth.xml", step)))
        for extra in sorted(work.rglob("*_csynth.xml")):
            _keep(extra, target.parent / kernel / extra.name)
        _keep(_newest(work, "csynth.xml", step), target)
        return lines
    found = _newest(work, f"{kernel}_cosim.rpt", step)
    report = read_cosim(found)
    if not report.passed:
        raise UserError(f"cosim of kernel {kernel} did not pass; the log is {log}")
    _keep(found, target)
    cycles = report.total_cycles or report.latency_max
    beside = cycles_remark(cycles, simulated_cycles(build, unit))
    return [f"{kernel}: cosim passed, {cycles} cycles{beside}"]
