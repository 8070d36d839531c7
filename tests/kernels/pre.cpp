// pre by itself for tests/test_pre.py: all its processes in a simulation, fed from arrays.
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "kernels/pre.hpp"

using namespace lda;

#ifndef LDA_NORMALISERS
#define LDA_NORMALISERS 4
#endif

namespace {

template <int R>
struct TestEngine : EngineDefaults {
    static const int RANKS = R;
    static const int NORMALISERS = LDA_NORMALISERS;
};

template <class T>
void feed(hls::stream<T>& stream, const uint8_t* bytes, int count) {
    for (int i = 0; i < count; ++i) {
        T value;
        std::memcpy(&value, bytes + std::size_t(i) * sizeof(T), sizeof(T));
        stream.write(value);
    }
}

template <class P>
struct Pre {
    SumsMemory<P> sums;
    RowsMemory<P> rows;
    ApplyMemory<P> apply;
    hls::stream<Word, P::DEPTH_HD> hd{"hd"};
    hls::stream<Word, P::DEPTH_PP> pp{"pp"};
    hls::stream<Pair, P::DEPTH_XS> xs{"xs"};
    hls::stream<StatBeat<P::RANKS>, P::DEPTH_SG> sg{"sg"};
    hls::stream<Word, P::DEPTH_PX> px{"px"};
    hls::stream<SumSet<P::NORMALISERS>, P::DEPTH_SM> sm{"sm"};
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_SC> sc{"sc"};
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_RK> rk{"rk"};
    hls::stream<MaxWord, P::DEPTH_MK> mk{"mk"};
    hls::stream<ScaleWord, P::DEPTH_RW> rw{"rw"};
    sim::Scheduler device;

    Pre(const Segment* segments, int count, const PreEntry* entries) {
        device.timing.pipeline_depth = P::STAGES_PRE;
        spawn("sums", [=] { pre_sums<P>(segments, count, entries, sums, sg, sm, mk); });
        spawn("scale", [=] { pre_scale<P>(segments, count, entries, hd, sm, sc, rk); });
        spawn("rows", [=] { pre_rows<P>(segments, count, entries, rows, rk, mk, rw); });
        spawn("apply", [=] { pre_apply<P>(segments, count, entries, apply, pp, xs, sc, rw, px); });
        device.register_fifo(hd, "", "scale");
        device.register_fifo(sg, "", "sums");
        device.register_fifo(pp, "", "apply");
        device.register_fifo(xs, "", "apply");
        device.register_fifo(sm, "sums", "scale");
        device.register_fifo(sc, "scale", "apply");
        device.register_fifo(rk, "scale", "rows");
        device.register_fifo(mk, "sums", "rows");
        device.register_fifo(rw, "rows", "apply");
        device.register_fifo(px, "apply", "");
    }

    void spawn(const char* name, const std::function<void()>& function) {
        device.spawn(name, function, -1, sim::Style::flp);
    }
};

struct Arrays {
    const uint8_t* hd;
    const uint8_t* pp;
    const uint8_t* xs;
    const uint8_t* sg;
    uint8_t* px;
    int32_t counts[5];
};

template <class P>
std::string run(const Segment* segments, int segment_count, const PreEntry* entries,
                const Arrays& arrays, int64_t* cycles) {
    std::unique_ptr<Pre<P>> pre(new Pre<P>(segments, segment_count, entries));
    feed(pre->hd, arrays.hd, arrays.counts[0]);
    feed(pre->pp, arrays.pp, arrays.counts[1]);
    feed(pre->xs, arrays.xs, arrays.counts[2]);
    feed(pre->sg, arrays.sg, arrays.counts[3]);
    const sim::Report report = pre->device.run();
    *cycles = report.cycles;
    if (!report.ok()) return report.text;
    if (int(pre->px.size()) != arrays.counts[4]) {
        return "px has " + std::to_string(pre->px.size()) + " words";
    }
    for (int i = 0; i < arrays.counts[4]; ++i) {
        const Word word = pre->px.read();
        std::memcpy(arrays.px + std::size_t(i) * WORD_BYTES, word.b, WORD_BYTES);
    }
    return "";
}

}  // namespace

extern "C" {

// counts: elements of hd, pp, xs, sg, px. Returns what went wrong, or "".
const char* t_pre(int ranks, const int32_t* segments, int segment_count, const int32_t* entries,
                  const uint8_t* hd, const uint8_t* pp, const uint8_t* xs, const uint8_t* sg,
                  uint8_t* px, const int32_t* counts, int64_t* cycles) {
    static std::string error;
    const Segment* segment = reinterpret_cast<const Segment*>(segments);
    const PreEntry* entry = reinterpret_cast<const PreEntry*>(entries);
    Arrays arrays = {hd, pp, xs, sg, px, {}};
    std::memcpy(arrays.counts, counts, sizeof arrays.counts);
    try {
        error = ranks == 1   ? run<TestEngine<1>>(segment, segment_count, entry, arrays, cycles)
                : ranks == 2 ? run<TestEngine<2>>(segment, segment_count, entry, arrays, cycles)
                             : run<TestEngine<4>>(segment, segment_count, entry, arrays, cycles);
    } catch (const std::exception& exception) {
        error = exception.what();
    }
    return error.c_str();
}

#ifdef LDA_FAST
// One word in both forms. queries: those of a joined execution; scales: mu, r, e of 16 norm groups;
// rows: of 8 pixels.
void t_transform(const int32_t* entries, int align, int queries, const uint8_t* stored,
                 const uint8_t* constants, const int32_t* scales, const int32_t* rows,
                 const int8_t* table, uint8_t* fast, uint8_t* plain) {
    typedef EngineDefaults P;
    static ApplyMemory<P> memory;
    PreEntry entry;
    Pair pair;
    ScaleWord row;
    std::memcpy(&entry, entries, sizeof entry);
    std::memcpy(&pair, stored, sizeof pair);
    std::memcpy(memory.constants[3].b, constants, WORD_BYTES);
    std::memcpy(memory.scales + 16, scales, 16 * sizeof(Scale));
    std::memcpy(row.s, rows, sizeof row.s);
    std::memcpy(memory.table, table, TABLE_SIZE);
    const int shift = queries ? entry.plain_shift : entry.shift;
    const WordPlace place = {entry.wide[0] != 0, queries != 0, align, shift, 3,
                             16 / P::NORMALISERS};
    Word one, other;
    transform_fast<P>(entry, memory, pair, place, row, one);
    transform_plain<P>(entry, memory, pair, place, row, other);
    std::memcpy(fast, one.b, WORD_BYTES);
    std::memcpy(plain, other.b, WORD_BYTES);
}
#endif

int t_entry_words() {
    return sizeof(PreEntry) / sizeof(int32_t);
}

}  // extern "C"
