// store alone: xs goes through a relay, as through pre and gather, to a small engine that answers
// every micro-slot's words only when all words of that micro-slot and of those before have come.
// Another relay may follow, which unlike that engine does not run empty between executions.
// tests/test_store.py compares the words.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hls_burst_maxi.h"
#include "hls_stream.h"
#include "scheduler.hpp"

#include "../../hls/kernels/store.hpp"

using namespace lda;

namespace {

struct Engine : EngineDefaults {
    static const int STORE_ROWS = 2048;
    static const int LAG = LDA_LAG;
};

struct Words {
    const uint8_t* data;
    Word operator[](int i) const {
        Word word;
        std::memcpy(word.b, data + i * WORD_BYTES, WORD_BYTES);
        return word;
    }
};

struct Log {
    std::vector<int32_t>* log;
    void operator()(int entry, int i0, int i1) const {
        log->push_back(entry);
        log->push_back(i0);
        log->push_back(i1);
    }
};

// Words of every lead slot and micro-slot, in the order of the program; `last` of an execution.
struct Step {
    int32_t xs, rs, ys, last;
};

void put(std::vector<uint8_t>& to, const Pair& pair) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(&pair);
    to.insert(to.end(), bytes, bytes + sizeof pair);
}

}  // namespace

extern "C" {

// Lengths of xs, rs and the log in `counts`; status of the run, cycles in counts[3].
int t_store(const int32_t* segments, int segment_count, const int32_t* entries,
            const int32_t* moves, const int32_t* io, const uint8_t* latent, uint8_t* result,
            uint8_t* spill, int spill_words, uint8_t* memory, const int32_t* steps, int step_count,
            const uint8_t* ys, int depth, int drain, uint8_t* xs, uint8_t* rs, int32_t* log,
            int32_t* counts, char* text, int text_bytes) {
    struct Holder {
        StoreTypes<Engine>::Memory memory;
        SamplerMemory<Engine> sampler;
    };
    std::unique_ptr<Holder> holder(new Holder());
    for (int row = 0; row < Engine::STORE_ROWS; ++row)
        for (int plane = 0; plane < 2; ++plane)
            std::memcpy(holder->memory[plane][row].b, memory + (2 * row + plane) * WORD_BYTES,
                        WORD_BYTES);
    std::vector<uint8_t> xs_got, rs_got;
    std::vector<int32_t> done;
    StoreIo store_io;
    std::memcpy(&store_io, io, sizeof store_io);
    hls::stream<Pair, Engine::DEPTH_XS> xs_s("xs");
    hls::stream<Pair, Engine::DEPTH_PX> px_s("px");
    hls::stream<Pair, Engine::DEPTH_RS> rs_s("rs");
    hls::stream<ResultPair, Engine::DEPTH_YS> ys_s("ys");
    hls::stream<ResultPair, Engine::DEPTH_AS> as_s("as");
    hls::stream<ResultPair>& made_s =
        drain > 0 ? static_cast<hls::stream<ResultPair>&>(as_s) : ys_s;
    sim::Scheduler device;
    device.spawn(
        "store",
        [&] {
            const hls::burst_maxi<Word> port("spill", reinterpret_cast<Word*>(spill),
                                             uint64_t(spill_words));
            store<Engine>(Words{latent}, reinterpret_cast<Word*>(result), port, 1, store_io,
                          Updates(), reinterpret_cast<const Segment*>(segments), segment_count,
                          reinterpret_cast<const StoreEntry*>(entries),
                          reinterpret_cast<const Move*>(moves), holder->memory, holder->sampler,
                          Log{&done}, xs_s, rs_s, ys_s);
        },
        Engine::STAGES_STORE, sim::Style::flp);
    device.spawn(
        "relay",
        [&] {
            for (int k = 0; k < step_count;) {
                int words = 0;
                bool last = false;
                for (; !last; ++k) {
                    Step step;
                    std::memcpy(&step, steps + 4 * k, sizeof step);
                    words += step.xs;
                    last = step.last != 0;
                }
                for (int i = 0; i < words; ++i) {
                    TICK(1);
                    px_s.write(xs_s.read());
                }
                LOOP_EXIT();
            }
        },
        Engine::STAGES_PRE, sim::Style::flp);
    device.spawn(
        "engine",
        [&] {
            const uint8_t* next = ys;
            for (int k = 0; k < step_count; ++k) {
                Step step;
                std::memcpy(&step, steps + 4 * k, sizeof step);
                int ticks = step.xs > step.rs ? step.xs : step.rs;
                if (step.ys > 0 && ticks < Engine::PP / GROUP) ticks = Engine::PP / GROUP;
                for (int i = 0; i < ticks; ++i) {
                    TICK(1);
                    if (i < step.xs) put(xs_got, px_s.read());
                    if (i < step.rs) put(rs_got, rs_s.read());
                    if (i < step.ys) {
                        ResultPair pair;
                        std::memcpy(&pair, next, sizeof pair);
                        next += sizeof pair;
                        made_s.write(pair);
                    }
                }
                if (step.last) LOOP_EXIT();
            }
        },
        depth, sim::Style::flp);
    if (drain > 0) {
        device.spawn(
            "post",
            [&] {
                int words = 0;
                for (int k = 0; k < step_count; ++k) {
                    Step step;
                    std::memcpy(&step, steps + 4 * k, sizeof step);
                    words += step.ys;
                }
                for (int i = 0; i < words; ++i) {
                    TICK(1);
                    ys_s.write(as_s.read());
                }
                LOOP_EXIT();
            },
            drain, sim::Style::flp);
        device.register_fifo(as_s, "engine", "post");
    }
    device.register_fifo(xs_s, "store", "relay");
    device.register_fifo(px_s, "relay", "engine");
    device.register_fifo(rs_s, "store", "engine");
    device.register_fifo(ys_s, drain > 0 ? "post" : "engine", "store");
    int status = 9;
    std::string message;
    try {
        const sim::Report report = device.run();
        status = report.ok() ? 0 : 1;
        message = report.text;
        counts[3] = int32_t(report.cycles);
    } catch (const std::exception& error) {
        message = error.what();
    }
    std::strncpy(text, message.c_str(), std::size_t(text_bytes) - 1);
    std::memcpy(xs, xs_got.data(), xs_got.size());
    std::memcpy(rs, rs_got.data(), rs_got.size());
    std::memcpy(log, done.data(), done.size() * sizeof(int32_t));
    counts[0] = int32_t(xs_got.size() / sizeof(Pair));
    counts[1] = int32_t(rs_got.size() / sizeof(Pair));
    counts[2] = int32_t(done.size() / 3);
    for (int row = 0; row < Engine::STORE_ROWS; ++row)
        for (int plane = 0; plane < 2; ++plane)
            std::memcpy(memory + (2 * row + plane) * WORD_BYTES, holder->memory[plane][row].b,
                        WORD_BYTES);
    return status;
}

#ifdef LDA_PLANT_FAULTS
void t_plant_fault(int fault) {
    planted_fault() = fault;
}
#endif

}  // extern "C"
