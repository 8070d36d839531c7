"""Goals of the Vitis flow, run against strict stand-ins of the tools."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import vitis_standin as standin

from gen.errors import UserError
from gen.program.program_io import FORMAT
from gen.vitis import checks, tools
from gen.vitis.board import load_board
from gen.vitis.card_run import CardBuild, compile_kernel, link_card
from gen.vitis.emit import Options, emit
from gen.vitis.hls_run import run_hls
from gen.vitis.topology import topology

ROOT = Path(__file__).resolve().parent.parent
RANKS = 2
ENGINE = topology(RANKS)
KERNELS = [kernel.name for kernel in ENGINE.kernels]


@pytest.fixture
def build(tmp_path):
    build = tmp_path / "build"
    (build / "src").mkdir(parents=True)
    program = {"format": FORMAT, "engine": {"ranks": RANKS, "weight_bits": 8}}
    (build / "program.json").write_text(json.dumps(program))
    for unit in ENGINE.units:
        (build / "vitis" / "vectors" / unit.name).mkdir(parents=True)
        (build / "vitis" / "vectors" / unit.name / "px_s.bin").write_bytes(bytes(64))
    for kernel in KERNELS:
        (build / "src" / f"{kernel}.cpp").write_text(f'extern "C" void {kernel}() {{}}\n')
        (build / "vitis" / "bench").mkdir(parents=True, exist_ok=True)
        (build / "vitis" / "bench" / f"{kernel}_tb.cpp").write_text("int main() { return 0; }\n")
    emit(build, load_board("u250"))
    (build / "vitis" / "vectors" / "made").write_text("by hand")
    return build


@pytest.fixture
def compiled(build):
    """The build with its objects as `make xo` leaves them."""
    for target in ("hw", "hw_emu"):
        folder = build / "vitis" / f"{target}.{standin.PLATFORM}"
        folder.mkdir()
        for kernel in KERNELS:
            content = {"kernel": kernel, "target": target, "clock_hz": 222000000}
            (folder / f"{kernel}.xo").write_text(json.dumps(content))
    return build


@pytest.fixture
def box(tmp_path, monkeypatch):
    """Put the stand-ins on this process's PATH."""

    def install(version="2023.2", **extra):
        for key, value in {**standin.install(tmp_path / "bin", version), **extra}.items():
            monkeypatch.setenv(key, value)

    return install


def card(build, target="hw", clock_mhz=222):
    return CardBuild(build, target, standin.PLATFORM, clock_mhz)


