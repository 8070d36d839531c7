// wload alone: what it sends on each of its streams, for tests/test_wload.py.
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hls_burst_maxi.h"
#include "hls_stream.h"
#include "scheduler.hpp"

#include "../../hls/kernels/wload.hpp"

#ifndef LDA_WEIGHT_BITS
#define LDA_WEIGHT_BITS 8
#endif
#ifndef LDA_STORED_BITS
#define LDA_STORED_BITS LDA_WEIGHT_BITS
#endif

using namespace lda;

namespace {

struct Engine : EngineDefaults {
    static const int WEIGHT_BITS = LDA_WEIGHT_BITS;
    static const int STORED_BITS = LDA_STORED_BITS;
    static const int CACHE_ROWS = 512;
};

template <class T, int DEPTH>
struct Sink {
    hls::stream<T, DEPTH> stream;
    T* words;
    int32_t count;

    Sink(const char* name, void* to) : stream(name), words(static_cast<T*>(to)), count(0) {}

    void connect(sim::Scheduler& device, int wait) {
        const std::string name = stream.name;
        device.spawn_free(name + ".sink", [this, wait] {
            for (;;) {
                TICK(wait);
                const T word = stream.read();
                words[count++] = word;
            }
        });
        device.register_fifo(stream, "route", name + ".sink");
    }
};

}  // namespace

extern "C" {

struct Card {
    CacheMemory<Engine> cache;
};

void* t_wload_new() {
    return new Card();
}
void t_wload_free(void* card) {
    delete static_cast<Card*>(card);
}

// One step; words of hd, pp, ws, qp in counts[0..3], cycles in counts[4]. 0: done.
int t_wload(void* card, const uint8_t* weights, uint64_t weight_words, const uint8_t* dynamic,
            uint64_t dynamic_words, int reload, int steps, int step_word, int step_words,
            const int32_t* segments, int segment_count, const int32_t* entries, int wait,
            uint8_t* hd, uint8_t* pp, uint8_t* ws, uint8_t* qp, int32_t* counts, char* text,
            int text_bytes) {
    typedef hls::burst_maxi<Word> Port;
    const Port weights_port("weights", reinterpret_cast<const Word*>(weights), weight_words);
    const Port dynamic_port("dynamic", reinterpret_cast<const Word*>(dynamic), dynamic_words);
    Sink<Word, Engine::DEPTH_HD> hd_sink("hd", hd);
    Sink<Word, Engine::DEPTH_PP> pp_sink("pp", pp);
    Sink<WeightRow<Engine::WEIGHT_BITS>, Engine::DEPTH_WS> ws_sink("ws", ws);
    Sink<Word, Engine::DEPTH_QP> qp_sink("qp", qp);
    hls::stream<Fetch, RUNS_DEPTH> static_runs("static_runs"), dynamic_runs("dynamic_runs");
    hls::stream<Run, RUNS_DEPTH> runs("runs");
    hls::stream<Word, WORDS_DEPTH> static_words("static_words"), dynamic_s("dynamic_words");
    CacheMemory<Engine>& cache = static_cast<Card*>(card)->cache;
    sim::Scheduler device;
    const sim::Style flp = sim::Style::flp;
    const int depth = Engine::STAGES_WLOAD;
    const auto spawn = [&](const char* name, std::function<void()> function) {
        device.spawn(name, std::move(function), depth, flp);
    };
    const Updates updates = {step_word, step_words, 0, 0, 0, 0};
    spawn("plan", [&] {
        wload_plan<Engine>(reload, steps, updates, reinterpret_cast<const Segment*>(segments),
                           segment_count, reinterpret_cast<const WloadEntry*>(entries), static_runs,
                           dynamic_runs, runs);
    });
    spawn("static", [&] { wload_fetch<Engine>(weights_port, static_runs, static_words); });
    spawn("dynamic", [&] { wload_fetch<Engine>(dynamic_port, dynamic_runs, dynamic_s); });
    spawn("route", [&] {
        wload_route<Engine>(cache, runs, static_words, dynamic_s, hd_sink.stream, pp_sink.stream,
                            ws_sink.stream, qp_sink.stream);
    });
    device.register_fifo(static_runs, "plan", "static");
    device.register_fifo(dynamic_runs, "plan", "dynamic");
    device.register_fifo(runs, "plan", "route");
    device.register_fifo(static_words, "static", "route");
    device.register_fifo(dynamic_s, "dynamic", "route");
    hd_sink.connect(device, 1);
    pp_sink.connect(device, 1);
    ws_sink.connect(device, wait);
    qp_sink.connect(device, 1);
    int status = 9;
    std::string message;
    try {
        const sim::Report report = device.run();
        status = report.status == sim::Status::deadlock;
        message = report.text;
        counts[4] = int32_t(report.cycles);
    } catch (const std::exception& error) {
        message = error.what();
    }
    std::strncpy(text, message.c_str(), std::size_t(text_bytes) - 1);
    counts[0] = hd_sink.count;
    counts[1] = pp_sink.count;
    counts[2] = ws_sink.count;
    counts[3] = qp_sink.count;
    return status;
}

}  // extern "C"
