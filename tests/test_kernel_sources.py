"""The kernels' other compilations: for synthesis, and with illegal parameters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from cpp import BASE_FLAGS, ROOT
from layerkit import random_qgraph

from gen.emit import emit_sources
from gen.program import Engine, lower
from gen.vitis.topology import RANKS, topology


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[tuple[int, tuple[int, int]], Path]:
    """Sources of one program by the number of ranks and the bits of a weight row, in the array and
    in memory.
    """
    made = {}
    for ranks, bits in [*((ranks, (8, 8)) for ranks in RANKS), (4, (4, 4)), (4, (8, 4))]:
        array, stored = bits
        made[ranks, bits] = tmp_path_factory.mktemp(f"src{ranks}{array}{stored}")
        qgraph = random_qgraph("linear", np.random.default_rng(1))
        engine = Engine(ranks=ranks, weight_bits=array, stored_bits=stored)
        emit_sources(lower(qgraph, engine), made[ranks, bits])
    return made


def tops() -> list[tuple[int, tuple[int, int], str]]:
    """(ranks, bits, top) of every translation unit that differs; ranks change types only elsewhere,
    bits of a weight row what makes, sends and takes them.
    """
    wide, narrow, widened = (8, 8), (4, 4), (8, 4)
    found = [(4, wide, kernel.name) for kernel in topology(4).kernels]
    others = [(n, wide, k.name) for n in (1, 2) for k in topology(n).kernels if k.rank is not None]
    others += [(4, narrow, name) for name in ("store", "wload", "gather_1", "mac")]
    return [*found, *others, (4, widened, "wload")]


@pytest.mark.parametrize(("ranks", "bits", "kernel"), tops())
def test_top_compiles_for_synthesis(ranks, bits, kernel, sources):
    """What only Vitis sees is C++14, and without simulation marks."""
    flags = [flag for flag in BASE_FLAGS if "hls/sim" not in flag and flag != "-shared"]
    includes = [ROOT / "tests/kernels/standin", ROOT / "hls/kernels", sources[ranks, bits]]
    subprocess.run(
        ["g++", *flags, "-D__SYNTHESIS__", "-fsyntax-only", "-pedantic", "-Wno-unused-parameter",
         *(f"-I{folder}" for folder in includes), str(sources[ranks, bits] / f"{kernel}.cpp")],
        check=True,
    )  # fmt: skip


CHECK = """\
#include "params.hpp"
struct Engine : lda::EngineDefaults {{
{constants}
}};
static_assert(lda::CheckEngine<Engine>::ok, "checked");
"""


def check_engine(tmp_path, constants) -> subprocess.CompletedProcess[str]:
    lines = [f"    static const int {name} = {value};" for name, value in constants.items()]
    source = tmp_path / "engine.cpp"
    source.write_text(CHECK.format(constants="\n".join(lines)))
    flags = [flag for flag in BASE_FLAGS if flag != "-shared"]
    command = ["g++", *flags, "-fsyntax-only", f"-I{ROOT / 'hls/kernels'}", str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"RANKS": 3}, "1, 2 or 4 ranks"),
        ({"WEIGHT_BITS": 5}, "weight rows of 8 or 4 bits"),
        ({"STORED_BITS": 5}, "stored rows of as many bits as the array's"),
        ({"WEIGHT_BITS": 4}, "stored rows of as many bits as the array's"),
        ({"PI": 8}, "16 inputs and 8 outputs"),
        ({"PO": 16}, "16 inputs and 8 outputs"),
        ({"PP": 24}, "a tile is a power of two"),
        ({"PP": 16}, "a tile is a power of two"),
        ({"FABRIC_OUTPUTS": 9}, "of PO outputs"),
        ({"WINDOW_ROWS": 0}, "memory sizes"),
        ({"SUMS": 12}, "memory sizes"),
        ({"NORMALISERS": 3}, "1, 2, 4 or 8 rows"),
        ({"GUARD": 0}, "a word is read after it was written"),
        ({"DEPTH_YS": 131}, "ys holds the micro-slots"),
        ({"DEPTH_RS": 131}, "rs holds the residuals"),
        ({"DEPTH_QP": 319}, "qp holds the parameters of a round"),
        ({"JOINED_UNITS": 161}, "qp holds the parameters of joined products"),
        ({"LAG": 1}, "post takes residuals"),
    ],
)
def test_illegal_parameters_do_not_compile(constants, message, tmp_path):
    done = check_engine(tmp_path, constants)
    assert done.returncode != 0
    assert message in done.stderr


def test_default_parameters_compile(tmp_path):
    for ranks in RANKS:
        assert check_engine(tmp_path, {"RANKS": ranks}).returncode == 0
