// mac alone, in the form that the flags choose, between feeders and a taker that work every so many
// cycles. tests/mackit.py gives accumulators and cycles to compare.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "../../hls/kernels/mac.hpp"

#ifndef LDA_RANKS
#define LDA_RANKS 1
#endif
#ifndef LDA_PP
#define LDA_PP 32
#endif
#ifndef LDA_WEIGHT_BITS
#define LDA_WEIGHT_BITS 8
#endif
#ifndef LDA_FABRIC
#define LDA_FABRIC 0
#endif

using namespace lda;

namespace {

struct Engine : EngineDefaults {
    static const int RANKS = LDA_RANKS;
    static const int PP = LDA_PP;
    static const int WEIGHT_BITS = LDA_WEIGHT_BITS;
    static const int STORED_BITS = LDA_WEIGHT_BITS;
    static const int FABRIC_OUTPUTS = LDA_FABRIC;
    static const int WINDOW_ROWS = 512;
    static const int WEIGHT_ROWS = 128;
    static const int LAG = 34;
    static const int DEPTH_YS = 512;
    static const int DEPTH_RS = 512;
};

template <class T>
struct Feeder {
    const uint8_t* data;
    int count, interval;
    void operator()(hls::stream<T>& to) const {
        for (int k = 0; k < count; ++k) {
            TICK(interval);
            T element;
            std::memcpy(&element, data + std::size_t(k) * sizeof(T), sizeof(T));
            to.write(element);
        }
    }
};

}  // namespace

extern "C" {

// counts: elements of gs, ks, ws, and of as and bs together; intervals: cycles from one to the
// next, in the same order (0, of the last: two a cycle). Returns 0, 1 (deadlock or leftover) or 9
// (a fault), with `text`; cycles[0]: until the last accumulators have left.
int t_mac(const int32_t* segments, int segment_count, const int32_t* entries, const uint8_t* gs,
          const uint8_t* ks, const uint8_t* ws, int32_t* as, const int32_t* counts,
          const int32_t* intervals, int64_t* cycles, char* text, int text_bytes) {
    typedef Beat<Engine::RANKS> Beats;
    std::unique_ptr<MacMemory<Engine>> memory(new MacMemory<Engine>());
    hls::stream<Beats, Engine::DEPTH_GS> gs_s("gs");
    hls::stream<WeightRow<8>, Engine::DEPTH_KS> ks_s("ks");
    hls::stream<WeightRow<Engine::WEIGHT_BITS>, Engine::DEPTH_WS> ws_s("ws");
    hls::stream<AccWord, Engine::DEPTH_AS> as_s("as");
    hls::stream<AccWord, Engine::DEPTH_BS> bs_s("bs");
    hls::stream<MacJob, JOBS_DEPTH> jobs_s("jobs");
    sim::Scheduler device;
    device.timing.pipeline_depth = 1;
    device.spawn("gather", [&] { Feeder<Beats>{gs, counts[0], intervals[0]}(gs_s); });
    device.spawn("ring", [&] { Feeder<WeightRow<8>>{ks, counts[1], intervals[1]}(ks_s); });
    device.spawn("wload", [&] {
        Feeder<WeightRow<Engine::WEIGHT_BITS>>{ws, counts[2], intervals[2]}(ws_s);
    });
    device.spawn(
        "mac.plan",
        [&] {
            mac_plan<Engine>(reinterpret_cast<const Segment*>(segments), segment_count,
                             reinterpret_cast<const MacEntry*>(entries), jobs_s);
        },
        Engine::STAGES_MAC, sim::Style::flp);
    device.spawn(
        "mac", [&] { mac_array<Engine>(jobs_s, *memory, gs_s, ks_s, ws_s, as_s, bs_s); },
        Engine::STAGES_MAC, sim::Style::flp);
    device.spawn("post", [&] {
        const int words = intervals[3] > 0 ? 1 : 2;  // at a time
        for (int k = 0; k < counts[3]; k += words) {
            TICK(most(intervals[3], 1));
            for (int j = k; j < k + words; ++j) {
                const AccWord word = j & 1 ? bs_s.read() : as_s.read();
                std::memcpy(as + std::size_t(j) * 64, word.a, sizeof word.a);
            }
        }
    });
    device.register_fifo(jobs_s, "mac.plan", "mac");
    device.register_fifo(gs_s, "gather", "mac");
    device.register_fifo(ks_s, "ring", "mac");
    device.register_fifo(ws_s, "wload", "mac");
    device.register_fifo(as_s, "mac", "post");
    device.register_fifo(bs_s, "mac", "post");
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

// lanes.hpp: y and x of the slots from first_slot on, tile by tile.
void t_lanes(int height, int width, int pitch, int first_slot, int tiles, int32_t* pixel,
             int32_t* y, int32_t* x) {
    const Grid grid = grid_of(height, width, pitch);
    Lanes<32> lanes;
    lanes.start(grid, first_slot);
    const int settling = lanes.settling(first_slot);
    for (int k = 0; k < settling; ++k)
        lanes.settle(k, settling - 1);
    for (int tile = 0; tile < tiles; ++tile) {
        if (tile == 3) {  // and again from the start
            lanes.rewind();
            for (int k = 0; k < 3; ++k)
                lanes.advance();
        }
        for (int l = 0; l < 32; ++l, ++pixel, ++y, ++x) {
            *pixel = lanes.lane[l].pixel;
            *y = lanes.lane[l].y;
            *x = lanes.lane[l].x;
        }
        lanes.advance();
    }
}

#ifdef LDA_FAST
// One unit by the form of the leaf that the flags choose, and by the portable one.
void t_leaf(const int8_t* x, const int8_t* w, int pixels, int taps, int subs, int32_t* fast,
            int32_t* portable) {
    std::vector<uint8_t> operands(std::size_t(pixels * taps * subs * SUB));
    for (std::size_t k = 0; k < operands.size(); k += GROUP)
        store_operands(x + k, operands.data() + k);
    std::vector<const uint8_t*> pixel;
    for (int k = 0; k < taps * pixels; ++k)
        pixel.push_back(operands.data() + k * subs * SUB);
    multiply_unit(pixel.data(), pixels, taps, subs, w, reinterpret_cast<int32_t (*)[GROUP]>(fast));
    for (int p = 0; p < pixels; p += LEAF_PIXELS)
        multiply_portable(pixel.data() + p, pixels, taps, subs, w,
                          reinterpret_cast<int32_t (*)[GROUP]>(portable) + p);
}
#endif

#ifdef LDA_PLANT_FAULTS
void t_plant_fault(int fault) {
    planted_fault() = fault;
}
#endif

}  // extern "C"
