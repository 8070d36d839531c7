"""Packed products of the multiplier array: every value, every carry, and faults that show."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests/kernels/packed.cpp"
HEADER = ROOT / "hls/kernels/packed.hpp"
FLAGS = ["-std=c++14", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic",
         "-Wno-unknown-pragmas", "-Wno-unused-label"]  # fmt: skip
BUILDS = {
    "plain": [],
    "sanitized": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "synthesis": ["-D__SYNTHESIS__", f"-I{ROOT / 'tests/kernels/standin'}"],
}
CASES = {
    "products2": 256**3,
    "products3": 256 * 16**3,
    "extremes2": 2**21,
    "extremes3": 2**20,
    "random2": 2_100_104,
    "random3": 1_300_064,
}

pytestmark = [
    pytest.mark.csim,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def compiled(folder: Path, header: str, flags: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "packed.hpp").write_text(header)
    command = ["g++", *FLAGS, *flags, f"-I{folder}", str(SOURCE), "-o", str(folder / "packed")]
    subprocess.run(command, check=True, timeout=300)
    return folder / "packed"


def run(program: Path, case: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), case],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=BUILDS)
def program(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return compiled(folder, HEADER.read_text(), BUILDS[request.param])


@pytest.mark.parametrize("case", CASES)
def test_packed_products_equal_plain_ones(program, case):
    done = run(program, case)
    assert done.stdout + done.stderr == f"{CASES[case]} agree\n"
    assert done.returncode == 0


TWO = [case for case in CASES if case.endswith("2")]
THREE = [case for case in CASES if case.endswith("3")]

# Text of packed.hpp, the same with a fault, and the cases that have to notice it.
FAULTS = {
    "chain2": (
        "packed_chain(LANE2, WEIGHT_LIMIT);", "packed_chain(LANE2, WEIGHT_LIMIT) + 1;", ["random2"],
    ),
    "borrow": ("+ DspSum(borrow)", "+ DspSum(borrow - borrow)", TWO),
    "sign": ("int32_t(field ^ sign) - int32_t(sign)", "int32_t(field)", TWO),
    # a lane of -8 times -128 does not fit
    "lift": ("LIFT3 = 1023;", "LIFT3 = 1024;", THREE),
    "correction": ("total1 - INPUTS * LIFT3;", "total1 - (INPUTS - 1) * LIFT3;", THREE),
    "lane": ("LANE3 = 11;", "LANE3 = 10;", THREE),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault, tmp_path):
    right, wrong, cases = FAULTS[fault]
    text = HEADER.read_text()
    assert text.count(right) == 1
    program = compiled(tmp_path / "fault", text.replace(right, wrong), [])
    for case in cases:
        done = run(program, case)
        assert done.returncode == 1, (fault, case)
        assert "differs from" in done.stdout


# Every width is one that the product needs: a bit less in the hardware types shows.
WIDTHS = {
    "extremes2": {"ap_int<27> DspWide": 26, "ap_int<18> DspNarrow": 7, "ap_int<48> DspSum": 33},
    "random3": {"ap_int<27> DspWide": 26, "ap_int<18> DspNarrow": 7, "ap_int<48> DspSum": 32},
}


@pytest.mark.parametrize("declaration", WIDTHS["extremes2"])
@pytest.mark.parametrize("case", WIDTHS)
def test_narrower_operand_is_caught(case, declaration, tmp_path):
    text = HEADER.read_text()
    assert text.count(declaration) == 1
    head, _, tail = declaration.partition("<")
    narrower = f"{head}<{WIDTHS[case][declaration]}>{tail.partition('>')[2]}"
    program = compiled(
        tmp_path / "narrow", text.replace(declaration, narrower), BUILDS["synthesis"]
    )
    assert run(program, case).returncode == 1


def test_illegal_parameters_do_not_compile(tmp_path):
    call = "int8_t v[2]; int32_t s; lda::packed_dot2<2, 129>(v, v, v, s, s);"
    (tmp_path / "bad.cpp").write_text(f'#include "packed.hpp"\nvoid f() {{ {call} }}\n')
    done = subprocess.run(
        ["g++", *FLAGS, "-fsyntax-only", f"-I{HEADER.parent}", str(tmp_path / "bad.cpp")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "weights are int8" in done.stderr
