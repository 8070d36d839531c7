"""The text that Vitis HLS would compile: one translation unit, conditionals and macros resolved.

g++'s preprocessor runs with ``__SYNTHESIS__`` defined and without any system header: every header
in angle brackets, and every quoted one that is not the project's, is an empty file. What a tool's
header would define is therefore unknown here, and names stand as they are written.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.errors import UserError

_MARKER = re.compile(rb'^# (\d+) "((?:[^"\\]|\\.)*)"((?: \d)*)\s*$')
_MISSING = re.compile(r"fatal error: ([^:]+): No such file")
_DEFINE = re.compile(rb"^#\s*(define|undef)\s+(\w+)[ \t]*(.*)$")
MAX_HEADERS = 200
# headers that are usual in kernels, so that one run suffices
_USUAL = ("hls_stream.h", "ap_int.h", "cstdint", "stdexcept", "cstring", "cassert", "cstddef")


@dataclass(frozen=True)
class Origin:
    """Where a line of preprocessed text comes from."""

    path: str
    line: int


@dataclass(frozen=True)
class Include:
    """An active include of a header that is not the project's; ``row`` as in ``Source.origins``."""

    header: str
    row: int
    at: Origin


@dataclass(frozen=True)
class Define:
    """A macro definition in the project's files."""

    name: str
    value: str
    row: int
    at: Origin


@dataclass(frozen=True)
class Source:
    """Preprocessed text; ``origins[row]`` is the origin of its row, counted from 0."""

    path: Path
    text: bytes
    origins: tuple[Origin, ...]
    includes: tuple[Include, ...]
    defines: tuple[Define, ...]


def _run(path: Path, folders: Sequence[Path], stubs: Path) -> subprocess.CompletedProcess[bytes]:
    compiler = shutil.which("g++")
    if compiler is None:
        raise UserError("g++ was not found, which make lint-hls needs; install it")
    command = [compiler, "-E", "-dD", "-x", "c++", "-std=c++14", "-D__SYNTHESIS__", "-nostdinc"]
    command += [f"-I{folder}" for folder in folders]
    command += ["-isystem", str(stubs), str(path)]
    return subprocess.run(command, capture_output=True, check=False)


def _expand(path: Path, folders: Sequence[Path], stubs: Path) -> bytes:
    """Preprocess, adding an empty header for each one that is missing."""
    for _ in range(MAX_HEADERS):
        done = _run(path, folders, stubs)
        if done.returncode == 0:
            return done.stdout
        errors = done.stderr.decode(errors="replace")
        missing = _MISSING.search(errors)
        if missing is None:
            first = errors.strip().splitlines()[0] if errors.strip() else "no message"
            raise UserError(f"{path} cannot be preprocessed ({first}); repair it")
        stub = (stubs / missing[1]).resolve()
        if stubs.resolve() not in stub.parents:
            raise UserError(f"{path} includes {missing[1]}, which does not exist; repair it")
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_bytes(b"")
    raise UserError(f"{path} includes more than {MAX_HEADERS} foreign headers; repair it")


def preprocess(path: Path, folders: Sequence[Path]) -> Source:
    """Text of a translation unit as synthesis sees it.

    Raises:
        UserError: no g++, or the text does not get through its preprocessor.
    """
    with tempfile.TemporaryDirectory(prefix="hlslint-") as scratch:
        stubs = Path(scratch)
        for name in _USUAL:
            (stubs / name).write_bytes(b"")
        raw = _expand(path, folders, stubs)
        prefix = str(stubs)
        return _split(path, raw, prefix)


def _split(path: Path, raw: bytes, stubs: str) -> Source:
    rows: list[bytes] = []
    origins: list[Origin] = []
    includes: list[Include] = []
    defines: list[Define] = []
    at = Origin(str(path), 0)
    for row, content in enumerate(raw.split(b"\n")):
        kept = content
        marker = _MARKER.match(content)
        definition = _DEFINE.match(content)
        if marker:
            name = marker[2].decode(errors="replace")
            if name.startswith(stubs) and b"1" in marker[3].split():
                line = Origin(at.path, at.line + 1)
                includes.append(Include(name[len(stubs) :].lstrip("/"), row, line))
            at = Origin(name, int(marker[1]) - 1)
            kept = b""
        else:
            at = Origin(at.path, at.line + 1)
            if definition:
                if not at.path.startswith("<"):
                    value = definition[3].decode(errors="replace").strip()
                    defines.append(Define(definition[2].decode(), value, row, at))
                kept = b""
        rows.append(kept)
        origins.append(at)
    return Source(path, b"\n".join(rows), tuple(origins), tuple(includes), tuple(defines))
