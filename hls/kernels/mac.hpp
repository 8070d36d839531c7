// mac: the multiplier array, output stationary. Fills its window buffer from px, its weight buffer
// from ws or ks, and sends accumulators to post (as).
//
// One flattened loop per entry runs through the slots of docs/engine.md. Slot "lead" first loads
// weights, then fills `lead` window pixels. In every cycle of a tile's slot one multiply step, one
// px word, one weight word and one as word are handled; as words of a tile leave while the next
// one is computed. A last slot sends the last tile.
#ifndef LDA_MAC_HPP
#define LDA_MAC_HPP

#include "arithmetic.hpp"
#include "mac_memory.hpp"
#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// Window pixels in fill order; index = (phase * items + item) * pitch + y * width + x.
struct FillWalk {
    int index, pixel, item_base;  // pixel: within the item; item_base: index of its first pixel
    int source, block, first, left, sub;

    void start_source(const MacEntry& entry, const int* firsts) {
#pragma HLS inline
        block = 0;
        first = firsts[source];
        left = entry.source_subs[source];
    }

    void start(const MacEntry& entry, const int* firsts) {
#pragma HLS inline
        index = pixel = item_base = source = sub = 0;
        start_source(entry, firsts);
    }

    int count() const { return least(4 - first, left); }

    void next(const MacEntry& entry, const int* firsts) {
#pragma HLS inline
        const int taken = count();
        sub += taken;
        left -= taken;
        first = 0;
        ++block;
        if (left > 0) return;
        if (++source == entry.sources) {
            source = sub = 0;
            ++index;
            if (++pixel == entry.height * entry.width) {
                pixel = 0;
                item_base += entry.pitch;
                index = item_base;
            }
        }
        start_source(entry, firsts);
    }
};

// Where the lanes of a tile lie in the output image; y < 0: no pixel.
template <class P>
struct Lanes {
    int32_t y[P::PP];
    int32_t x[P::PP];
};

template <class P>
inline void place_lanes(const MacEntry& entry, const Divider& by_pitch, const Divider& by_width,
                        int tile, Lanes<P>& lanes) {
#pragma HLS inline
    const int pitch = entry.pitch, width = entry.width, height = entry.height;
    const int items = entry.items, stride = entry.stride;
LANES:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        const int slot = tile * P::PP + l;
        const int item = by_pitch.quotient(uint32_t(slot));
        const int pixel = slot - item * pitch;
        const int y = by_width.quotient(uint32_t(pixel));
        const bool valid = item < items && y < height;
        lanes.y[l] = valid ? y * stride : -(1 << 20);
        lanes.x[l] = (pixel - y * width) * stride;
    }
}

// Whether lane l sees the image through a tap.
template <class P>
inline bool lane_open(const MacEntry& entry, const Lanes<P>& lanes, int l, int ty, int tx) {
#pragma HLS inline
    const int y = lanes.y[l] + ty, x = lanes.x[l] + tx;
    return y >= 0 && y < entry.limit_y && x >= 0 && x < entry.limit_x;
}

#ifdef LDA_FAST

// All steps of one tile and gate.
template <class P>
void multiply_tile(const MacEntry& entry, const MacMemory<P>& memory, const int16_t* pad_row,
                   const Lanes<P>& lanes, int start, int half, int gate,
                   int32_t (&acc)[P::PP][GROUP]) {
    for (int l = 0; l < P::PP; ++l)
        for (int o = 0; o < GROUP; ++o)
            acc[l][o] = 0;
    const int16_t* weights = memory.weights[half] + gate * entry.shape.steps * STEP_WEIGHTS;
    const int subs = entry.subs, limit = P::WINDOW_ROWS * P::PP - subs;
    const unsigned limit_y = unsigned(entry.limit_y), limit_x = unsigned(entry.limit_x);
    for (int tap = 0; tap < entry.taps; ++tap) {
        const int16_t* pixel[P::PP];
        const int ty = entry.ty[tap], tx = entry.tx[tap];
        const int first = start + entry.offset[tap];
        for (int l = 0; l < P::PP; ++l) {
            // unsigned, so that one comparison finds both ends
            const bool open =
                unsigned(lanes.y[l] + ty) < limit_y && unsigned(lanes.x[l] + tx) < limit_x;
            const int i = (first + l) * subs;
            LDA_CHECK(!open || (i >= 0 && i <= limit), "mac: a tap outside of the window buffer");
            pixel[l] = open ? memory.window + i * SUB : pad_row;
        }
        if (LDA_FAULT == 3) pixel[5] = pixel[4];
        multiply_tap<P::PP>(pixel, subs, weights + tap * subs * STEP_WEIGHTS, acc);
    }
}

