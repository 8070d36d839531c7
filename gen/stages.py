"""Resumable stages: files in, files out, skipped while nothing they depend on has changed.

A stage runs in a scratch folder and its outputs are moved into the build folder only when it
has finished, so that an interrupted run leaves nothing half written. A stage that resumes keeps
its scratch folder when it is interrupted, and finds there what it had finished. What a stage was
made from is kept in ``stages.json``: a key over its options, its input files and the generator's
own sources.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gen.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
RECORD = "stages.json"
MANIFEST = "manifest.json"
FORMAT = 1


# of large files: hashed again only when the file system says that they have changed
_hashes: dict[tuple[object, ...], str] = {}
_LARGE = 1 << 24


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key in _hashes:
            return _hashes[key]
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    result = digest.hexdigest()
    if status.st_size >= _LARGE:
        _hashes[key] = result
    return result


def sources_hash(paths: Iterable[str]) -> str:
    """Hash over the project's own files below ``paths`` (relative to the project's root)."""
    digest = hashlib.sha256()
    for relative in sorted(paths):
        top = ROOT / relative
        files = [top] if top.is_file() else sorted(top.rglob("*"))
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Stage:
    """One step of a build.

    ``sources`` are the generator's files it is computed by, ``inputs`` the files it reads
    (absolute, or relative to the build folder), ``outputs`` what it leaves in the build folder
    (files or folders). ``run(build, scratch)`` reads from ``build`` and writes into ``scratch``;
    with ``resumes``, ``scratch`` holds what an interrupted run of the same key has left there.
    """

    name: str
    title: str
    sources: Sequence[str]
    inputs: Sequence[Path | str]
    outputs: Sequence[str]
    run: Callable[[Path, Path], None]
    options: dict[str, object] = field(default_factory=dict)
    resumes: bool = False

    def key(self, build: Path) -> str:
        """Hash over everything the result depends on."""
        parts = [
            self.name,
            json.dumps(self.options, sort_keys=True, default=str),
            sources_hash(self.sources),
        ]
        for item in self.inputs:
            path = Path(item) if Path(item).is_absolute() else build / item
            parts.append(f"{item}:{file_hash(path)}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def output_hashes(build: Path, outputs: Iterable[str]) -> dict[str, str]:
    """Hash of every file named or below a named folder; missing ones are left out."""
    hashes: dict[str, str] = {}
    for name in outputs:
        top = build / name
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for path in files:
            if path.exists():
                hashes[str(path.relative_to(build))] = file_hash(path)
    return hashes


def _read_record(build: Path) -> dict[str, dict[str, object]]:
    try:
        record = json.loads((build / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old or the new one, never half."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text)
    scratch.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write JSON as ``write_text`` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _move_into(scratch: Path, build: Path, outputs: Iterable[str]) -> None:
    for name in outputs:
        made, target = scratch / name, build / name
        if not made.exists():
            raise AssertionError(f"stage did not write {name}")
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        made.replace(target)


@contextmanager
def _scratch(stage: Stage, key: str, build: Path) -> Iterator[Path]:
    """A scratch folder for one stage, without the ones of other keys or of killed runs."""
    kept = build / f".{stage.name}-{key[:16]}"
    for stale in build.glob(f".{stage.name}-*"):
        if not (stage.resumes and stale == kept):
            shutil.rmtree(stale, ignore_errors=True)
    if not stage.resumes:
        with tempfile.TemporaryDirectory(prefix=f".{stage.name}-", dir=build) as folder:
            yield Path(folder)
        return
    kept.mkdir(exist_ok=True)
    yield kept
    shutil.rmtree(kept, ignore_errors=True)


def run_stages(
    stages: Sequence[Stage], build: Path, say: Callable[[str], None] = print
) -> list[str]:
    """Bring ``build`` up to date and return the names of the stages that ran.

    Raises:
        UserError: the disk is full or the folder cannot be made or written.
    """
    ran: list[str] = []
    try:
        try:
            build.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise UserError(
                f"{build}: no folder can be made there ({error.strerror}); choose another by --out"
            ) from error
        record = _read_record(build)
        for number, stage in enumerate(stages, 1):
            label = f"[{number}/{len(stages)}] {stage.title}"
            key = stage.key(build)
            kept = record.get(stage.name, {})
            if kept.get("key") == key and kept.get("outputs") == output_hashes(
                build, stage.outputs
            ):
                say(f"{label}: up to date")
                continue
            say(label)
            with _scratch(stage, key, build) as scratch:
                stage.run(build, scratch)
                _move_into(scratch, build, stage.outputs)
            record[stage.name] = {"key": key, "outputs": output_hashes(build, stage.outputs)}
            write_json(build / RECORD, record)
            ran.append(stage.name)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{build}: the disk is full; free some space and run the same command again "
                "(finished stages are kept)"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise UserError(
                f"{build}: {os.strerror(error.errno)}; choose a folder by --out that "
                "you may write to"
            ) from error
        raise
    return ran
