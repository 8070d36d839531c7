"""Every rule of the checker: a planted violation is found, the clean case is not."""

import subprocess
import sys
from pathlib import Path

import pytest
from cpp import ROOT
from hlslint_cases import CLEAN, FREE, MAC, PLANTED, PLANTED_FREE, lint

from gen.errors import UserError
from gen.hlslint.check import check_paths
from gen.hlslint.rules import bench_rules, config_rules, storage, unit_rules
from gen.vitis.topology import topology


def test_clean_sources(tmp_path):
    assert lint(tmp_path, CLEAN) == []
    assert lint(tmp_path, FREE) == []
    ranks = "struct E {\n    static const int RANKS = 2;\n};\n"
    for unit in (MAC % ("lda::Beat<1>", "ws_s"), ranks + MAC % ("lda::Beat<2>", "ws_s")):
        assert lint(tmp_path, CLEAN.replace('extern "C" {', unit)) == []


def cases(planted):
    return [
        pytest.param(rule, *case, id=f"{rule}-{number}")
        for rule, listed in planted.items()
        for number, case in enumerate(listed)
    ]


@pytest.mark.parametrize(("rule", "old", "new", "line"), cases(PLANTED))
def test_planted(tmp_path, monkeypatch, rule, old, new, line):
    monkeypatch.setattr(storage, "MAX_INITIALISERS", 100)
    assert CLEAN.count(old) >= 1
    found = lint(tmp_path, CLEAN.replace(old, new, 1))
    assert rule in {each[0] for each in found}, found
    if line is not None:
        assert line in [each[1] for each in found if each[0] == rule], found


@pytest.mark.parametrize(("rule", "old", "new", "line"), cases(PLANTED_FREE))
def test_planted_free_running(tmp_path, rule, old, new, line):
    assert FREE.count(old) == 1
    found = lint(tmp_path, FREE.replace(old, new))
    assert rule in {each[0] for each in found}, found
    if line is not None:
        assert line in [each[1] for each in found if each[0] == rule], found


BENCH = """\
#include <cstdio>
int main(int argc, char** argv) {
    int faults = argc != 2;
    std::printf("%d", faults);
    return faults;
}
"""


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("bench-deterministic", "argc != 2", "rand() % 2"),
        ("bench-deterministic", "argc != 2", "std::random_device()() & 1"),
        ("bench-deterministic", "argc != 2", "time(0) & 1"),
        ("bench-status", "return faults;", "return 0;"),
        ("bench-status", "    return faults;\n", ""),
    ],
)
def test_planted_bench(tmp_path, rule, old, new):
    assert lint(tmp_path, BENCH, "mac_tb.cpp") == []
    found = lint(tmp_path, BENCH.replace(old, new), "mac_tb.cpp")
    assert {each[0] for each in found} == {rule}
    assert rule in {each.name for each in bench_rules.all}


def test_every_rule_has_a_planted_violation():
    assert {rule.name for rule in unit_rules.all} == set(PLANTED) | set(PLANTED_FREE)
    everything = (*unit_rules.all, *bench_rules.all, *config_rules.all)
    assert len({rule.name for rule in everything}) == len(everything)
    assert all(rule.trap for rule in everything)


def test_mutual_recursion_over_namespaces(tmp_path):
    text = """
namespace a { int g(int n); inline int f(int n) { return n ? a::g(n - 1) : 0; } }
namespace a { inline int g(int n) { return f(n); } }
namespace b { inline int h(int n) { return a::f(n); } }
"""
    found = lint(tmp_path, text)
    assert [each[0] for each in found] == ["recursion", "recursion"]


def test_same_name_in_another_scope_is_no_recursion(tmp_path):
    text = """
namespace lda { template <class P> void mac(int n) { n += P::x; } }
struct E { static const int x = 1; };
extern "C" { void mac() {
#pragma HLS INTERFACE ap_ctrl_none port=return
    lda::mac<E>(1);
} }
"""
    assert "recursion" not in {each[0] for each in lint(tmp_path, text)}


def test_only_what_synthesis_sees_counts(tmp_path):
    hidden = "#ifndef __SYNTHESIS__\n#include <vector>\nstatic std::vector<int> log;\n#endif\n"
    assert lint(tmp_path, hidden + CLEAN) == []
    shown = hidden.replace("#ifndef", "#ifdef") + CLEAN
    assert {each[0] for each in lint(tmp_path, shown)} == {"header", "dynamic-memory"}


def test_pragmas_from_macros_are_seen(tmp_path):
    macro = "#define PRAGMA(x) _Pragma(#x)\n#define PIPE(n) PRAGMA(HLS pipelined II=n)\n"
    text = macro + CLEAN.replace("#pragma HLS pipeline II=1 style=flp", "        PIPE(1)")
    assert [(each[0], each[1]) for each in lint(tmp_path, text)] == [("pragma-known", "PIPE(1)")]


def test_findings_are_placed_in_headers(tmp_path):
    (tmp_path / "part.hpp").write_text("\ninline void f() { while (true) {} }\n")
    (tmp_path / "kernel.cpp").write_text('#include "part.hpp"\n')
    (found,) = check_paths([tmp_path / "kernel.cpp"])
    assert (Path(found.path).name, found.line, found.rule) == ("part.hpp", 2, "loop-bounded")
    assert len(check_paths([tmp_path])) == 1  # once, though both files hold it


def test_allowing_needs_the_rule_and_a_reason(tmp_path):
    loop = "inline void f() {\n    %s\n    while (true) {}\n}\n"
    assert lint(tmp_path, loop % "// hlslint: allow loop-bounded: runs until reset") == []
    assert len(lint(tmp_path, loop % "// hlslint: allow loop-bounded:")) == 1
    assert len(lint(tmp_path, loop % "// hlslint: allow recursion: runs until reset")) == 1


def test_raised_integer_width(tmp_path):
    text = "#define AP_INT_MAX_W 4096\n" + CLEAN.replace("ap_int<96>", "ap_int<2048>")
    assert lint(tmp_path, text) == []


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        check_paths([tmp_path / "none"])
    (tmp_path / "kernel.cpp").write_text("#if 1\n")
    with pytest.raises(UserError, match="cannot be preprocessed"):
        check_paths([tmp_path / "kernel.cpp"])


def test_command_line(tmp_path):
    (tmp_path / "kernel.cpp").write_text("inline void f() { while (true) {} }\n")
    command = [sys.executable, "-m", "gen.hlslint"]

    def run(*words):
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    status, text = run(str(tmp_path))
    assert status == 1 and "kernel.cpp:1: the loop has no end [loop-bounded]" in text
    status, text = run(str(tmp_path / "none"))
    assert status == 2 and "Traceback" not in text


def test_kernels_of_the_project_are_clean():
    kinds = {kernel.kind for kernel in topology(4).kernels}
    tops = [ROOT / "hls" / "kernels" / f"{kind}.hpp" for kind in kinds]
    assert [str(each) for each in check_paths(tops)] == []
