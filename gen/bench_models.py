"""``python -m gen.bench_models``: what it takes to build accelerators for models of all sizes.

Every model runs in a process of its own, from trace to layer program, without a compiler. Wall and
processor time, peak memory and multiply-accumulates go into a JSON file; a table compares how
time grows with the multiply-accumulates of a model.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gen.cli import guarded
from gen.errors import UserError
from gen.stages import ROOT, write_json

STAGES = ("trace", "calibrate", "quantise", "program", "plan")
# time may grow this much faster than multiply-accumulates between two models
TOLERANCE = 2.0
# below this a stage is imports and file handling: seconds that do not depend on the model
FIXED_SECONDS = 20.0


@dataclass
class Cost:
    """Of one stage: wall and processor seconds, and peaks of the resident memory in bytes: all of
    it, and what is not part of a mapped file (which the system takes back when it needs memory).
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    own_peak_bytes: int


@dataclass
class Measured:
    """Of one model: ``macs`` multiply-accumulates per step of ``batch`` samples, costs by stage.

    ``runs``: U-Net runs of the calibration; ``fault``: why a stage, and all after it, gave up.
    """

    model: str
    macs: int = 0
    runs: int = 0
    fault: str = ""
    batch: int = 1
    stages: dict[str, Cost] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall seconds of all stages."""
        return sum(cost.seconds for cost in self.stages.values())

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of all stages."""
        return sum(cost.cpu_seconds for cost in self.stages.values())

    @property
    def peak_bytes(self) -> int:
        """Largest peak of all stages."""
        return max((cost.peak_bytes for cost in self.stages.values()), default=0)

    @property
    def own_peak_bytes(self) -> int:
        """The same without mapped files."""
        return max((cost.own_peak_bytes for cost in self.stages.values()), default=0)


@dataclass(frozen=True)
class Ratio:
    """How one model compares with a smaller one."""

    smaller: str
    larger: str
    macs: float
    seconds: float

    @property
    def linear(self) -> bool:
        """Whether time grows no faster than multiply-accumulates."""
        return self.seconds <= TOLERANCE * self.macs


def ratios(measured: Sequence[Measured]) -> list[Ratio]:
    """Every model against the next smaller one; seconds are beyond ``FIXED_SECONDS``."""
    finished = [each for each in measured if not each.fault]
    ordered = sorted(finished, key=lambda each: each.macs)
    return [
        Ratio(
            small.model,
            large.model,
            large.macs / small.macs,
            max(large.seconds, FIXED_SECONDS) / max(small.seconds, FIXED_SECONDS),
        )
        for small, large in itertools.pairwise(ordered)
    ]


def table(measured: Sequence[Measured]) -> str:
    """One line a model, smallest first, and one for each ratio."""
    lines = [
        f"{'model':<24} {'batch':>5} {'GMAC/step':>9} {'seconds':>8} {'CPU s':>8} {'s/GMAC':>7} "
        f"{'peak GB':>8} {'own GB':>7}  by stage"
    ]
    for each in sorted(measured, key=lambda m: m.macs):
        parts = ", ".join(f"{name} {cost.seconds:.0f}" for name, cost in each.stages.items())
        lines.append(
            f"{each.model:<24} {each.batch:5d} {each.macs / 1e9:9.2f} {each.seconds:8.1f} "
            f"{each.cpu_seconds:8.1f} {each.seconds / max(each.macs, 1) * 1e9:7.2f} "
            f"{each.peak_bytes / 1e9:8.2f} {each.own_peak_bytes / 1e9:7.2f}  {parts}"
        )
        if each.fault:
            lines.append(f"{'':<24} {each.fault}")
    for ratio in ratios(measured):
        verdict = "" if ratio.linear else "  grows faster than linearly"
        lines.append(
            f"{ratio.larger} / {ratio.smaller}: {ratio.macs:.1f}x the multiply-accumulates, "
            f"{ratio.seconds:.1f}x the time{verdict}"
        )
    return "\n".join(lines)


def measure(name: str, folder: Path, stages: Sequence[str], batch: int = 0) -> Measured:
    """Run the stages of a model's build in a process of its own, into ``folder``, for ``batch``
    samples a step (0: the model's own number).

    A stage that refuses the model is its ``fault``. Raises UserError for other failures, of which
    the messages are on the terminal.
    """
    result = folder / "cost.json"
    command = [sys.executable, "-m", "gen.bench_models", "--child", name, str(folder)]
    options = ["--stages", ",".join(stages), "--batch", str(batch)]
    done = subprocess.run([*command, *options], cwd=ROOT, check=False)
    if done.returncode or not result.is_file():
        raise UserError(f"{name}: the build failed with status {done.returncode}; see above")
    data = json.loads(result.read_text())
    data["stages"] = {stage: Cost(**cost) for stage, cost in data["stages"].items()}
    return Measured(**data)


