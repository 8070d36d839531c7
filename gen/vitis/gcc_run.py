"""Test benches under g++: the same sources, in the form that Vitis compiles."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gen.compile import INCLUDES, find_compiler
from gen.errors import UserError
from gen.vitis.bench import bench_units
from gen.vitis.engine import engine_of, kernel_of
from gen.vitis.tools import run_logged

# LDA_PLAIN chooses what synthesis sees instead of its fast equivalent
FLAGS = ("-std=c++14", "-O1", "-DLDA_PLAIN", "-Wno-unknown-pragmas", "-Wno-unused-label")


def run_bench(build: Path, kernel: str, vectors: Path | None = None) -> list[str]:
    """Compile and run a kernel's bench; keeps the log in ``vitis/reports``. Lines to print.

    Raises:
        UserError: no compiler, no bench, or the kernel differs from its vectors.
    """
    build = build.resolve()
    files = build / "vitis"
    bench = files / "bench" / f"{kernel}_tb.cpp"
    engine = engine_of(build)
    units = bench_units(engine, kernel_of(build, kernel))
    folders = [vectors] if vectors else [files / "vectors" / unit.name for unit in units]
    if not bench.is_file() or not all(folder.is_dir() for folder in folders):
        raise UserError(f"{kernel} has no test bench or vectors in {files}; run make vectors first")
    program = files / "work" / "bench" / kernel
    program.parent.mkdir(parents=True, exist_ok=True)
    log = files / "work" / "bench" / f"{kernel}.log"
    source = build / "src" / f"{kernel}.cpp"
    if _stale(program, [source, bench, *(p for folder in INCLUDES for p in folder.glob("*.h*"))]):
        includes = [f"-I{folder}" for folder in (*INCLUDES, build / "src", bench.parent)]
        command = [
            find_compiler(),
            *FLAGS,
            *includes,
            str(source),
            str(bench),
            "-o",
            f"{program}.tmp",
        ]
        if run_logged(command, log, program.parent).status != 0:
            raise UserError(f"the test bench of {kernel} did not compile; the log is {log}")
        Path(f"{program}.tmp").replace(program)
    report = files / "reports" / f"{kernel}_bench.log"
    report.unlink(missing_ok=True)
    lines = [line for folder in folders for line in _run(program, kernel, folder)]
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n".join(lines) + "\n")
    return lines


def _run(program: Path, kernel: str, vectors: Path) -> list[str]:
    done = subprocess.run(
        [str(program), str(vectors)], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode != 0:
        first = next((line for line in done.stdout.splitlines() if "ERROR" in line), "no message")
        raise UserError(
            f"the test bench of {kernel} failed on {vectors.name} ({first.removeprefix('ERROR: ')})"
        )
    return [f"{vectors.name}: {line}" for line in done.stdout.splitlines()]


def _stale(program: Path, sources: list[Path]) -> bool:
    if not program.is_file():
        return True
    made = program.stat().st_mtime
    return any(path.stat().st_mtime > made for path in sources if path.is_file())