def flow(build, environment, *goals):
    """Run goals of flow.mk: status, output."""
    settings = [f"BUILD={build}", f"VITIS_PYTHON={sys.executable}"]
    done = subprocess.run(
        ["make", "-s", "-f", "vitis/flow.mk", *settings, *goals],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def names(folder):
    return [call[0] for call in standin.calls(folder) if "version" not in call[1]]


def test_xo_compiles_once_and_again_only_what_changed(build, tmp_path):
    environment = standin.install(tmp_path / "bin")
    status, text = flow(build, environment, "xo")
    assert status == 0, text
    folder = build / "vitis" / f"hw.{standin.PLATFORM}"
    assert sorted(path.name for path in folder.glob("*.xo")) == sorted(f"{k}.xo" for k in KERNELS)
    assert len(names(tmp_path / "bin")) == len(KERNELS) == 9
    assert flow(build, environment, "xo") == (0, "")
    assert len(names(tmp_path / "bin")) == 9
    os.utime(build / "src" / "gather_2.cpp")
    assert flow(build, environment, "xo")[0] == 0
    assert len(names(tmp_path / "bin")) == 10


def test_interrupted_compilation_leaves_nothing_and_is_resumed(build, tmp_path):
    environment = standin.install(tmp_path / "bin")
    status, text = flow(build, {**environment, "STANDIN_FAIL": "v++:pre"}, "xo")
    assert status == 2
    assert "v++ could not compile pre ([stand-in] synthesis of pre failed)" in text
    folder = build / "vitis" / f"hw.{standin.PLATFORM}"
    assert sorted(path.name for path in folder.glob("*.xo")) == ["store.xo", "wload.xo"]
    assert flow(build, environment, "xo")[0] == 0
    # pre is tried twice
    assert len(names(tmp_path / "bin")) == len(KERNELS) + 1


def test_xclbin_at_the_asked_clock(compiled, tmp_path):
    environment = standin.install(tmp_path / "bin")
    status, text = flow(compiled, environment, "xclbin")
    assert status == 0, text
    folder = compiled / "vitis" / f"hw.{standin.PLATFORM}"
    described = json.loads((folder / "engine.222.json").read_text())
    assert described["clock_mhz"] == described["clock_asked_mhz"] == 222
    assert described["uuid"] == "00000000-0000-0000-0000-0000000000de"
    assert len(described["program"]) == len(described["sha256"]) == 64
    assert flow(compiled, environment, "xclbin") == (0, "")


def test_scaled_clock_is_read_back(compiled, box):
    box(STANDIN_FAIL="scaled")
    text = "\n".join(link_card(card(compiled)))
    assert "timing was met at 198.3 MHz only, of 222 MHz asked for" in text
    (path,) = (compiled / "vitis").rglob("engine.222.json")
    assert json.loads(path.read_text())["clock_mhz"] == 198.3


def test_scaled_clock_without_xclbinutil_comes_from_the_log(compiled, box, tmp_path):
    box(STANDIN_FAIL="scaled")
    (tmp_path / "bin" / "xclbinutil").unlink()
    assert "198.3 MHz only" in "\n".join(link_card(card(compiled)))


def test_failed_timing_names_the_way_out(compiled, box):
    box(STANDIN_FAIL="timing")
    with pytest.raises(UserError, match=r"failed timing at 222 MHz.*FALLBACK=1"):
        link_card(card(compiled))
    assert not list((compiled / "vitis").rglob("*.xclbin"))


def test_fallback_tries_slower_clocks_in_turn(compiled, tmp_path):
    environment = {**standin.install(tmp_path / "bin"), "STANDIN_FAIL": "timing"}
    status, text = flow(compiled, environment, "xclbin", "FALLBACK=1")
    assert status == 0, text
    assert "linked for 200 MHz" in text and "linked for 150 MHz" in text
    (made,) = (compiled / "vitis").rglob("engine.*.xclbin")
    assert made.name == "engine.150.xclbin"


def test_fallback_does_not_hide_other_failures(compiled, box, tmp_path):
    box(STANDIN_FAIL="v++:link")
    with pytest.raises(UserError, match=r"could not link .*no licence for the part"):
        link_card(card(compiled), [200, 150])
    assert sum("-l" in call for call in standin.calls(tmp_path / "bin")) == 1


def test_emulation_and_package(compiled, box, tmp_path):
    box()
    text = "\n".join(link_card(card(compiled, "hw_emu"), package=True))
    folder = compiled / "vitis" / f"hw_emu.{standin.PLATFORM}"
    assert (folder / "emconfig.json").exists()
    assert f"EMCONFIG_PATH={folder}" in text
    assert any("-p" in call for call in standin.calls(tmp_path / "bin"))


def test_software_emulation_is_refused(build, box):
    box()
    with pytest.raises(UserError, match="TARGET=sw_emu is not possible"):
        compile_kernel(card(build, "sw_emu"), "mac")


@pytest.mark.parametrize("version", ["2022.1", "2024.1", "2024.2"])
def test_synthesis_with_both_front_ends(build, box, tmp_path, version):
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    box(version)
    text = "\n".join(run_hls(build, "mac", "csynth"))
    assert "mac: 70211 LUT" in text
    assert "loop words reaches II 2 instead of 1" in text
    assert (build / "vitis" / "reports" / "mac_csynth.xml").exists()
    expected = "vitis-run" if version == "2024.2" else "vitis_hls"
    assert names(tmp_path / "bin") == [expected]


def test_simulations(build, tmp_path):
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    environment = standin.install(tmp_path / "bin", "2024.2")
    status, text = flow(build, environment, "csim", "cosim", "KERNEL=pre")
    assert status == 0, text
    assert "pre: csim passed" in text
    assert "pre: cosim passed, 2431 cycles\n" in text
    assert flow(build, environment, "csim", "cosim", "KERNEL=pre") == (0, "")
    os.utime(build / "vitis" / "vectors" / "made", (4e9, 4e9))
    assert "csim passed" in flow(build, environment, "csim", "KERNEL=pre")[1]


def test_cosimulation_is_compared_with_the_timed_simulation(build, box):
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    box()
    cycles = {unit.name: 100 * number for number, unit in enumerate(ENGINE.units, 1)}
    (build / "vitis" / "vectors" / "cycles.json").write_text(json.dumps(cycles))
    (line,) = run_hls(build, "gather_2", "cosim")
    assert line == (
        f"gather_2: cosim passed, {cycles['gather_2']} cycles; "
        f"the timed simulation expects {cycles['gather_2']} (+0.0 %)"
    )
    box(STANDIN_CYCLES="1.2")
    (line,) = run_hls(build, "gather_2", "cosim")
    assert "(+20.0 %), more than 10 % off" in line and "ENGINE_FILE" in line
    (build / "vitis" / "vectors" / "cycles.json").write_text("{}")
    with pytest.raises(UserError, match="run make vectors again"):
        run_hls(build, "gather_2", "cosim")


def test_kernel_that_does_not_exist(build, box):
    box()
    with pytest.raises(UserError, match=r"gather_3 is no kernel of .*gather_2"):
        run_hls(build, "gather_3", "csynth")
    with pytest.raises(UserError, match="gather is no kernel"):
        compile_kernel(card(build), "gather")


@pytest.mark.parametrize(
    ("fault", "goal", "message"),
    [
        ("csim:pre", "csim", r"csim of kernel pre failed \(\[stand-in\] 'csim_design' failed"),
        ("cosim", "cosim", "cosim of kernel pre did not pass"),
        ("csynth:pre", "csynth", "csynth of kernel pre failed"),
    ],
)
def test_failed_simulations(build, box, fault, goal, message):
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    box(STANDIN_FAIL=fault)
    with pytest.raises(UserError, match=message):
        run_hls(build, "pre", goal)
    assert not list((build / "vitis").glob("reports/pre_*"))


@pytest.mark.parametrize("goal", ["csim", "cosim"])
def test_leftover_data_is_a_failure(build, box, goal):
    """The tool prints a warning and ends with status 0."""
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    box()
    (build / "vitis" / "bench" / "pre_tb.cpp").write_text(
        '#include "hls_stream.h"\nint main() { hls::stream<int> s("px_s"); s.write(1); }\n'
    )
    with pytest.raises(UserError, match="left data in a stream"):
        run_hls(build, "pre", goal)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("return 1;", "cosim of kernel pre did not pass"),
        ('std::puts(std::fopen("seen", "r") ? "a" : "b"); std::fopen("seen", "w"); return 0;',
         "the two runs of the test bench differ"),
        ("return argc == 2 ? 0 : 1", "C[+][+] does not compile"),
    ],
)  # fmt: skip
def test_bench_that_cannot_pass(build, box, statement, message):
    """It is compiled and run by the stand-in, twice, as co-simulation does."""
    pytest.importorskip("_tkinter", reason="needs Python's Tcl to interpret the scripts")
    box()
    bench = build / "vitis" / "bench" / "pre_tb.cpp"
    bench.write_text(f"#include <cstdio>\nint main(int, char**) {{ {statement} }}\n")
    with pytest.raises(UserError, match=message):
        run_hls(build, "pre", "cosim")
    assert not list((build / "vitis").glob("reports/pre_*"))


