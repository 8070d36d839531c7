"""Every kind of layer, whole and in strips, on cards that watch their memory and arithmetic."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cpp import ROOT

SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_layers_csim as t
card = t.GenericCard("-O1", "-g", "-march=native", "-fsanitize=address,undefined",
                     "-fno-sanitize-recover=all", "-DLDA_RANKS={ranks}", *{flags!r})
narrow = t.NIBBLES in {flags!r}
bits = 4 if narrow else 8
for kind in t.KINDS:
    even = kind.startswith("stride2")
    strips = dict(size=(12, 10) if even else (12, 9), channels=40)
    for shape, engine in ((dict(), dict()), (strips, dict(t.TIGHT, weight_rows=110))):
        graph = (t.drawn_narrow if narrow else t.drawn)(kind, 11, **shape)
        found = t.first_difference(graph, {ranks}, card, weight_bits=bits, **engine)
        assert found is None, kind
print("clean")
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("bits", [(), ("-DLDA_WEIGHT_BITS=4",)], ids=["w8", "w4"])
@pytest.mark.parametrize("form", [(), ("-DLDA_PLAIN",)], ids=["fast", "plain"])
def test_sanitisers_find_nothing(form, bits, ranks):
    libasan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    tests, root = str(ROOT / "tests"), str(ROOT)
    script = SCRIPT.format(tests=tests, root=root, ranks=ranks, flags=form + bits)
    environment = {**os.environ, "LD_PRELOAD": libasan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr[-3000:]
