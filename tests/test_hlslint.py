"""Every rule of the checker: a planted violation is found, the clean case is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gen.errors import UserError
from gen.hlslint.check import check_paths
from gen.hlslint.rules import bench_rules, config_rules, link, storage, unit_rules
from gen.vitis.board import load_board
from gen.vitis.emit import Options, emit
from gen.vitis.topology import topology

ROOT = Path(__file__).resolve().parent.parent

# A clean translation unit: a started kernel with a dataflow region, and everything that the
# planted violations need to exist.
CLEAN = """\
#include <cstdint>
#include "ap_int.h"
#include "hls_stream.h"

struct Word {
    int8_t b[64];
};
struct Pair {
    Word first;
    Word second;
};
static const int N = 8;
struct Sums {
    int32_t sum[N];
    uint16_t square[N][3];
};
template <int M>
struct Many {
    Sums b[M];
};

static const int ROM[3] = {1, 2, 3};

static void produce(const Word* source, int count, hls::stream<Word>& made) {
    for (int i = 0; i < count; ++i) {
#pragma HLS pipeline II=1 style=flp
#pragma HLS loop_tripcount min=1 max=64
        made.write(source[i]);
    }
}

static void consume(hls::stream<Word>& made, int count, hls::stream<Word>& sent) {
    int32_t memory[64];
#pragma HLS array_partition variable=memory cyclic factor=4
#pragma HLS bind_storage variable=memory type=ram_2p impl=uram
    bool done = false;
    int i = 0;
    while (!done) {
#pragma HLS pipeline II=1
// no address is read and written in one run, so there is no dependence
#pragma HLS dependence variable=memory type=inter false
        Word word;
        made.read(word);
        memory[i & 63] = word.b[0] + ROM[i % 3];
        ap_int<96> wide = memory[(i + 1) & 63];
        word.b[1] = wide > 0 ? 1 : 0;
        sent.write(word);
        done = ++i >= count;
    }
}

static void pass(hls::stream<Pair>& pairs, hls::stream<Many<4>>& sums) {
    const Pair pair = pairs.read();
    Many<4> all;
    all.b[0].sum[0] = pair.first.b[0];
    sums.write(all);
}

static void both(const Word* source, int count, hls::stream<Word>& sent) {
#pragma HLS dataflow
    hls::stream<Word, 4> made("made");
    produce(source, count, made);
    consume(made, count, sent);
}

