"""The kernels' other compilations: for synthesis, and with illegal parameters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from generic_card import BASE_FLAGS, ROOT
from layerkit import random_qgraph

from gen.emit import emit_sources
from gen.program import Engine, lower


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("src")
    emit_sources(lower(random_qgraph("linear", np.random.default_rng(1)), Engine()), folder)
    return folder


@pytest.mark.parametrize("kernel", ["store", "wload", "pre", "mac", "post"])
def test_top_compiles_for_synthesis(kernel, sources):
    """What only Vitis sees is C++14, and without simulation marks."""
    flags = [flag for flag in BASE_FLAGS if "hls/sim" not in flag and flag != "-shared"]
    includes = [ROOT / "tests/kernels/standin", ROOT / "hls/kernels", sources]
    subprocess.run(
        ["g++", *flags, "-D__SYNTHESIS__", "-fsyntax-only", "-pedantic", "-Wno-unused-parameter",
         *(f"-I{folder}" for folder in includes), str(sources / f"{kernel}.cpp")],
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pixels", "message"),
    [(24, "a tile is a power of two"), (8, "the lag covers"), (512, "ys and as together hold")],
)
def test_illegal_parameters_do_not_compile(pixels, message):
    flags = [flag for flag in BASE_FLAGS if flag != "-shared"]
    extra = ["-fsyntax-only", f"-DLDA_PP={pixels}", "-DLDA_LAG=8"]
    done = subprocess.run(
        ["g++", *flags, *extra, str(ROOT / "hls/card/generic.cpp")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
