"""Every kind of layer, whole and in strips, and starts of several steps on cards that watch their
memory and arithmetic.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cpp import ROOT

START = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from generic_card import GenericCard
card = GenericCard("-O1", "-g", "-march=native", "-fsanitize=address,undefined",
                   "-fno-sanitize-recover=all", "-DLDA_RANKS={ranks}", *{flags!r})
"""
LAYERS = """
import test_layers_csim as t
members = [m for flag, m in t.FOUR_BIT_KINDS.values() if flag in {flags!r}]
(members,) = members or ({{}},)
for kind in t.KINDS:
    even = kind.startswith("stride2")
    strips = dict(size=(12, 10) if even else (12, 9), channels=40)
    for shape, engine in ((dict(), dict()), (strips, dict(t.TIGHT, weight_rows=110))):
        graph = (t.drawn_narrow if members else t.drawn)(kind, 11, **shape)
        found = t.first_difference(graph, {ranks}, card, **members, **engine)
        assert found is None, kind
"""
SEVERAL = """
import numpy as np
from samplerkit import SeveralSteps, eps_graph, sampled
from storekit import least_store
for seed in range(4):
    rng = np.random.default_rng(seed)
    qgraph = eps_graph(rng, again=seed % 2 == 1)
    program = sampled(qgraph, {ranks})
    if seed % 2 == 1:
        program = sampled(qgraph, {ranks}, store_rows=least_store(qgraph, program.engine))
        assert program.moves
    made = SeveralSteps(rng, qgraph, program, steps=seed + 2)
    result, state = made.expected()
    got, states = made.on(card)
    np.testing.assert_array_equal(got, result)
    for each in states:
        np.testing.assert_array_equal(each, state)
"""


def run_clean(script: str, ranks: int, flags: tuple[str, ...]) -> None:
    """The script in a process that the address sanitiser was loaded into first."""
    libasan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    whole = f"{START}{script}print('clean')\n"
    whole = whole.format(tests=str(ROOT / "tests"), root=str(ROOT), ranks=ranks, flags=flags)
    environment = {**os.environ, "LD_PRELOAD": libasan, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", whole], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    "bits",
    [(), ("-DLDA_WEIGHT_BITS=4",), ("-DLDA_STORED_BITS=4",)],
    ids=["w8", "w4", "w4 widened"],
)
@pytest.mark.parametrize("form", [(), ("-DLDA_PLAIN",)], ids=["fast", "plain"])
def test_sanitisers_find_nothing(form, bits, ranks):
    run_clean(LAYERS, ranks, form + bits)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("form", [(), ("-DLDA_PLAIN",)], ids=["fast", "plain"])
def test_starts_of_several_steps_are_clean(form, ranks):
    run_clean(SEVERAL, ranks, (*form, "-DLDA_SAMPLER=256", "-DLDA_SAMPLER_CHANNELS=4"))
