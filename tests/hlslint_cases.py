"""Sources for the tests of the checker: clean ones, and what violates a rule when it is put in."""

from gen.hlslint.check import check_paths

# A clean translation unit: a started kernel with a dataflow region, and everything that the
# planted violations need to exist.
CLEAN = """\
#include <cstdint>
#include "ap_int.h"
#include "hls_stream.h"

struct Word {
    int8_t b[64];
};
typedef Word Named;
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

static void produce(const ap_uint<512>* source, int count, hls::stream<Word>& made) {
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

static void both(const ap_uint<512>* source, int count, hls::stream<Word>& sent) {
#pragma HLS dataflow
    hls::stream<Word, 4> made("made");
    produce(source, count, made);
    consume(made, count, sent);
}

extern "C" {
void kernel(const ap_uint<512>* source, hls::burst_maxi<ap_uint<512>> rates, int count,
            hls::stream<Word>& xs_s) {
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
         hls::stream<lda::WeightRow<8>>& %s, hls::stream<lda::AccWord>& as_s,
         hls::stream<lda::AccWord>& bs_s) {
#pragma HLS INTERFACE axis port=gs_s
#pragma HLS INTERFACE axis port=ks_s
#pragma HLS INTERFACE axis port=ws_s
#pragma HLS INTERFACE axis port=as_s
#pragma HLS INTERFACE axis port=bs_s
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
            "const ap_uint<512>* source, int count, hls::stream<Word>& sent) {\n"
            "#pragma HLS dataflow\n",
            "ap_uint<512>* source, int count, hls::stream<Word>& sent) {\n#pragma HLS dataflow\n"
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
    "volatile": [
        ("kernel(const ap_uint<512>* source", "kernel(volatile ap_uint<512>* source", None)
    ],
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
        ("kernel(const ap_uint<512>* source", "kernel(const ap_uint<512>* reg", None),
        ("            hls::stream<Word>& xs_s) {", "            hls::stream<Word>& out) {", None),
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
    "port-element": [
        ("kernel(const ap_uint<512>* source", "kernel(const Word* source", None),
        ("burst_maxi<ap_uint<512>>", "burst_maxi<Word>", None),
        ("burst_maxi<ap_uint<512>>", "burst_maxi<Named>", None),
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
