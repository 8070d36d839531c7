// post alone, in the form that the flags choose, between feeders and takers that work every so many
// cycles. tests/test_post.py compares words and cycles.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "../../hls/kernels/post.hpp"

using namespace lda;

namespace {

struct Engine : EngineDefaults {
    static const int UNITS = 16;
    static const int ROW_OCTETS = 64;
    static const int SUMS = 512;
};

template <class T>
struct Bench {
    uint8_t* data;
    int count, interval;
    void feed(hls::stream<T>& to) const {
        for (int k = 0; k < count; ++k) {
            TICK(interval);
            T element;
            std::memcpy(&element, data + std::size_t(k) * sizeof(T), sizeof(T));
            to.write(element);
        }
    }
    // In turns: as and bs.
    void feed(hls::stream<T>& even, hls::stream<T>& odd) const {
        for (int k = 0; k < count; ++k) {
            TICK(interval);
            T element;
            std::memcpy(&element, data + std::size_t(k) * sizeof(T), sizeof(T));
            if (k & 1) {
                odd.write(element);
            } else {
                even.write(element);
            }
        }
    }
    void take(hls::stream<T>& from) const {
        for (int k = 0; k < count; ++k) {
            TICK(interval);
            const T element = from.read();
            std::memcpy(data + std::size_t(k) * sizeof(T), &element, sizeof(T));
        }
    }
};

}  // namespace

extern "C" {

// counts: elements of as and bs together, rs, qp, ss, ys and st; intervals: cycles from one to the
// next, in the same order. Returns 0, 1 (deadlock or leftover) or 9 (a fault), with `text`;
// cycles[0]: until the last word has left.
int t_post(const int32_t* segments, int segment_count, const int32_t* entries, uint8_t* as,
           uint8_t* rs, uint8_t* qp, uint8_t* ss, uint8_t* ys, uint8_t* st, const int32_t* counts,
           const int32_t* intervals, int64_t* cycles, char* text, int text_bytes) {
    std::unique_ptr<PostMemory<Engine>> memory(new PostMemory<Engine>());
    hls::stream<AccWord, Engine::DEPTH_AS> as_s("as");
    hls::stream<AccWord, Engine::DEPTH_BS> bs_s("bs");
    hls::stream<Pair, Engine::DEPTH_RS> rs_s("rs");
    hls::stream<Word, Engine::DEPTH_QP> qp_s("qp");
    hls::stream<SumWord, Engine::DEPTH_SS> ss_s("ss");
    hls::stream<ResultPair, Engine::DEPTH_YS> ys_s("ys");
    hls::stream<StatWord, Engine::DEPTH_ST> st_s("st");
    sim::Scheduler device;
    device.timing.pipeline_depth = 1;
    device.spawn("mac", [&] { Bench<AccWord>{as, counts[0], intervals[0]}.feed(as_s, bs_s); });
    device.spawn("store", [&] { Bench<Pair>{rs, counts[1], intervals[1]}.feed(rs_s); });
    device.spawn("wload", [&] { Bench<Word>{qp, counts[2], intervals[2]}.feed(qp_s); });
    device.spawn("gather", [&] { Bench<SumWord>{ss, counts[3], intervals[3]}.feed(ss_s); });
    device.spawn(
        "post",
        [&] {
            post<Engine>(reinterpret_cast<const Segment*>(segments), segment_count,
                         reinterpret_cast<const PostEntry*>(entries), *memory, as_s, bs_s, rs_s,
                         qp_s, ss_s, ys_s, st_s);
        },
        Engine::STAGES_POST);
    device.spawn("writes", [&] { Bench<ResultPair>{ys, counts[4], intervals[4]}.take(ys_s); });
    device.spawn("reduce", [&] { Bench<StatWord>{st, counts[5], intervals[5]}.take(st_s); });
    device.register_fifo(as_s, "mac", "post");
    device.register_fifo(bs_s, "mac", "post");
    device.register_fifo(rs_s, "store", "post");
    device.register_fifo(qp_s, "wload", "post");
    device.register_fifo(ss_s, "gather", "post");
    device.register_fifo(ys_s, "post", "writes");
    device.register_fifo(st_s, "post", "reduce");
    int status = 9;
    std::string message;
    try {
        const sim::Report report = device.run();
        status = report.ok() ? 0 : 1;
        message = report.text;
        cycles[0] = report.cycles;
    } catch (const std::exception& error) {
        message = error.what();
    }
    std::strncpy(text, message.c_str(), std::size_t(text_bytes) - 1);
    return status;
}

#ifdef LDA_PLANT_FAULTS
void t_plant_fault(int fault) {
    planted_fault() = fault;
}
#endif

}  // extern "C"
