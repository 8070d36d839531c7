"""g++ on generated sources: parallel, cached, atomic.

The result is found again by a hash over sources, headers, flags and the compiler, so that building
the same card a second time copies a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from gen.errors import UserError
from gen.stages import ROOT

CACHE = ROOT / "build" / ".cache" / "card"
KEPT = 16  # results in the cache
INCLUDES = (ROOT / "hls" / "sim", ROOT / "hls" / "kernels", ROOT / "hls" / "card")
FLAGS = (
    "-std=c++14",
    "-O2",
    "-ftree-vectorize",
    "-march=native",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-unused-label",
)
_FULL = "No space left on device"
_POLL_S = 0.05


def find_compiler() -> str:
    """Path of the C++ compiler: CXX, or g++.

    Raises:
        UserError: there is none.
    """
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise UserError(
            f"the C++ compiler {name} was not found; install g++ 10 or newer (Debian, Ubuntu: "
            "apt install g++) or name another one by CXX=..."
        )
    return path


def compiler_identity(compiler: str) -> str:
    """Version of the compiler and what -march=native means here."""
    shown = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    native = subprocess.run(
        [compiler, "-march=native", "-E", "-dM", "-x", "c++", os.devnull],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return f"{shown.stdout}{native.stdout}{platform.machine()}"


def compile_library(
    sources: Sequence[Path],
    output: Path,
    *,
    defines: Mapping[str, str] | None = None,
    includes: Iterable[Path] = INCLUDES,
    cache: Path = CACHE,
    jobs: int = 2,
    progress: bool = True,
) -> bool:
    """Compile ``sources`` to the shared object ``output``; whether the compiler ran.

    ``defines`` are preprocessor definitions; every folder of a source is on the include path.

    Raises:
        UserError: no compiler, an error in the sources (with the path of the log), or a full disk.
    """
    compiler = find_compiler()
    folders = list(dict.fromkeys([*(s.parent for s in sources), *includes]))
    options = [*FLAGS, *(f"-D{name}={value}" for name, value in (defines or {}).items())]
    key = cache_key(compiler_identity(compiler), options, sources, folders)
    kept = cache / f"{key}.so"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        ran = not kept.is_file()
        if ran:
            arguments = [compiler, *options, *(f"-I{folder}" for folder in folders)]
            _build(arguments, sources, kept, cache / f"{key}.log", jobs, progress)
        os.utime(kept)
        _prune(cache)
        scratch = output.with_name(output.name + ".tmp")
        shutil.copyfile(kept, scratch)
        scratch.replace(output)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(output) from error
        raise
    return ran


def cache_key(
    identity: str, options: Sequence[str], sources: Sequence[Path], folders: Sequence[Path]
) -> str:
    """Hash over everything that the result depends on; paths themselves do not count."""
    digest = hashlib.sha256("\n".join([identity, *options]).encode())
    for source in sources:
        digest.update(b"\0" + source.name.encode() + b"\0" + source.read_bytes())
    for folder in folders:
        for header in sorted(folder.rglob("*.h*")):
            digest.update(b"\0" + str(header.relative_to(folder)).encode() + b"\0")
            digest.update(header.read_bytes())
    return digest.hexdigest()


def _disk_full(where: Path) -> UserError:
    return UserError(
        f"{where}: the disk is full; free some space and run the same command again "
        "(finished stages are kept)"
    )


def _build(
    compiler: Sequence[str],
    sources: Sequence[Path],
    kept: Path,
    log: Path,
    jobs: int,
    progress: bool,
) -> None:
    """Objects in parallel, then the link; ``kept`` appears complete or not at all."""
    with tempfile.TemporaryDirectory(prefix=".compile-", dir=kept.parent) as folder:
        scratch = Path(folder)
        objects = [scratch / f"{index}.o" for index in range(len(sources))]
        commands = [
            [*compiler, "-c", str(source.resolve()), "-o", str(target)]
            for source, target in zip(sources, objects, strict=True)
        ]
        result = scratch / "result.so"
        # the compiler's own scratch files go where there is known to be room
        environment = {**os.environ, "TMPDIR": folder}
        with tqdm(
            total=len(commands) + 1, desc="compile", unit="file", disable=not progress
        ) as bar:
            _run(commands, log, jobs, bar, environment)
            link = [*compiler, "-shared", *map(str, objects), "-o", str(result)]
            _run([link], log, 1, bar, environment)
        result.replace(kept)
    log.unlink(missing_ok=True)


def _run(
    commands: list[list[str]], log: Path, jobs: int, bar: tqdm[None], environment: dict[str, str]
) -> None:
    """Run commands, at most ``jobs`` at a time; stop the others when one fails."""
    waiting = list(commands)
    running: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as stream:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(
                        subprocess.Popen(
                            waiting.pop(0), stdout=stream, stderr=stream, env=environment
                        )
                    )
                for process in list(running):
                    if process.poll() is None:
                        continue
                    running.remove(process)
                    bar.update()
                    if process.returncode:
                        raise _failure(process.returncode, log)
                time.sleep(_POLL_S)
        finally:
            for process in running:
                process.kill()
                process.wait()


def _failure(code: int, log: Path) -> UserError:
    text = log.read_text(errors="replace")
    if _FULL in text:
        return _disk_full(log.parent)
    if code < 0:
        return UserError(
            f"the C++ compiler was stopped by signal {-code} (out of memory?); its output is "
            f"in {log}; run the same command again with fewer programs open"
        )
    errors = [line for line in text.splitlines() if "error:" in line]
    first = f" ({errors[0].strip()[:160]})" if errors else ""
    return UserError(
        f"the generated C++ did not compile{first}; the compiler's output is in {log}; check that "
        "the compiler is g++ 10 or newer"
    )


def _prune(cache: Path) -> None:
    """Forget all but the most recently used results."""
    results = sorted(cache.glob("*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in results[KEPT:]:
        path.unlink(missing_ok=True)
