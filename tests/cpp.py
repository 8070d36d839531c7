"""C++ of the tests, compiled once per source, headers and flags."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE_FLAGS = ("-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
              "-Wno-unused-label", "-fPIC", "-shared", f"-I{ROOT / 'hls/sim'}")  # fmt: skip
FAST = ("-O2", "-ftree-vectorize", "-march=native")  # as gen.compile compiles a build


def compile_cpp(source: Path, flags: tuple[str, ...] = FAST) -> Path:
    """A shared object of ``source``, kept between test runs by the hash of all kernel sources."""
    files = [*sorted((ROOT / "hls").rglob("*.h*")), source]
    digest = hashlib.sha256(repr((flags, [p.read_bytes() for p in files])).encode()).hexdigest()
    folder = Path(os.environ.get("LDA_TEST_CACHE", Path(tempfile.gettempdir()) / "lda-test-cache"))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}-{digest[:20]}.so"
    if not target.exists():
        made = target.with_suffix(f".{os.getpid()}")
        subprocess.run(["g++", *BASE_FLAGS, *flags, str(source), "-o", str(made)], check=True)
        made.replace(target)
    return target