#else

// One step: PP pixels x 16 inputs x 8 outputs.
template <class P>
inline void multiply_step(const MacEntry& entry, const MacMemory<P>& memory,
                          const Divider& by_pitch, const Divider& by_width, int tile, int half,
                          int row, int tap, int sub, bool clear, int32_t (&acc)[P::PP][GROUP]) {
#pragma HLS inline
    // from the tile's number anew in every iteration: no product stands between two iterations
    Lanes<P> lanes;
#pragma HLS array_partition variable = lanes.y complete
#pragma HLS array_partition variable = lanes.x complete
    place_lanes<P>(entry, by_pitch, by_width, tile, lanes);
    const int start = tile * P::PP;
    Operands operands[P::PP];
#pragma HLS array_partition variable = operands complete
    read_window<P>(memory, start + entry.offset[tap], entry.subs, sub, operands);
    const Word low = memory.weights[half][0][row], high = memory.weights[half][1][row];
LANES:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        const bool open = lane_open<P>(entry, lanes, l, entry.ty[tap], entry.tx[tap]);
        for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
            int32_t dot = 0;
            for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
                const int8_t x = open ? operands[l].x[i] : int8_t(entry.pad);
                const int8_t w = (i < GROUP ? low : high).b[o * GROUP + i % GROUP];
                dot += int32_t(x) * int32_t(w);
            }
            acc[l][o] = (clear ? 0 : acc[l][o]) + dot;
        }
    }
}

#endif

template <class P>
void mac_entry(const MacEntry& entry, int i0, int i1, MacMemory<P>& memory, int& half,
               hls::stream<Word>& px_s, hls::stream<Word>& ks_s, hls::stream<Word>& ws_s,
               hls::stream<AccWord>& as_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const int TILE_WORDS = P::PP / GROUP;
    LDA_CHECK(shape.tiles * P::PP <= 32768, "mac: an image of more than 32768 pixel slots");
    LDA_CHECK(entry.subs * entry.taps == shape.steps, "mac: steps are not taps x subs");

    int firsts[MAX_SOURCES];
    int pixel_words = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        firsts[s] = first_sub(at(entry.group[s], i0, i1));
        if (s < entry.sources) pixel_words += blocks_of(firsts[s], entry.source_subs[s]);
    }
    const int rows = shape.steps * shape.gates;
    LDA_CHECK(rows <= P::WEIGHT_ROWS, "mac: more weight rows than the weight buffer has");
    const int share = ceil_div(rows, shape.tiles);
    const int next_share = ceil_div(entry.next_rows, shape.tiles);
    const Divider by_pitch(uint32_t(entry.pitch)), by_width(uint32_t(entry.width));
    // a gate's steps last at least as long as its results take to leave
    const int gate_cycles = most(shape.steps, TILE_WORDS);
    const int all_gates_cycles = shape.gates * gate_cycles;

    FillWalk fill;
    fill.start(entry, firsts);
    int32_t result[P::PP][GROUP];
#pragma HLS array_partition variable = result complete dim = 0
#ifdef LDA_FAST
    Lanes<P> lanes;
    place_lanes<P>(entry, by_pitch, by_width, 0, lanes);
    int16_t pad_row[P::WEIGHT_ROWS * SUB];
    for (int k = 0; k < entry.subs * SUB; ++k)
        pad_row[k] = int16_t(entry.pad);
#else
    int32_t acc[P::PP][GROUP];
#pragma HLS array_partition variable = acc complete dim = 0
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
            acc[l][o] = result[l][o] = 0;
        }
    }
#endif

#pragma HLS array_partition variable = memory.window complete dim = 1
#pragma HLS array_partition variable = memory.weights complete dim = 1
#pragma HLS array_partition variable = memory.weights complete dim = 2

    // What a slot loads is used from the next slot on: at least GUARD cycles later, so that no read
    // meets its write in the pipeline. That is what the dependence pragmas below rely on.
    const int slots = shape.groups * shape.tiles;
    int slot = -1, group = 0, tile = 0;
    const int lead_words = least(shape.lead, shape.fill) * pixel_words;
    const int tile_fill_words = P::PP * pixel_words;
    int fill_left = shape.fill * pixel_words - lead_words;  // px words
    int weight_words = entry.load_first ? 2 * rows : 0;
    int fill_start = weight_words, fill_words = lead_words;
    int weight_row = 0, weight_side = 0, weights_left = 0;
    int load_half = half;                // buffer half that is being loaded
    int ready = 0;                       // words of `result` that leave during the next gate
    int cycle = 0, phase = 0, gate = 0;  // phase: cycle within the gate
    int tap = 0, sub = 0, row = 0;
    int slot_cycles = fill_start + fill_words + P::GUARD;
    bool done = false;
