// The multiplier array: PP pixels x 16 inputs x 8 outputs per step.
#ifndef LDA_MULTIPLY_HPP
#define LDA_MULTIPLY_HPP

#include "lanes.hpp"
#include "leaf.hpp"
#include "mac_memory.hpp"
#include "packed.hpp"
#include "params.hpp"
#include "program.hpp"
#include "types.hpp"

namespace lda {

// Whether an output pixel sees the image through a tap. Padding slots never do.
inline bool lane_open(const MacEntry& entry, const Place& place, int ty, int tx) {
#pragma HLS inline
    const int y = (entry.stride == 2 ? 2 * place.y : place.y) + ty;
    const int x = (entry.stride == 2 ? 2 * place.x : place.x) + tx;
    return place.y < entry.height && y >= 0 && y < entry.limit_y && x >= 0 && x < entry.limit_x;
}

#ifdef LDA_FAST

// Where the operands of a tile lie, for all its units.
template <class P>
struct TileOperands {
    const uint8_t* pixel[MAX_TAPS * P::PP];
    uint8_t pad[P::WEIGHT_ROWS * SUB];

    void start(const MacEntry& entry) {
        for (int k = 0; k < entry.subs * SUB; ++k)
            pad[k] = operand_of(entry.pad);
    }

    // first: window index of lane 0; lanes past the last slot of the execution take `pad`, as do
    // masked ones. filled: window indices from there on are not there yet.
    void place(const MacEntry& entry, const Window<P>& window, const Lanes<P::PP>& lanes, int first,
               int count, int filled) {
        for (int tap = 0; tap < entry.taps; ++tap) {
            for (int l = 0; l < P::PP; ++l) {
                const int i = first + l + entry.offset[tap];
                const bool open =
                    l < count && lane_open(entry, lanes.lane[l], entry.ty[tap], entry.tx[tap]);
                LDA_CHECK(!open || (i >= 0 && i < filled),
                          "mac: a tap reads a window pixel that is not there");
                pixel[tap * P::PP + l] = open ? window.operand + i * entry.subs * SUB : pad;
            }
            if (LDA_FAULT == 3) pixel[tap * P::PP + 5] = pixel[tap * P::PP + 4];
        }
    }
};

#else

// One step. first: window index of lane 0; row: in the weight buffer.
template <class P>
inline void multiply_step(const MacEntry& entry, const MacMemory<P>& memory,
                          const Lanes<P::PP>& lanes, int first, int row, int tap, int sub,
                          bool clear, int32_t (&acc)[P::PP][GROUP]) {
#pragma HLS inline
    const int ty = entry.ty[tap], tx = entry.tx[tap];
    const WeightRow weights = memory.weights[row];
    Operands operands[P::PP];
#pragma HLS array_partition variable = operands complete
    read_window<P>(memory.window, first + entry.offset[tap], entry.subs, sub, operands);
MASK:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        const bool open = lane_open(entry, lanes.lane[l], ty, tx);
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            if (!open) operands[l].x[i] = int8_t(entry.pad);
        }
    }
    if (LDA_FAULT == 3) operands[5] = operands[4];
OUTPUTS:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        int8_t w[SUB];
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            w[i] = weights.b[o * SUB + i];
        }
        for (int l = 0; l < P::PP; l += 2) {
#pragma HLS unroll
            int32_t dot[2];
            if (o < GROUP - P::FABRIC_OUTPUTS) {
                packed_dot2<SUB>(operands[l].x, operands[l + 1].x, w, dot[0], dot[1]);
            } else {
                dot[0] = fabric_dot<SUB>(operands[l].x, w);
                dot[1] = fabric_dot<SUB>(operands[l + 1].x, w);
            }
            acc[l][o] = (clear ? 0 : acc[l][o]) + dot[0];
            acc[l + 1][o] = (clear ? 0 : acc[l + 1][o]) + dot[1];
        }
    }
}

#endif

}  // namespace lda

#endif
