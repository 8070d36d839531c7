"""The simulation headers: blocking streams, deadlock reports, exact timing of pipelines, memory."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "hls" / "sim"
SOURCES = Path(__file__).resolve().parent / "sim"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = [
    pytest.mark.csim,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def build(folder, source, *flags, headers=HEADERS):
    program = folder / f"{source}{''.join(flags)}".replace("=", "_").replace(",", "_")
    command = ["g++", "-std=c++14", *WARNINGS, *flags, "-pthread", f"-I{headers}", f"-I{SOURCES}"]
    command += [str(SOURCES / f"{source}.cpp"), "-o", str(program)]
    subprocess.run(command, check=True, timeout=300)
    return program


def run(program, *arguments, timeout=60):
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def cases(program):
    """Runs all cases of behaviour.cpp; returns {case: text}."""
    result = run(program)
    assert result.returncode == 0, result.stderr
    texts = {}
    for part in result.stdout.split("\n[")[:]:
        name, _, text = part.lstrip("[").partition("]\n")
        texts[name] = text.strip()
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sim")


@pytest.fixture(scope="module")
def timed(folder):
    return cases(build(folder, "behaviour", "-O1"))


@pytest.fixture(scope="module")
def untimed(folder):
    return cases(build(folder, "behaviour", "-O0", "-DSIM_UNTIMED"))


@pytest.fixture(scope="module")
def networks(folder):
    return build(folder, "random_networks", "-O1")


def test_cycles_by_hand(timed):
    # Entry 1; source writes in cycle 1 + 5; a token is readable one cycle later; `pass` writes 7
    # cycles after it reads. Its second call reads its first token in cycle 67: last read of the
    # first call 56, drain 7, next cycle, exit 1, restart 1, entry 1. The last read of the second
    # is in 116, written in 123, read by `sink` in 124; drain 3, next cycle, exit 1: 129.
    assert timed["chain"] == "done: 129 cycles (model)\n" * 3 + "sum=15150"
    # 32 writes in cycles 0-31; `join` reads left in 17-32 and right in 33-48.
    assert timed["deep_enough"] == "done: 49 cycles (model)"


def test_one_slot_too_few_is_a_named_deadlock(timed, untimed):
    first = "deadlock: fork waits to write right (15/15), join waits to read left (0/2)"
    assert timed["one_too_small"].splitlines() == [
        first,
        "  fork waits to write right (15/15) at cycle 15, tick 15",
        "  join waits to read left (0/2) at cycle 0, tick 0",
    ]
    assert untimed["one_too_small"].splitlines()[0] == first
    assert untimed["deep_enough"] == "done"


def test_results_stuck_in_a_stalled_pipeline(timed, untimed):
    assert timed["stalled_pipeline"].splitlines() == [
        "deadlock: source waits to read b (0/8), pass waits to read a (0/8)",
        "  source waits to read b (0/8) at cycle 1, tick 1, 1 more in the pipeline of pass",
        "  pass waits to read a (0/8) at cycle 2, tick 2",
    ]
    assert timed["drained_pipeline"].startswith("done: ")
    assert untimed["stalled_pipeline"] == "done"  # without clocks there is no pipeline


def test_flushable_pipeline_lets_them_out(timed, untimed):
    # `source` writes in 0, 15, 30, 45; `pass` reads one cycle later and writes 12 cycles after
    # that; `source` reads in 14, 29, 44, 59.
    assert timed["flushed_pipeline"] == "done: 60 cycles (model)"
    assert untimed["flushed_pipeline"] == "done"


def test_leftover_tokens_name_the_fifo(timed):
    text = (
        "leftover: the main processes have returned, but\n"
        "  FIFO a: 3 tokens left over (source -> sink)"
    )
    assert timed["leftover"] == f"{text}\n{text}"


def test_free_running_kernel_must_stand_at_the_start_of_its_program(timed):
    assert timed["unfinished"].splitlines() == [
        "leftover: the main processes have returned, but",
        "  pass waits to read a (0/8) at cycle 18, tick 17",
    ]


def test_device_works_again_after_a_failed_run(timed, untimed):
    assert timed["recovers"] == untimed["recovers"] == "leftover done\nsum=10100"


def test_faults_of_the_harness_are_named(timed, untimed):
    thief = "stream a is read by process thief, which is not its registered endpoint\ndone\nsum=3"
    assert timed["wrong_endpoint"] == untimed["wrong_endpoint"] == thief
    assert timed["unregistered"].splitlines() == [
        "FIFO a ends at unknown process nobody",
        "two FIFOs are named a",
        "there is no FIFO named c",
    ]
    assert timed["nested_tick"] == "source: TICK inside the body of another"
    assert "never comes to rest" in timed["livelock"]


def test_exception_of_a_kernel_comes_out(timed):
    assert timed["exception"] == "kernel says no"


def test_streams_outside_of_a_run(timed, untimed):
    bench = "waiting=1000\nsum=500500\nempty=1\nstream a is read while it is empty"
    assert timed["test_bench"] == untimed["test_bench"] == bench
    outside = "done tokens=100\ndone tokens=100\nsum=10100"
    assert timed["outside"] == untimed["outside"] == outside


def test_elements_keep_every_byte(timed, untimed):
    assert timed["elements"] == untimed["elements"] == "done\nerrors=0"


def test_devices_do_not_disturb_each_other(timed, untimed):
    assert timed["devices"] == untimed["devices"] == "done\nsum=46\nsame=1"


def test_cycle_accounts(timed):
    rows = [line.split() for line in timed["accounts"].splitlines()]
    assert rows[0] == ["done:", "315", "cycles", "(model)"]
    assert rows[1:5] == [
        ["process", "cycles", "working", "starved", "blocked", "memory", "draining"],
        ["source", "292", "100", "0", "188", "0", "4"],
        ["slow", "313", "300", "3", "0", "0", "10"],
        ["sink", "315", "100", "212", "0", "0", "3"],
    ]
    assert rows[6:] == [["a", "4", "4", "100", "3", "188"], ["b", "4", "1", "100", "212", "0"]]
    for row in rows[2:5]:
        assert int(row[1]) == sum(int(cell) for cell in row[2:])


def memory_rows(text):
    """Cycles, the account of `loader`, the row of its port."""
    rows = [line.split() for line in text.splitlines()]
    assert rows[2][0] == "loader" and rows[-2] == ["port", "words", "bursts", "stalled"]
    return [int(rows[0][1]), *map(int, rows[2][1:])], rows[-1]


def test_sequential_words_come_at_the_sustained_rate(timed, untimed):
    # Asked for in cycle 1, latency 10: word 0 in 11. Then 12.5, 14, 15.5 and, two cycles of gap
    # between the bursts later, 19, 20.5, 22, 23.5: in whole cycles 11, 13, 14, 16, 19, 21, 22, 24.
    # Written in 27, read in 28; drain 3, next cycle, exit 1: 33.
    account, port = memory_rows(timed["memory_burst"])
    assert account == [33, 29, 8, 0, 0, 16, 5]
    assert port == ["loader.weights", "read", "8", "2", "16"]
    assert untimed["memory_burst"].startswith("done\n")


def test_every_jump_costs_the_latency(timed):
    # 11, 22, 33
    account, port = memory_rows(timed["memory_jumps"])
    assert account == [42, 38, 3, 0, 0, 30, 5]
    assert port == ["loader.weights", "read", "3", "3", "30"]


def test_latency_counts_from_where_a_burst_was_asked_for(timed):
    # Both asked for in cycle 1: word 0 in 11, word 10 in 12.5 as if it followed.
    account, port = memory_rows(timed["memory_ahead"])
    assert account == [22, 18, 2, 0, 0, 11, 5]
    assert port == ["loader.weights", "read", "2", "2", "11"]


def test_writes_fill_a_buffer_first(timed):
    # Three words wait and one is under way, all 4 cycles: 1, 2, 3, 4, 5, 9.
    account, port = memory_rows(timed["memory_writes"])
    assert account == [18, 14, 6, 0, 0, 3, 5]
    assert port == ["loader.weights", "write", "6", "2", "3"]


def test_a_burst_is_answered_when_it_is_in_memory(timed):
    # Its words leave the buffer in cycle 5, 9, .. 25; ten cycles later the answer comes: 35.
    account, port = memory_rows(timed["memory_answer"])
    assert account == [44, 40, 7, 0, 0, 28, 5]
    assert port == ["loader.weights", "write", "6", "2", "28"]


def test_memory_of_one_process(timed):
    account, port = memory_rows(timed["memory_own"])
    assert account == [17, 13, 8, 0, 0, 0, 5]
    assert port == ["loader.weights", "read", "8", "1", "0"]


def test_single_words_take_a_cycle_each(timed):
    # Asked for in 0, there in 10; 11; other port: asked for in 12, there in 22; loop entry; 24, 25
    # (the second word makes the iteration two cycles long); next cycle, exit 1: 27.
    run = "done: 27 cycles (model)"
    assert timed["memory_single"] == f"{run}\n{run}\nthere is no process named nobody"


def test_portable_switch_gives_the_same(folder, timed):
    assert cases(build(folder, "behaviour", "-O0", "-DSIM_UCONTEXT")) == timed


def test_sanitizers_find_nothing(folder, timed):
    assert cases(build(folder, "behaviour", "-O0", *SANITIZE)) == timed


def test_random_networks_equal_the_clock_by_clock_model(networks):
    result = run(networks, "0", "5000")
    assert result.returncode == 0, result.stdout
    assert result.stdout == (
        "5000 networks agree: 2447 done, 2263 deadlocks, 290 leftovers; 3053 sized by peaks\n"
    )


@pytest.mark.slow
def test_many_random_networks(networks, folder):
    result = run(networks, "5000", "100000", timeout=600)
    assert result.returncode == 0, result.stdout
    result = run(build(folder, "random_networks", "-O1", *SANITIZE), "0", "5000", timeout=600)
    assert result.returncode == 0, result.stdout


# Text of the headers, and the same with a fault that FAULT switches on.
FAULTS = {
    # A pipeline that delivers while it stands.
    "in_body ? tick_ + pipeline_depth : tick_": (
        "in_body && !FAULT(0) ? tick_ + pipeline_depth : tick_"
    ),
    # A slot that is free at once.
    "[slot & fifo.mask] + slot_latency_": "[slot & fifo.mask] + (FAULT(1) ? 0 : slot_latency_)",
    # A loop that is left one cycle before a long pipeline has drained.
    "last = tick_ + pipeline_depth;": (
        "last = tick_ + pipeline_depth - (FAULT(2) && pipeline_depth > 80);"
    ),
    # Reads that give their slot back before the rest of their tick can happen.
    "reads_[read_count_++] = &fifo;": (
        "if (FAULT(3)) free_slot(fifo, time()); else reads_[read_count_++] = &fifo;"
    ),
    # A flushable pipeline that stands while it waits for input.
    "flushes_ ? flush() : nullptr": "flushes_ && !FAULT(4) ? flush() : nullptr",
    # Bubbles that the iteration's own results do not see.
    "flight_.delay(own_, tick_ - first);": "if (!FAULT(5)) flight_.delay(own_, tick_ - first);",
    # Results that leave early, but forget that those before them had to wait for a slot.
    "flight_.has_early() ? flight_.last_early().stall : stall_": (
        "flight_.has_early() && !FAULT(6) ? flight_.last_early().stall : stall_"
    ),
    # A jump that does not wait for the memory.
    "(now + timing_.latency)": "(now + (FAULT(7) ? 0 : timing_.latency))",
    # A burst asked for ahead that waits for the memory as if it were not.
    "(asked_.front().time + timing_.latency)": (
        "((FAULT(8) ? now : asked_.front().time) + timing_.latency)"
    ),
    # A port that reads ahead without limit while the kernel stands.
    "raise(1000 * time - ahead());": "if (!FAULT(9)) raise(1000 * time - ahead());",
    # Bursts without a gap.
    "if (++next_ % timing_.burst_words == 0) ": (
        "if (++next_ % timing_.burst_words == 0 && !FAULT(10)) "
    ),
}


@pytest.fixture(scope="module")
def faulty(folder):
    """All faults in one program; the environment chooses."""
    headers = folder / "faulty"
    shutil.copytree(HEADERS, headers)
    texts = {path: path.read_text() for path in headers.glob("*.hpp")}
    for right, wrong in FAULTS.items():
        (path,) = [path for path, text in texts.items() if right in text]
        assert texts[path].count(right) == 1
        texts[path] = texts[path].replace(right, wrong)
    chosen = '#include <cstdlib>\n#define FAULT(k) (std::atoi(std::getenv("FAULT")) == (k))\n'
    texts[headers / "mode.hpp"] = chosen + texts[headers / "mode.hpp"]
    for path, text in texts.items():
        path.write_text(text)
    return build(folder, "random_networks", "-O0", headers=headers)


@pytest.mark.parametrize("number", range(-1, len(FAULTS)))
def test_planted_fault_is_caught(number, faulty):
    result = subprocess.run(
        [str(faulty), "0", "5000"],
        env={"FAULT": str(number)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == (0 if number < 0 else 1), result.stdout
    assert ("differs" in result.stdout) == (number >= 0)
