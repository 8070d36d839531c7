"""A stand-in for the tools of Vitis and XRT that is strict about arguments and files.

``install(folder, version)`` puts ``v++``, ``vitis_hls`` (or ``vitis-run``), ``xclbinutil`` and
``emconfigutil`` into a folder for PATH. They refuse options and configuration keys that are not in
the documented lists and files that do not exist, interpret the Tcl scripts with Python's own Tcl,
record every call in ``calls.jsonl``, and leave what the real tools would leave: objects (JSON
here), reports after the documented formats, logs. C simulation and co-simulation compile the
kernel with its bench (against tests/kernels/standin, which knows nothing but the tool's interface)
and run it, co-simulation twice; what stands for the RTL is the C++. Its cycles are those that the
timed simulation expects, times STANDIN_CYCLES (default 1); 2431 where none are expected.
STANDIN_FAIL makes a tool fail: ``TOOL`` or ``TOOL:KERNEL``, ``timing``, ``scaled``, ``cosim``.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data" / "vitis"
HEADERS = Path(__file__).resolve().parent / "kernels" / "standin"
# of data/vitis/cosim.rpt
CYCLES = 2431
PLATFORM = "xilinx_u250_gen3x16_xdma_4_1_202210_1"


def install(folder, version="2023.2", unified=None):
    """Write the tools and a platform; returns the environment to run with."""
    folder.mkdir(parents=True, exist_ok=True)
    unified = version >= "2024.2" if unified is None else unified
    for name in ["v++", "vitis-run" if unified else "vitis_hls", "xclbinutil", "emconfigutil"]:
        tool = folder / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" {name} "$@"\n')
        tool.chmod(0o755)
    platforms = folder / "platforms"
    (platforms / PLATFORM).mkdir(parents=True, exist_ok=True)
    (platforms / PLATFORM / f"{PLATFORM}.xpfm").write_text("platform")
    return {
        **os.environ,
        "PATH": f"{folder}:/usr/bin:/bin",
        "PLATFORM_REPO_PATHS": str(platforms),
        "STANDIN_VERSION": version,
        "STANDIN_CALLS": str(folder / "calls.jsonl"),
    }


def calls(folder):
    """Recorded calls: tool name and arguments."""
    path = folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def refuse(message):
    print(f"ERROR: [stand-in] {message}", flush=True)
    sys.exit(1)


def failing(*names):
    return os.environ.get("STANDIN_FAIL") in names


def existing(path):
    if not Path(path).is_file():
        refuse(f"no such file {path}")
    return Path(path)


# --- v++ ----------------------------------------------------------------------------------------

SWITCHES = {"-c", "-l", "-p", "-g", "--save-temps"}
VALUED = {"-t", "-k", "-o", "-I", "--platform", "--config", "--temp_dir", "--log_dir"} | {
    "--report_dir", "--optimize", "--package.out_dir",
}  # fmt: skip
COMPILE_KEYS = {"": {"kernel", "save-temps"}, "hls": {"clock", "pre_tcl"}}
LINK_KEYS = {
    "": {"kernel_frequency"},
    "connectivity": {"nk", "sp", "stream_connect", "slr"},
    "clock": {"freqHz", "defaultFreqHz"},
    "vivado": {"prop", "impl.strategies", "synth.jobs", "impl.jobs"},
}


def parse_config(path, keys):
    section, values = "", []
    for line in existing(path).read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            if section not in keys:
                refuse(f"{path}: unknown section {section}")
            continue
        key, _, value = line.partition("=")
        if key not in keys.get(section, ()) or not value or "#" in value:
            refuse(f"{path}: bad line {line}")
        values.append((section, key, value))
    return values


def parse_arguments(arguments):
    options, rest = {"-I": []}, []
    iterator = iter(arguments)
    for word in iterator:
        if word in SWITCHES:
            options[word] = True
        elif word in VALUED:
            value = next(iterator, None) or refuse(f"{word} lacks its value")
            if word == "-I":
                options["-I"].append(value)
            elif word in options:
                refuse(f"{word} is given twice")
            else:
                options[word] = value
        elif word.startswith("-"):
            refuse(f"unknown option {word}")
        else:
            rest.append(word)
    return options, rest


def vpp(arguments):
    if arguments == ["--version"]:
        print(f"v++ v{os.environ['STANDIN_VERSION']} (64-bit)")
        return
    options, rest = parse_arguments(arguments)
    if options.get("-t") not in ("hw", "hw_emu"):
        refuse("-t must be hw or hw_emu")
    find_platform(options.get("--platform") or refuse("no --platform"))
    if "-o" not in options or not Path(options["-o"]).parent.is_dir():
        refuse("no -o, or its folder does not exist")
    modes = [mode for mode in ("-c", "-l", "-p") if options.get(mode)]
    if len(modes) != 1:
        refuse("one of -c, -l, -p")
    {"-c": compile_kernel, "-l": link, "-p": package}[modes[0]](options, rest)


def find_platform(name):
    root = Path(os.environ["PLATFORM_REPO_PATHS"])
    if not (root / name / f"{name}.xpfm").is_file() and not Path(name).is_file():
        refuse(f"unknown platform {name}")


def compile_kernel(options, rest):
    kernel = options.get("-k") or refuse("no -k")
    if failing(f"v++:{kernel}"):
        refuse(f"synthesis of {kernel} failed")
    values = parse_config(options["--config"], COMPILE_KEYS)
    if ("", "kernel", kernel) not in values:
        refuse("configuration of another kernel")
    for _, key, value in values:
        if key == "pre_tcl":
            existing(value)
    clocks = [value for _, key, value in values if key == "clock"]
    if len(clocks) != 1 or not clocks[0].endswith(f":{kernel}"):
        refuse(f"bad clock {clocks}")
    if len(rest) != 1 or not all(Path(folder).is_dir() for folder in options["-I"]):
        refuse("one source, and include folders that exist")
    if f"void {kernel}(" not in existing(rest[0]).read_text():
        refuse(f"{rest[0]} does not define {kernel}")
    clock = int(clocks[0].split(":")[0])
    Path(options["-o"]).write_text(
        json.dumps({"kernel": kernel, "target": options["-t"], "clock_hz": clock})
    )


def units_of(value):
    """Units of an nk line; several names in one line are not the same in all versions."""
    kernel, count, *names = value.split(":")
    if len(names) > 1 or any(each in name for name in names for each in ".,"):
        refuse(f"nk={value} is not clear")
    if names and count != "1":
        refuse(f"nk={value}: one name for {count} units")
    return set(names) or {f"{kernel}_{number + 1}" for number in range(int(count))}


def link(options, rest):
    values = parse_config(options["--config"], LINK_KEYS)
    objects = [json.loads(existing(path).read_text()) for path in rest]
    units, named = set(), []
    for _, key, value in values:
        if key == "nk":
            units |= units_of(value)
            named.append(value.split(":")[0])
    if sorted(named) != sorted(each["kernel"] for each in objects):
        refuse("kernels linked and kernels named by nk differ")
    if any(each["target"] != options["-t"] for each in objects):
        refuse("an object was compiled for another target")
    for _, key, value in values:
        ends = value.split(":")[:2] if key == "stream_connect" else [value.split(":")[0]]
        if key in ("sp", "stream_connect", "slr") and any(
            e.split(".")[0] not in units for e in ends
        ):
            refuse(f"{key}={value} names no unit")
    frequency = next((v for _, key, v in values if key == "kernel_frequency"), None)
    if frequency is None or not frequency.startswith("0:"):
        refuse("no kernel_frequency")
    asked = int(frequency[2:])
    if any(each["clock_hz"] < asked * 1_000_000 for each in objects):
        refuse("an object was compiled for a slower clock")
    log = Path(options["--temp_dir"]) / "link" / "vivado" / "vpl" / "runme.log"
    log.parent.mkdir(parents=True)
    log.write_text("Post Routing Timing Summary | WNS=0.021  | TNS=0.000  |\n")
    got = asked
    if failing("timing") and asked > 150:
        log.write_text("WNS=-1.300 | TNS=-99\nThe design did not meet timing requirements.\n")
        refuse("vpl: design did not meet timing")
    if failing("scaled"):
        got = 198.3
        log.write_text((DATA / "link_scaled.log").read_text())
    if failing("v++", "v++:link"):
        refuse("no licence for the part")
    Path(options["-o"]).write_text(json.dumps({"mhz": got, "target": options["-t"]}))


def package(options, rest):
    if len(rest) != 1 or "--package.out_dir" not in options:
        refuse("one xclbin and --package.out_dir")
    Path(options["-o"]).write_text(existing(rest[0]).read_text())


# --- HLS ----------------------------------------------------------------------------------------


def hls(arguments):
    if arguments == ["-version"]:
        print(f"Vitis HLS v{os.environ['STANDIN_VERSION']} (64-bit)")
        return
    if len(arguments) != 2 or arguments[0] != "-f":
        refuse("vitis_hls -f SCRIPT")
    run_tcl(existing(arguments[1]), ["open_project", "open_solution"])


def vitis_run(arguments):
    if arguments == ["--version"]:
        print(f"vitis-run v{os.environ['STANDIN_VERSION']} (64-bit)")
        return
    if len(arguments) != 4 or arguments[:3] != ["--mode", "hls", "--tcl"]:
        refuse("vitis-run --mode hls --tcl SCRIPT")
    run_tcl(existing(arguments[3]), ["open_component"])


class Project:
    """State of one HLS run; each method is a Tcl command of the tool."""

    def __init__(self, opening):
        self.opening = opening
        self.done = []
        self.top = self.folder = None
        self.sources, self.benches = [], []
        self.flags = {"source": [], "bench": []}

    def options(self, words, flags=(), valued=()):
        plain, found = [], {}
        iterator = iter(words)
        for word in iterator:
            if word in flags:
                found[word] = True
            elif word in valued:
                found[word] = next(iterator)
            elif word.startswith("-"):
                refuse(f"unknown option {word}")
            else:
                plain.append(word)
        return plain, found

    def open_project(self, *words):
        plain, found = self.options(words, flags=["-reset"])
        if len(plain) != 1 or not found:
            refuse("open_project -reset NAME")
        self.done.append("open_project")
        self.folder = Path(plain[0])

    def open_solution(self, *words):
        plain, found = self.options(words, flags=["-reset"], valued=["-flow_target"])
        if self.done != ["open_project"] or found.get("-flow_target") != "vitis":
            refuse("open_solution before open_project, or not for vitis")
        self.done.append("open_solution")
        self.folder = self.folder / plain[0]

    def open_component(self, *words):
        plain, found = self.options(words, flags=["-reset"], valued=["-flow_target"])
        if found.get("-flow_target") != "vitis":
            refuse("not for vitis")
        self.done = ["open_component"]
        self.folder = Path(plain[0]) / "hls"

    def set_top(self, name):
        self.top = name

    def add_files(self, *words):
        plain, found = self.options(words, flags=["-tb"], valued=["-cflags"])
        flags = found.get("-cflags", "").split()
        if "-std=c++14" not in flags:
            refuse("no -std=c++14")
        for flag in flags:
            if flag.startswith("-I") and not Path(flag[2:]).is_dir():
                refuse(f"no such include folder {flag}")
        (self.benches if "-tb" in found else self.sources).extend(existing(p) for p in plain)
        self.flags["bench" if "-tb" in found else "source"] = flags

    def set_part(self, name):
        if name != "xcu250-figd2104-2L-e":
            refuse(f"unknown part {name}")

    def create_clock(self, *words):
        _, found = self.options(words, valued=["-period", "-name"])
        if not 1 < float(found["-period"]) < 20:
            refuse("odd clock period")

    def set_clock_uncertainty(self, value):
        if not value.endswith("%"):
            refuse("odd uncertainty")

    def config_compile(self, *words):
        _, found = self.options(words, valued=["-pipeline_style"])
        if found.get("-pipeline_style") not in ("stp", "flp", "frp"):
            refuse("odd pipeline style")

    def ready(self, bench):
        if self.done[: len(self.opening)] != self.opening:
            refuse("no open solution")
        if self.top is None or f"void {self.top}(" not in self.sources[0].read_text():
            refuse("no top function")
        if bench and not self.benches:
            refuse("no test bench")
        print(f"INFO: [stand-in] {self.top}")

    def csim_design(self, *words):
        _, found = self.options(words, flags=["-clean"], valued=["-argv"])
        self.ready(bench=True)
        status, text = self.run(self.compiled("csim"), found["-argv"])
        print(text)
        if status != 0 or failing("csim", f"csim:{self.top}"):
            refuse("'csim_design' failed: nonzero return value.")

    def compiled(self, step):
        """The bench with the kernel."""
        folder = self.folder / step
        folder.mkdir(parents=True)
        objects = []
        for kind, files in (("source", self.sources), ("bench", self.benches)):
            for path in files:
                objects.append(str(folder / f"{path.stem}.o"))
                command = ["g++", "-O1", "-Wno-unknown-pragmas", f"-I{HEADERS}", *self.flags[kind]]
                compile_cpp([*command, "-c", str(path), "-o", objects[-1]])
        compile_cpp(["g++", *objects, "-o", str(folder / "csim.exe")])
        return folder / "csim.exe"

    def run(self, program, vectors):
        self.check_vectors(Path(vectors))
        done = subprocess.run([program.resolve(), vectors], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def check_vectors(self, folder):
        """A file for every port, and memories of at least the depth that the port declares."""
        if not folder.is_dir():
            refuse(f"no vectors {folder}")
        text = self.sources[0].read_text()
        for port in re.findall(r"interface mode=(?:axis|m_axi) port=(\w+)", text):
            existing(folder / f"{port}.bin")
        for port, depth in re.findall(r"mode=m_axi port=(\w+) .*depth=(\d+)", text):
            if (folder / f"{port}.bin").stat().st_size < 64 * int(depth):
                refuse(f"{port} has a depth of {depth}, its buffer is smaller")

    def csynth_design(self):
        self.ready(bench=False)
        self.done.append("csynth_design")
        if failing("csynth", f"csynth:{self.top}"):
            refuse("cannot schedule")
        report = self.folder / "syn" / "report"
        report.mkdir(parents=True)
        text = (DATA / "csynth.xml").read_text().replace("KERNEL", self.top)
        (report / "csynth.xml").write_text(text)
        (report / f"{self.top}_csynth.xml").write_text(text)

    def cosim_design(self, *words):
        _, found = self.options(words, flags=["-random_stall"], valued=["-trace_level", "-argv"])
        self.ready(bench=True)
        if "csynth_design" not in self.done:
            refuse("co-simulation before synthesis")
        program = self.compiled("sim")
        runs = [self.run(program, found["-argv"]) for _ in range(2)]
        print(runs[0][1])
        if runs[0] != runs[1]:
            refuse("the two runs of the test bench differ")
        report = self.folder / "sim" / "report"
        report.mkdir(parents=True)
        passed = runs[0][0] == 0 and not failing("cosim")
        text = (DATA / ("cosim.rpt" if passed else "cosim_fail.rpt")).read_text()
        text = text.replace(f"{CYCLES:>22}|", f"{self.cycles(Path(found['-argv'])):>22}|")
        (report / f"{self.top}_cosim.rpt").write_text(text)

    def cycles(self, vectors):
        expected = vectors.parent / "cycles.json"
        factor = float(os.environ.get("STANDIN_CYCLES", "1"))
        known = json.loads(expected.read_text()) if expected.exists() else {}
        return round(factor * known.get(vectors.name, CYCLES))


def compile_cpp(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr)
        refuse("C++ does not compile")


def run_tcl(script, opening):
    import tkinter

    tcl = tkinter.Tcl()
    project = Project(opening)
    common = [
        "set_top", "add_files", "set_part", "create_clock", "set_clock_uncertainty",
        "config_compile",
        "csim_design", "csynth_design", "cosim_design",
    ]  # fmt: skip
    for name in [*opening, *common]:
        tcl.createcommand(name, getattr(project, name))

    def leave(status="0"):
        sys.stdout.flush()
        tcl.eval("flush stdout")
        os._exit(int(status))

    tcl.createcommand("exit", leave)
    tcl.eval(f"info script {{{script}}}")
    tcl.eval(f"set argv {{}}; source {{{script}}}")


# --- the rest -----------------------------------------------------------------------------------


def xclbinutil(arguments):
    if len(arguments) != 3 or arguments[:2] != ["--info", "-i"]:
        refuse("xclbinutil --info -i FILE")
    content = json.loads(existing(arguments[2]).read_text())
    text = (DATA / "xclbin.info").read_text()
    made = str(uuid.UUID(int=int(content["mhz"])))
    print(text.replace("@MHZ@", f"{content['mhz']:g}").replace("@UUID@", made))


def emconfigutil(arguments):
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if set(options) != {"--platform", "--od", "--nd"}:
        refuse("emconfigutil --platform P --od DIR --nd N")
    (Path(options["--od"]) / "emconfig.json").write_text("{}")


if __name__ == "__main__":
    tool, words = sys.argv[1], sys.argv[2:]
    with Path(os.environ["STANDIN_CALLS"]).open("a") as stream:
        stream.write(json.dumps([tool, *words]) + "\n")
    {
        "v++": vpp,
        "vitis_hls": hls,
        "vitis-run": vitis_run,
        "xclbinutil": xclbinutil,
        "emconfigutil": emconfigutil,
    }[tool](words)