def test_simulation_without_bench(build, box):
    box()
    (build / "vitis" / "bench" / "pre_tb.cpp").unlink()
    with pytest.raises(UserError, match="has no test bench"):
        run_hls(build, "pre", "csim")


@pytest.mark.parametrize("goal", ["xo", "csynth"])
def test_missing_tools_are_one_sentence(build, goal):
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    status, text = flow(build, environment, goal, "KERNEL=mac")
    assert status == 2
    sentences = [line for line in text.splitlines() if not line.startswith("make")]
    assert len(sentences) == 1
    assert "not found" in sentences[0] or "neither" in sentences[0]
    assert "Traceback" not in text


def test_missing_platform_is_one_sentence(build, box, tmp_path):
    box(PLATFORM_REPO_PATHS=str(tmp_path))
    with pytest.raises(UserError, match=r"the platform xilinx_u250.* was not found"):
        compile_kernel(card(build), "mac")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nk=mac:2", "nk=mac2:2"),
        ("nk=mac:2", "nk=mac:1"),
        ("nk=mac:2", "nk=mac:2:mac_1.mac_2"),
        ("nk=gather_2:1:gather_2", "nk=gather_2:1"),
        ("kernel_frequency", "kernel_freq"),
        ("slr=mac_1:", "slr=mac_9:"),
        ("synth.jobs=8", "synth.jobs=8 # many"),
    ],
)
def test_standin_is_strict(compiled, box, old, new):
    """A wrong option, file or key does not get past the stand-in."""
    box()
    link = compiled / "vitis" / "link" / "hw.222.cfg"
    text = link.read_text()
    assert old in text
    link.write_text(text.replace(old, new))
    with pytest.raises(UserError, match="stand-in"):
        link_card(card(compiled))