def bench(
    models: Sequence[str],
    out: Path,
    stages: Sequence[str] = STAGES,
    keep: Path | None = None,
    batch: int = 0,
) -> list[Measured]:
    """Measure every model and write ``out``; build folders are kept below ``keep`` if given.

    Raises UserError for an unknown model or stage, or a build that fails.
    """
    from gen.model import find_model

    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UserError(f"{', '.join(unknown)}: no stage; choose from {', '.join(STAGES)}")
    for name in models:
        find_model(name)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out.parent}: is no folder; choose another file by --out") from error
    measured = []
    for name in models:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bench-") as scratch:
            folder = (keep or Path(scratch)) / Path(name).stem
            folder.mkdir(parents=True, exist_ok=True)
            measured.append(measure(name, folder.resolve(), stages, batch))
        _write(out, measured)
    return measured


def _write(out: Path, measured: Sequence[Measured]) -> None:
    document = {
        "kind": "measured",
        "cpus": len(os.sched_getaffinity(0)),
        "models": [
            {
                **asdict(each),
                "seconds": round(each.seconds, 2),
                "cpu_seconds": round(each.cpu_seconds, 2),
                "peak_bytes": each.peak_bytes,
                "own_peak_bytes": each.own_peak_bytes,
            }
            for each in measured
        ],
        "ratios": [{**asdict(ratio), "linear": ratio.linear} for ratio in ratios(measured)],
    }
    write_json(out, document)


def reset_peak() -> None:
    """Start a new peak of this process's resident memory, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak of this process's resident memory since :func:`reset_peak`, else since its start."""
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class OwnPeak:
    """Peak of this process's resident memory without mapped files, from looking at it often."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> OwnPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        self._look()
        while not self._ended.wait(0.05):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, _status_bytes("RssAnon"))


def _status_bytes(member: str) -> int:
    """A size from the system's notes about this process; 0 where there are none."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{member}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _child(name: str, folder: Path, wanted: Sequence[str], batch: int) -> None:
    """Run the stages in this process and write ``cost.json``."""
    from gen import layergraph_io
    from gen.build import Settings
    from gen.build import stages as build_stages
    from gen.macs import macs_per_step
    from gen.model import find_model
    from gen.plan.command import make_plan
    from gen.quantise.trajectories import CALIBRATION, load_runs
    from gen.stages import run_stages

    measured = Measured(name, batch=batch or find_model(name).batch)
    by_name = {s.name: s for s in build_stages(find_model(name), folder, Settings(batch=batch))}
    for stage in wanted:
        reset_peak()
        started, used = time.monotonic(), time.process_time()
        try:
            with OwnPeak() as own:
                if stage == "plan":
                    make_plan(name, batch=batch)
                else:
                    run_stages([by_name[stage]], folder)
        except UserError as error:
            measured.fault = f"{stage}: {error}"
            break
        spent = (time.monotonic() - started, time.process_time() - used)
        measured.stages[stage] = Cost(
            round(spent[0], 2), round(spent[1], 2), peak_bytes(), own.peak_bytes
        )
    if "trace" in measured.stages:
        measured.macs = macs_per_step(layergraph_io.load(folder))
    if (folder / CALIBRATION).is_file():
        measured.runs = len(load_runs(folder / CALIBRATION))
    write_json(folder / "cost.json", asdict(measured))


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 for a model that is refused, or takes too long for its size."""
    parser = argparse.ArgumentParser(prog="python -m gen.bench_models", description=__doc__)
    parser.add_argument("--models", default="models/shapes-ldm,ldm-celebahq-256,sd15")
    parser.add_argument("--out", type=Path, default=Path("out/bench-models.json"))
    parser.add_argument("--stages", default=",".join(STAGES), help="of: " + ", ".join(STAGES))
    parser.add_argument("--batch", type=int, default=0, help="samples a step (2: guided pair)")
    parser.add_argument("--keep", type=Path, help="folder to keep the builds in")
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    stages = parsed.stages.split(",")
    if parsed.child:
        name, folder = parsed.child
        return guarded(lambda: _child(name, Path(folder), stages, parsed.batch), "interrupted")
    return guarded(lambda: _run(parsed, stages), "interrupted; finished models are in the file")


def _run(parsed: argparse.Namespace, stages: Sequence[str]) -> int:
    measured = bench(parsed.models.split(","), parsed.out, stages, parsed.keep, parsed.batch)
    print(table(measured))
    refused = any(each.fault for each in measured)
    return 1 if refused or not all(ratio.linear for ratio in ratios(measured)) else 0


if __name__ == "__main__":
    sys.exit(main())
