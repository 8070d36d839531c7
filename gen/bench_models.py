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
    """Of one stage: wall and processor seconds, and the peak of the resident memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass
class Measured:
    """Of one model: ``macs`` multiply-accumulates per step (whole batch), costs by stage.

    ``runs``: U-Net runs of the calibration; ``fault``: why a stage, and all after it, gave up.
    """

    model: str
    macs: int = 0
    runs: int = 0
    fault: str = ""
    stages: dict[str, Cost] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall seconds of all stages."""
        return sum(cost.seconds for cost in self.stages.values())

    @property
    def peak_bytes(self) -> int:
        """Largest peak of all stages."""
        return max((cost.peak_bytes for cost in self.stages.values()), default=0)


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
    lines = [f"{'model':<24} {'GMAC/step':>9} {'seconds':>8} {'CPU s':>8} {'peak GB':>8}  by stage"]
    for each in sorted(measured, key=lambda m: m.macs):
        cpu = sum(cost.cpu_seconds for cost in each.stages.values())
        parts = ", ".join(f"{name} {cost.seconds:.0f}" for name, cost in each.stages.items())
        lines.append(
            f"{each.model:<24} {each.macs / 1e9:9.2f} {each.seconds:8.1f} {cpu:8.1f} "
            f"{each.peak_bytes / 1e9:8.2f}  {parts}"
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


def measure(name: str, folder: Path, stages: Sequence[str]) -> Measured:
    """Run the stages of a model's build in a process of its own, into ``folder``.

    A stage that refuses the model is its ``fault``. Raises UserError for other failures, of which
    the messages are on the terminal.
    """
    result = folder / "cost.json"
    command = [sys.executable, "-m", "gen.bench_models", "--child", name, str(folder)]
    done = subprocess.run([*command, "--stages", ",".join(stages)], cwd=ROOT, check=False)
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
            measured.append(measure(name, folder.resolve(), stages))
        _write(out, measured)
    return measured


def _write(out: Path, measured: Sequence[Measured]) -> None:
    document = {
        "kind": "measured",
        "cpus": len(os.sched_getaffinity(0)),
        "models": [
            {**asdict(each), "seconds": each.seconds, "peak_bytes": each.peak_bytes}
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
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(name: str, folder: Path, wanted: Sequence[str]) -> None:
    """Run the stages in this process and write ``cost.json``."""
    from gen import layergraph_io
    from gen.build import Settings
    from gen.build import stages as build_stages
    from gen.macs import macs_per_step
    from gen.model import find_model
    from gen.quantise.trajectories import CALIBRATION, load_runs
    from gen.stages import run_stages

    measured = Measured(name)
    by_name = {s.name: s for s in build_stages(find_model(name), folder, Settings())}
    for stage in wanted:
        if stage not in by_name:
            continue
        reset_peak()
        started, used = time.monotonic(), time.process_time()
        try:
            run_stages([by_name[stage]], folder)
        except UserError as error:
            measured.fault = f"{stage}: {error}"
            break
        spent = (time.monotonic() - started, time.process_time() - used)
        measured.stages[stage] = Cost(round(spent[0], 2), round(spent[1], 2), peak_bytes())
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
    parser.add_argument("--keep", type=Path, help="folder to keep the builds in")
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    stages = parsed.stages.split(",")
    if parsed.child:
        name, folder = parsed.child
        return guarded(lambda: _child(name, Path(folder), stages), "interrupted")
    return guarded(lambda: _run(parsed, stages), "interrupted; finished models are in the file")


def _run(parsed: argparse.Namespace, stages: Sequence[str]) -> int:
    measured = bench(parsed.models.split(","), parsed.out, stages, parsed.keep)
    print(table(measured))
    refused = any(each.fault for each in measured)
    return 1 if refused or not all(ratio.linear for ratio in ratios(measured)) else 0


if __name__ == "__main__":
    sys.exit(main())
