"""Copies of the kernels with changes: faults that are planted, writes that come late."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from cpp import ROOT


def changed_sources(root: Path, source: str, *changes: tuple[str, int, str, str]) -> str:
    """A copy of the kernels and of tests/kernels/``source`` in ``root``, in whose kernel (first of
    each change) a text that occurs so often is another one; a flag that tells it from others.
    """
    shutil.copytree(ROOT / "hls", root / "hls")
    (root / "tests/kernels").mkdir(parents=True)
    shutil.copy(ROOT / "tests/kernels" / source, root / "tests/kernels")
    for name, count, before, after in changes:
        path = root / f"hls/kernels/{name}.hpp"
        text = path.read_text()
        assert text.count(before) == count, before
        path.write_text(text.replace(before, after))
    digest = hashlib.sha256(repr(changes).encode()).hexdigest()
    return f"-DCHANGED_{digest[:8]}"
