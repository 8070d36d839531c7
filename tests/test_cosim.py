"""Co-simulation of a program of one layer and of the bundled model's first blocks: with Vitis where
it is installed, everywhere with a stand-in that runs the same benches.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import vitis_standin as standin
from bench_builds import ENGINE, KERNELS, QUICK, first_blocks, one_layer
from cpp import ROOT

from gen.errors import UserError
from gen.vitis.board import load_board
from gen.vitis.emit import emit
from gen.vitis.gcc_run import run_bench
from gen.vitis.hls_run import CYCLES_WITHIN, run_hls
from gen.vitis.tools import hls_command

LINE = re.compile(r"(\w+): cosim passed, (\d+) cycles; the timed simulation expects (\d+) \(.*%\)")


QUICK_FIRST = pytest.mark.parametrize(
    "kernel", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KERNELS]
)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = one_layer(tmp_path_factory.mktemp("one") / "build")
    emit(folder, load_board("u250"))
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    folder = first_blocks(tmp_path_factory.mktemp("blocks"))
    emit(folder, load_board("u250"))
    return folder


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-ins of the tools on PATH; called with a version and further variables."""
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")

    def install(version="2023.2", **extra):
        for key, value in {**standin.install(tmp_path / "bin", version), **extra}.items():
            monkeypatch.setenv(key, value)

    return install


def cosimulate(folder, kernel):
    """Words are equal, and cycles those of the timed simulation."""
    (line,) = run_hls(folder, kernel, "cosim")
    name, measured, expected = LINE.fullmatch(line).groups()
    unit = ENGINE.units_of(ENGINE.kernel(kernel))[0].name
    assert name == kernel
    cycles = json.loads((folder / "vitis" / "vectors" / "cycles.json").read_text())
    assert int(expected) == cycles[unit]
    assert int(measured) == pytest.approx(int(expected), rel=CYCLES_WITHIN)


@pytest.mark.cosim
@pytest.mark.vitis
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["single", "blocks"])
def test_cosimulation(request, name, kernel):
    """The RTL of every kernel, where Vitis is installed."""
    try:
        hls_command(ROOT, "cosim")
    except UserError:
        pytest.skip("Vitis HLS is not installed: neither vitis_hls nor vitis-run was found")
    cosimulate(request.getfixturevalue(name), kernel)


@pytest.mark.csim
@QUICK_FIRST
@pytest.mark.parametrize("name", ["single", "blocks"])
def test_benches_pass(request, name, kernel):
    """Under g++, with the simulation's headers."""
    lines = run_bench(request.getfixturevalue(name), kernel)
    assert lines and all(line.endswith("PASS") for line in lines)


@pytest.mark.csim
@pytest.mark.parametrize("kernel", KERNELS)
def test_standin_cosimulates_one_layer(single, tools, kernel):
    """With the tool's own interface alone, which the stand-in's headers have."""
    tools()
    cosimulate(single, kernel)


@pytest.mark.csim
@QUICK_FIRST
def test_standin_cosimulates_first_blocks(blocks, tools, kernel):
    tools("2024.2")
    assert run_hls(blocks, kernel, "csim") == [f"{kernel}: csim passed"]
    cosimulate(blocks, kernel)


@pytest.mark.csim
def test_cycles_that_differ_are_told(single, tools):
    tools(STANDIN_CYCLES="1.3")
    (line,) = run_hls(single, "gather_2", "cosim")
    assert "more than 10 % off" in line and not LINE.fullmatch(line)


def damaged(data, at=70):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.csim
@pytest.mark.parametrize(
    ("kernel", "file", "change", "message"),
    [
        ("store", "result.bin", damaged, "cosim of kernel store did not pass"),
        ("wload", "ws_s.bin", damaged, "cosim of kernel wload did not pass"),
        ("wload", "weights.bin", lambda data: data[:-64], "weights has a depth of"),
        ("mac", "ws_s.bin", lambda data: data[:-128], "cosim of kernel mac did not pass"),
        ("mac", "gs_s.bin", lambda data: data + bytes(256), "mac left data|did not pass"),
        ("post", "qp_s.bin", None, "no such file .*qp_s.bin"),
    ],
)
def test_faults_do_not_pass(single, tools, tmp_path, kernel, file, change, message):
    """A wrong word, one too few, one too many; a memory that is too small; a missing file."""
    tools()
    folder = tmp_path / "build"
    shutil.copytree(single, folder, ignore=shutil.ignore_patterns("work"))
    emit(folder, load_board("u250"))
    path = folder / "vitis" / "vectors" / f"{kernel}_1" / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        run_hls(folder, kernel, "cosim")
    assert not (folder / "vitis" / "reports" / f"{kernel}_cosim.rpt").exists()


@pytest.mark.csim
def test_make_cosim_of_a_layer(blocks, tools):
    """``make cosim LAYER=...`` from a build to the comparison of cycles, and resumed."""
    tools()
    build, layer = blocks.parents[1], "conv_in"
    settings = [f"BUILD={build}", f"LAYER={layer}", "KERNEL=reduce_1", f"VENV={sys.prefix}"]
    # the environment and the build are there
    command = [
        "make",
        "--no-print-directory",
        "-o",
        f"{sys.prefix}/ready",
        "-o",
        "build",
        "cosim",
        *settings,
    ]

    def make():
        return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)

    done = make()
    assert done.returncode == 0, done.stdout + done.stderr
    made = build / "layers" / layer / "vitis"
    assert f"recorded one step in {made / 'vectors'}" in done.stdout
    assert LINE.fullmatch(done.stdout.splitlines()[-1]), done.stdout
    assert (made / "reports" / "reduce_1_cosim.rpt").is_file()
    again = make()
    assert again.returncode == 0 and "cosim passed" not in again.stdout