def test_help_lists_the_goals():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    goals = "vectors kernel-bench lint-hls csynth csim cosim xo xclbin check-vitis check-platform"
    for goal in [*goals.split(), "check-xrt", "doctor"]:
        assert f"  make {goal} " in text


@pytest.mark.parametrize(
    ("version", "good", "word"),
    [
        ("2023.2", True, "known to fit"),
        ("2022.2", True, "warn against"),
        ("2025.1", False, "has not been tried"),
        ("2025.2", False, "no longer supports"),
        ("2026.1", False, "no longer supports"),
        ("2021.2", False, "has not been tried"),
    ],
)
def test_versions(version, good, word):
    found, sentence = tools.version_remark(version, load_board("u250").tools)
    assert found is good and word in sentence


def test_check_vitis_reads_the_version(tmp_path, monkeypatch):
    for key, value in standin.install(tmp_path / "bin", "2022.2").items():
        monkeypatch.setenv(key, value)
    found = checks.check_vitis(load_board("u250"))
    assert all(check.good for check in found)
    assert "warn against" in found[-1].sentence


def test_doctor_without_anything(tmp_path):
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    environment.pop("XILINX_XRT", None)
    command = [sys.executable, "-m", "gen.vitis", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    for subject in ("v++", "HLS", "platform", "XRT", "pyxrt", "card"):
        assert f"MISSING {subject}: " in done.stdout
    assert "ok      Python" in done.stdout


def test_card_without_shell_is_named(tmp_path, monkeypatch):
    tool = tmp_path / "xrt-smi"
    tool.write_text("#!/bin/sh\necho '|[0000:17:00.0] |xilinx_u250_gen3x16_base_4 |0x0 |mgmt |'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (check,) = checks.check_card(load_board("u250"))
    assert not check.good and "xbmgmt program" in check.sentence
    tool.write_text("#!/bin/sh\necho '|[0000:17:00.1] |xilinx_u250_gen3x16_xdma_shell_4_1 |'\n")
    (check,) = checks.check_card(load_board("u250"))
    assert check.good


def test_slower_hls_clock_moves_the_default(build):
    emit(build, load_board("u250"), Options(hls_clock_mhz=200))
    settings = (build / "vitis" / "settings.mk").read_text().splitlines()
    assert "CLOCK ?= 200" in settings and "FALLBACK_CLOCKS := 150" in settings