extern "C" {
void kernel(const Word* source, hls::burst_maxi<Word> rates, int count, hls::stream<Word>& xs_s) {
#pragma HLS INTERFACE mode=m_axi port=source offset=slave bundle=gmem0 depth=64
#pragma HLS INTERFACE mode=m_axi port=rates offset=slave bundle=gmem1 depth=64
#pragma HLS INTERFACE s_axilite port=source bundle=control
#pragma HLS INTERFACE s_axilite port=rates bundle=control
#pragma HLS INTERFACE s_axilite port=count bundle=control
#pragma HLS INTERFACE axis port=xs_s
#pragma HLS INTERFACE s_axilite port=return bundle=control
    both(source, count, xs_s);
}
}
"""

# rank 0's mac, the type of its first port and the name of its third one left open
MAC = """
namespace lda {
template <int N>
struct Beat {
    Word b[N];
};
template <int BITS>
struct WeightRow {
    int8_t b[BITS * 16];
};
struct AccWord {
    int32_t a[64];
};
}
extern "C" {
void mac(hls::stream<%s>& gs_s, hls::stream<lda::WeightRow<8>>& ks_s,
         hls::stream<lda::WeightRow<8>>& %s, hls::stream<lda::AccWord>& as_s) {
#pragma HLS INTERFACE axis port=gs_s
#pragma HLS INTERFACE axis port=ks_s
#pragma HLS INTERFACE axis port=ws_s
#pragma HLS INTERFACE axis port=as_s
#pragma HLS INTERFACE ap_ctrl_none port=return
}
"""

TWO_RANKS = "struct E {\n    static const int RANKS = 2;\n};\n"

FREE = """\
#include "hls_stream.h"
struct Word {
    signed char b[64];
};
extern "C" {
void relay(hls::stream<Word>& px_s, hls::stream<Word>& as_s) {
#pragma HLS INTERFACE axis port=px_s
#pragma HLS INTERFACE axis port=as_s
#pragma HLS INTERFACE ap_ctrl_none port=return
    as_s.write(px_s.read());
}
}
"""


def lint(tmp_path, text, name="kernel.cpp"):
    """Findings in a source text: (rule, line's content, message)."""
    path = tmp_path / name
    path.write_text(text)
    lines = text.splitlines()
    return [(f.rule, lines[f.line - 1].strip(), f.message) for f in check_paths([path])]


def test_clean_sources(tmp_path):
    assert lint(tmp_path, CLEAN) == []
    assert lint(tmp_path, FREE) == []
    ranks = "struct E {\n    static const int RANKS = 2;\n};\n"
    for unit in (MAC % ("lda::Beat<1>", "ws_s"), ranks + MAC % ("lda::Beat<2>", "ws_s")):
        assert lint(tmp_path, CLEAN.replace('extern "C" {', unit)) == []


# rule: [(text, replaced by, a line where it is found (None: anywhere))]
REGION = "    produce(source, count, made);\n"
PLANTED = {
    "dataflow-canonical": [
        (REGION, "    if (count > 1)\n" + REGION, "if (count > 1)"),
        (REGION, REGION + "    count = count + 1;\n", "count = count + 1;"),
        (REGION, REGION + "    return;\n", "return;"),
        (REGION, REGION + "    const int c = least(count);\n", "const int c = least(count);"),
        ("static void produce", "static int produce", "produce(source, count, made);"),
    ],
    "stream-endpoints": [
        (REGION, REGION + REGION, 'hls::stream<Word, 4> made("made");'),
        ("    consume(made, count, sent);\n", "    consume(made, count, sent);\n" * 2, None),
        ("    consume(made, count, sent);\n", "", 'hls::stream<Word, 4> made("made");'),
        (
            REGION + "    consume(made, count, sent);\n",
            "    consume(made, count, sent);\n" + REGION,
            'hls::stream<Word, 4> made("made");',
        ),
    ],
    "region-memory": [
        (
            "const Word* source, int count, hls::stream<Word>& sent) {\n#pragma HLS dataflow\n",
            "Word* source, int count, hls::stream<Word>& sent) {\n#pragma HLS dataflow\n"
            "    produce(source, 0, sent);\n",
            "produce(source, count, made);",
        ),
        (REGION, "    int m[4];\n    use(m);\n    use(m);\n    use(m);\n" + REGION, "use(m);"),
    ],
    "stream-feedback": [("        made.write(source[i]);", "made.write(made.read());", None)],
    "stream-depth": [("stream<Word, 4> made", "stream<Word> made", None)],
    "stream-name": [('made("made")', "made", None)],
    "stream-blocking": [
        ("made.write(source[i]);", "if (!made.full()) made.write(source[i]);", None),
        ("made.read(word);", "made.read_nb(word);", "made.read_nb(word);"),
    ],
    "stream-static": [("hls::stream<Word, 4>", "static hls::stream<Word, 4>", None)],
    "loop-bounded": [
        ("while (!done)", "while (true)", "while (true) {"),
        ("for (int i = 0; i < count; ++i)", "for (;;)", "for (;;) {"),
        ("while (!done)", "while (!made.empty())", "while (!made.empty()) {"),
        ("done = ++i >= count;", "++i;", "while (!done) {"),
    ],
    "loop-tripcount": [
        ("min=1 max=64", "min=65 max=64", "#pragma HLS loop_tripcount min=65 max=64"),
        ("min=1 max=64", "max=64", None),
    ],
    "loop-exits": [("        made.write(source[i]);", "if (i == 7) break;", "if (i == 7) break;")],
    "header": [
        ("#include <cstdint>", "#include <vector>\n#include <cstdint>", "#include <vector>"),
        ("#include <cstdint>", "#include <iostream>\n#include <cstdint>", "#include <iostream>"),
    ],
    "recursion": [
        ("        made.write(source[i]);", "produce(source, i, made);", None),
        ("static void produce",
         "static int f(int n) { return n ? f(n - 1) : 0; }\nstatic void produce",
         "static int f(int n) { return n ? f(n - 1) : 0; }"),
    ],
    "dynamic-memory": [
        ("int32_t memory[64];", "int32_t* memory = new int32_t[64];", None),
        ("int32_t memory[64];", "int32_t* memory = (int32_t*)malloc(256);", None),
        ("int32_t memory[64];", "std::vector<int32_t> memory(64);", None),
    ],
    "construct": [
        ("made.read(word);", 'if (i < 0) throw "x";', 'if (i < 0) throw "x";'),
        ("int8_t b[64];", "int8_t b[64];\n    virtual void f();", "virtual void f();"),
        ("int32_t memory[64];", "int32_t memory[64];\n    void (*call)(int) = 0;", None),
        ("made.read(word);", "goto end;", "goto end;"),
    ],
    "pointer": [
        ("int32_t memory[64];", "int32_t memory[64];\n    int32_t** p = 0;", "int32_t** p = 0;"),
        ("int8_t b[64];", "int8_t b[64];\n    int* q = reinterpret_cast<int*>(8);", None),
    ],
    "volatile": [("void kernel(const Word* source", "void kernel(volatile Word* source", None)],
    "plain-char": [("int8_t b[64];", "char b[64];", "char b[64];")],
    "cxx14": [("made.read(word);", "if constexpr (sizeof(int) == 4) made.read(word);", None)],
    "top-function": [("void kernel(", "int kernel(", None)],
    "unparsed": [("bool done = false;", "bool done = = false;", "bool done = = false;")],
    "pragma-known": [
        ("pipeline II=1 style", "pipelined II=1 style", "#pragma HLS pipelined II=1 style=flp"),
        ("style=flp", "stile=flp", "#pragma HLS pipeline II=1 stile=flp"),
        ("cyclic", "cyclical", None),
    ],
    "pragma-place": [
        ("static const int ROM", "#pragma HLS inline\nstatic const int ROM", "#pragma HLS inline"),
        ("    bool done", "#pragma HLS unroll\n    bool done", "#pragma HLS unroll"),
        ("    bool done", "#pragma HLS INTERFACE axis port=made\n    bool done", None),
        ("        made.write(source[i]);",
         "        if (i) {\n#pragma HLS pipeline\n            made.write(source[i]);\n        }",
         "#pragma HLS pipeline"),
    ],
    "pragma-variable": [("partition variable=memory", "partition variable=memori", None)],
    "pragma-subject": [
        ("array_partition variable=memory", "array_partition", None),
        ("cyclic factor=4", "cyclic", None),
    ],
    "dependence-reason": [
        ("// no address is read and written in one run, so there is no dependence\n", "", None),
        ("dependence variable=memory", "dependence", "#pragma HLS dependence type=inter false"),
    ],
    "multiply-binding": [
        ("    bool done", "#pragma HLS bind_op variable=i op=mul impl=dsp\n    bool done", None)
    ],
    "uram-initialised": [
        ("int32_t memory[64];", "int32_t memory[64] = {0};", None),
        ("type=ram_2p", "type=rom_1p", None),
    ],
    "array-refilled": [("bool done", "int32_t steps[3] = {1, -2, 3};\n    bool done", None)],
    "integer-width": [
        ("ap_int<96>", "ap_int<2048>", None),
        ('#include "hls_stream.h"', '#define AP_INT_MAX_W 4096\n#include "hls_stream.h"',
         "#define AP_INT_MAX_W 4096"),
    ],
    "stream-element": [
        ("int8_t b[64];", "int8_t b[63];\n    int32_t tag;", "struct Word {"),
        ("int8_t b[64];", "int32_t tag;\n    int8_t b[63];", "struct Word {"),
        ("    Word second;\n", "    Word second;\n    int8_t one;\n    int16_t more[N];\n", None),
        ("int8_t b[64];", "int8_t b[64];\n    int f() { return 0; }", "struct Word {"),
        ("int8_t b[64];", "int8_t b[64];\n    int8_t* p;", "struct Word {"),
        ("struct Word {", "struct Base {};\nstruct Word : Base {", "struct Word : Base {"),
    ],
    "side-channels": [("hls::stream<Word, 4>", "hls::stream<ap_axiu<512, 0, 0, 0>, 4>", None)],
    "side-channels-set": [
        ("        Word word;", "        ap_axiu<512, 0, 0, 0> word;\n        word.last = 0;", None)
    ],
    "port-name": [
        ("void kernel(const Word* source", "void kernel(const Word* reg", None),
        ("int count, hls::stream<Word>& xs_s", "int count, hls::stream<Word>& out", None),
    ],
    "port-interface": [
        ("#pragma HLS INTERFACE axis port=xs_s\n", "", None),
        ("axis port=xs_s", "axis port=ys_s", None),
        ("axis port=xs_s", "ap_fifo port=xs_s", None),
    ],
    "protocol": [
        ("#pragma HLS INTERFACE s_axilite port=return bundle=control\n", "", None),
        ("s_axilite port=return bundle=control", "ap_ctrl_none port=return", None),
    ],
    "m-axi": [
        (" depth=64", "", None),
        ("depth=64", "depth=0", None),
        (" bundle=gmem0", "", None),
        ("offset=slave", "offset=off", None),
        ("depth=64", "depth=64 max_widen_bitwidth=96", None),
    ],
    "burst-bundle": [("bundle=gmem1", "bundle=gmem0", None)],
    "port-order": [
        ("void kernel(", "void wload(", None),
        ('extern "C" {', MAC % ("lda::Beat<1>", "as_s"), None),
        ('extern "C" {', TWO_RANKS + MAC % ("lda::Beat<1>", "ws_s"), None),
    ],
    "uninitialised": [("    int i = 0;\n", "    int i;\n", "int i;")],
    "initialiser-size": [
        ("static const int ROM[3] = {1, 2, 3};",
         "static const int ROM[101] = {" + "1," * 101 + "};", None)
    ],
}  # fmt: skip
PLANTED_FREE = {
    "protocol": [
        ("hls::stream<Word>& as_s) {", "hls::stream<Word>& as_s, int count) {", None),
        ("ap_ctrl_none port=return",
         "ap_ctrl_none port=return\n#pragma HLS INTERFACE s_axilite port=return", None),
        ("#pragma HLS INTERFACE ap_ctrl_none port=return\n", "", None),
    ],
    "static-state": [
        ("    as_s.write(", "    static int frames = 0;\n    ++frames;\n    as_s.write(",
         "static int frames = 0;"),
        ('extern "C" {', 'int frames;\nextern "C" {', "int frames;"),
    ],
}  # fmt: skip


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


# --- configurations -----------------------------------------------------------------------------


def write_program(build, ranks):
    (build / "program.json").write_text(json.dumps({"engine": {"ranks": ranks, "weight_bits": 8}}))
    (build / "src").mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    build = tmp_path_factory.mktemp("build")
    write_program(build, 2)
    emit(build, load_board("u250"), Options())
    return build


def test_emitted_files_are_clean(emitted, tmp_path):
    assert check_paths([emitted]) == []
    for board, ranks in (("u55c", 2), ("u250", 1), ("u250", 4)):
        write_program(tmp_path, ranks)
        emit(tmp_path, load_board(board))
        assert check_paths([tmp_path]) == []


def test_configuration_outside_of_a_build(emitted, tmp_path):
    """Its ranks are those of its nk lines."""
    path = tmp_path / "link.cfg"
    path.write_text((emitted / "vitis" / LINK).read_text())
    assert check_paths([path]) == []
    path.write_text(path.read_text().replace("nk=store:2", "nk=store:1"))
    assert check_paths([path]) != []


LINK = "link/hw.222.cfg"
HLS = "hls/mac.cfg"
CONFIGS = {
    "config-line": [(LINK, "[vivado]", "[vivada]"), (LINK, "nk=mac:2", "nk mac:2")],
    "config-remark": [(LINK, "synth.jobs=8", "synth.jobs=8 # many")],
    "config-part": [
        (HLS, "part=xcu250", "part=xcu200"),
        (HLS, "part=xcu250-figd2104-2L-e", "platform=xilinx_u280_xdma"),
    ],
    "config-target": [(HLS, "flow_target=vitis", "flow_target=vitis\ntarget=sw_emu")],
    "config-file": [
        ("compile/mac.cfg", "pre_tcl=/", "pre_tcl="),
        ("compile/mac.cfg", "pre.tcl", "post.tcl"),
        (HLS, "syn.file=/", "syn.file="),
    ],
    "hls-uncertainty": [
        (HLS, "clock_uncertainty=12%\n", ""),
        (HLS, "clock_uncertainty=12%", "clock_uncertainty=1%"),
    ],
    "hls-clock": [
        (HLS, "clock=4.504ns\n", ""),
        (HLS, "[hls]", "freqhz=222000000\n[hls]"),
    ],
    "hls-style": [(HLS, "syn.compile.pipeline_style=flp\n", "")],
    "hls-language": [(HLS, "syn.cflags=-std=c++14", "syn.cflags=-std=c++17")],
    "link-key": [
        (LINK, "slr=mac_1", "slrs=mac_1"),
        (LINK, "stream_connect=pre_1.px_s:", "stream_connect=pre_1.px_s\n# "),
    ],
    "link-kernel": [
        (LINK, "nk=mac:2", "nk=mac2:2"),
        (LINK, "nk=mac:2\n", ""),
        (LINK, "nk=mac:2", "nk=mac:2\nnk=mac:1"),
        (LINK, "nk=mac:2", "nk=mac:2:mac_1.mac_2"),
    ],
    "link-port": [
        (LINK, "sp=store_1.latent", "sp=store_1.latent_r"),
        (LINK, "sp=store_1.latent", "sp=store_7.latent"),
        (LINK, "pre_1.px_s:", "pre_1.px_r:"),
        (LINK, "slr=mac_1", "slr=mac_9"),
        (LINK, "sp=store_1.latent", "sp=store_1.xs_s"),
    ],
    "link-memory": [
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:DDR[4]"),
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:HBM[0]"),
        (LINK, "store_1.latent:DDR[0]", "store_1.latent:DDR[2:1]"),
        (LINK, "sp=store_1.latent:DDR[0]\n", ""),
        (LINK, "sp=store_1.latent:DDR[0]\n", "sp=store_1.latent:DDR[0]\n" * 2),
    ],
    "link-slr": [
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR4"),
        (LINK, "slr=mac_1:SLR0\n", ""),
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR0\nslr=mac_1:SLR1"),
        (LINK, "slr=store_1:SLR0", "slr=store_1:SLR1"),
    ],
    "link-crossing": [
        (LINK, "slr=mac_1:SLR0", "slr=mac_1:SLR1"),
        (LINK, "slr=reduce_2:SLR1", "slr=reduce_2:SLR2"),
    ],
    "link-stream": [
        (LINK, "mac_1.ks_s", "mac_1.ws_s"),
        (LINK, "pre_1.px_s:gather_1.px_s", "gather_1.px_s:pre_1.px_s"),
        (LINK, "mac_1.as_s:post_1.as_s", "mac_1.as_s:post_1.rs_s"),
        (LINK, "store_1.rs_s:post_1.rs_s", "store_1.xs_s:post_1.rs_s"),
        (LINK, "mac_1.as_s:post_1.as_s", "mac_1.as_s:post_2.as_s"),
        (LINK, "gather_1.to_right_s:gather_2.from_left_s",
         "gather_2.to_left_s:gather_2.from_left_s"),
        (LINK, "gather_1.to_right_s:gather_2", "reduce_1.to_right_s:gather_2"),
    ],
    "link-self": [(LINK, "pre_1.px_s:gather_1.px_s", "gather_1.ks_s:gather_1.px_s")],
    "link-open": [
        (LINK, "stream_connect=gather_2.ss_s", "# stream_connect=gather_2.ss_s"),
        (LINK, "stream_connect=reduce_2.to_left_s", "# stream_connect=reduce_2.to_left_s"),
    ],
    "link-depth": [
        (LINK, "mac_1.as_s:post_1.as_s:32", "mac_1.as_s:post_1.as_s"),
        (LINK, "mac_1.as_s:post_1.as_s:32", "mac_1.as_s:post_1.as_s:0"),
    ],
    "link-clock": [
        (LINK, "kernel_frequency=0:222", "kernel_frequency=0:300"),
        (LINK, "kernel_frequency=0:222", "kernel_frequency=0:222.5"),
        (LINK, "kernel_frequency=0:222\n", ""),
        (LINK, "[vivado]", "[clock]\nfreqHz=100000000:mac_7.ap_clk\n[vivado]"),
    ],
    "link-timing": [
        (LINK, "[vivado]",
         "[advanced]\nparam=compiler.skipTimingCheckAndFrequencyScaling=1\n[vivado]")
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "old", "new"),
    [
        pytest.param(rule, *case, id=f"{rule}-{number}")
        for rule, listed in CONFIGS.items()
        for number, case in enumerate(listed)
    ],
)
def test_planted_configuration(emitted, rule, name, old, new):
    path = emitted / "vitis" / name
    good = path.read_text()
    assert old in good
    try:
        path.write_text(good.replace(old, new, 1))
        found = check_paths([emitted])
    finally:
        path.write_text(good)
    assert rule in {each.rule for each in found}, found
    assert {each.path for each in found} == {str(path)}


def test_every_configuration_rule_has_a_planted_violation():
    assert {rule.name for rule in config_rules.all} == {*CONFIGS, "link-width"}


def test_port_that_is_too_wide(emitted, monkeypatch):
    """No legal engine has one: the bound is moved instead."""
    monkeypatch.setattr(link, "MAX_PORT_BITS", 1024)
    found = check_paths([emitted / "vitis" / LINK])
    assert {each.rule for each in found} == {"link-width"}
    assert any("mac_1.as_s is 2048 bits wide" in each.message for each in found)


def test_too_many_masters_on_one_memory(tmp_path):
    write_program(tmp_path, 4)
    emit(tmp_path, load_board("u250"))
    path = tmp_path / "vitis" / LINK
    assert "link-memory" not in {each.rule for each in check_paths([tmp_path])}
    text = path.read_text()
    for bank in (1, 2, 3):
        text = text.replace(f"DDR[{bank}]", "DDR[0]")
    path.write_text(text)
    assert "16 masters on DDR[0], which takes fewer" in {f.message for f in check_paths([tmp_path])}


def test_kernels_of_the_project_are_clean():
    kinds = {kernel.kind for kernel in topology(4).kernels}
    tops = [ROOT / "hls" / "kernels" / f"{kind}.hpp" for kind in kinds]
    assert [str(each) for each in check_paths(tops)] == []