SLOTS:
    while (!done) {
#pragma HLS pipeline II = 1
#pragma HLS dependence variable = memory.window type = inter false
#pragma HLS dependence variable = memory.weights type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        const bool computes = slot >= 0 && slot < slots;
#ifdef LDA_FAST
        // what nothing but multiply steps follow is one long iteration
        const bool quiet = computes && cycle >= weight_words && cycle >= fill_words &&
                           phase >= ready && gate < shape.gates;
        const int span = quiet ? gate_cycles - phase : 1;
#else
        const int span = 1;
#endif
        TICK(span);
        if (cycle < weight_words) {
            // what is loaded ahead for the next entry always comes from wload
            const bool ahead = slot >= 0 && group + 1 == shape.groups;
            const bool from_store = entry.from_store && !ahead;
            const Word word = from_store ? ks_s.read() : ws_s.read();
            write_weights<P>(memory, load_half, weight_row, weight_side,
                             from_store && entry.transposed, word);
            weight_side ^= 1;
            weight_row += weight_side == 0;
        }
        if (cycle >= fill_start && cycle < fill_start + fill_words) {
            write_window<P>(memory, fill.index, entry.subs, fill.sub, fill.first, fill.count(),
                            px_s.read());
            fill.next(entry, firsts);
        }
        const bool in_gate = gate < shape.gates;
        if (in_gate && phase < ready) {
            AccWord word;
            for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
                for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                    word.a[k * GROUP + o] = result[phase * GROUP + k][o];
                }
            }
            as_s.write(word);
        }
        if (computes && in_gate) {
#ifndef LDA_FAST
            if (phase < shape.steps) {
                multiply_step<P>(entry, memory, by_pitch, by_width, tile, half, row, tap, sub,
                                 phase == 0, acc);
                ++row;
                if (++sub == entry.subs) {
                    sub = 0;
                    ++tap;
                }
            }
#endif
            phase += span;
            if (phase == gate_cycles) {
#ifdef LDA_FAST
                multiply_tile<P>(entry, memory, pad_row, lanes, tile * P::PP, half, gate, result);
#else
                for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
                    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                        result[l][o] = acc[l][o];
                    }
                }
#endif
                ready = least(TILE_WORDS, shape.words - tile * TILE_WORDS);
                phase = tap = sub = 0;
                ++gate;
            }
        } else {
            ++phase;
        }
        cycle += span;
        if (cycle >= slot_cycles) {
            cycle = phase = gate = row = tap = sub = 0;
            if (slot < 0) weight_row = weight_side = 0;
            if (computes && ++tile == shape.tiles) {
                tile = 0;
                ++group;
                half ^= 1;
                weight_row = weight_side = 0;
            }
            ++slot;
            const bool next_computes = slot < slots;
#ifdef LDA_FAST
            if (next_computes) place_lanes<P>(entry, by_pitch, by_width, tile, lanes);
#endif
            const bool last_group = group + 1 >= shape.groups;
            if (tile == 0) weights_left = last_group ? entry.next_rows : rows;
            const int load =
                next_computes ? least(last_group ? next_share : share, weights_left) : 0;
            weights_left -= load;
            weight_words = 2 * load;
            load_half = half ^ 1;
            fill_start = 0;
            fill_words = next_computes && group == 0 ? least(tile_fill_words, fill_left) : 0;
            fill_left -= fill_words;
            const int loads = most(weight_words, fill_words) + P::GUARD;
            slot_cycles = next_computes ? most(all_gates_cycles, loads) : most(ready, 1);
            done = slot == slots + 1;
        }
    }
    LOOP_EXIT();
}

template <class P>
void mac(const Segment* segments, int segment_count, const MacEntry* entries, MacMemory<P>& memory,
         hls::stream<Word>& px_s, hls::stream<Word>& ks_s, hls::stream<Word>& ws_s,
         hls::stream<AccWord>& as_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
    int half = 0;
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const MacEntry entry = entries[segment.first + k];
                    mac_entry<P>(entry, i0, i1, memory, half, px_s, ks_s, ws_s, as_s);
                }
            }
        }
    }
}

}  // namespace lda

#endif
