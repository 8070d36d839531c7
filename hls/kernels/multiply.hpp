// The multiplier array: PP pixels x 16 inputs x 8 outputs per weight row.
#ifndef LDA_MULTIPLY_HPP
#define LDA_MULTIPLY_HPP

#include "lanes.hpp"
#include "leaf.hpp"
#include "mac_memory.hpp"
#include "packed.hpp"
#include "params.hpp"
#include "program.hpp"
#include "types.hpp"
#include "weights.hpp"

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

    // first_sub: where the unit's subs begin; first: window index of lane 0; lanes past the last
    // slot of the execution take `pad`, as do masked ones. filled: window indices from there on are
    // not there yet.
    void place(const MacEntry& entry, int first_sub, const Window<P>& window,
               const Lanes<P::PP>& lanes, int first, int count, int filled) {
        for (int tap = 0; tap < entry.taps; ++tap) {
            for (int l = 0; l < P::PP; ++l) {
                const int i = first + l + entry.offset[tap];
                const bool open =
                    l < count && lane_open(entry, lanes.lane[l], entry.ty[tap], entry.tx[tap]);
                LDA_CHECK(!open || (i >= 0 && i < filled),
                          "mac: a tap reads a window pixel that is not there");
                pixel[tap * P::PP + l] =
                    open ? window.operand + (i * entry.subs + first_sub) * SUB : pad;
            }
            if (LDA_FAULT == 3) pixel[tap * P::PP + 5] = pixel[tap * P::PP + 4];
        }
    }
};

// A unit's weights as the leaf takes them; rows of 4 bits are widened to bytes.
template <class P>
struct UnitWeights {
    int8_t b[P::WEIGHT_BITS == 8 ? 1 : P::WEIGHT_ROWS * STEP_WEIGHTS];
};

template <class P>
inline const int8_t* bytes_of(const WeightRow<8>* rows, int, int, UnitWeights<P>&) {
    return rows->b;
}

template <class P>
inline const int8_t* bytes_of(const WeightRow<4>* rows, int steps, int parts, UnitWeights<P>& to) {
    int8_t* w = to.b;
    for (int k = 0; k < steps; k += parts, w += STEP_WEIGHTS) {
        const int8_t* from = rows[k].b;
        for (int i = 0; i < WORD_BYTES; ++i) {
            w[i] = nibble_of(from[i], false);
            w[WORD_BYTES + i] = nibble_of(from[i], true);
        }
        if (parts == 1) continue;
        from = rows[k + 1].b;
        for (int i = 0; i < WORD_BYTES; ++i) {
            w[i] = int8_t(16 * w[i] + nibble_of(from[i], false) + 8);
            w[WORD_BYTES + i] = int8_t(16 * w[WORD_BYTES + i] + nibble_of(from[i], true) + 8);
        }
    }
    return to.b;
}

#else

// The products of one row, added up. Two pixels share a DSP.
template <class P>
inline void multiply_row(const Operands (&operands)[P::PP], const WeightRow<8>& weights, RowPart,
                         bool clear, int32_t (&acc)[P::PP][GROUP]) {
#pragma HLS inline
OUTPUTS:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        int8_t w[SUB];
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            w[i] = weight_at(weights, o, i);
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

// Three outputs share a DSP, the last one of a pixel has those that are left.
template <class P>
inline void multiply_row(const Operands (&operands)[P::PP], const WeightRow<4>& weights,
                         RowPart part, bool clear, int32_t (&acc)[P::PP][GROUP]) {
#pragma HLS inline
    const int IN_DSP = GROUP - P::FABRIC_OUTPUTS;
    int8_t w[GROUP + 2][SUB];
#pragma HLS array_partition variable = w complete dim = 0
    for (int o = 0; o < GROUP + 2; ++o) {
#pragma HLS unroll
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            w[o][i] = o < GROUP ? weight_at(weights, o, i) : int8_t(0);
        }
    }
PIXELS:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        const int8_t (&x)[SUB] = operands[l].x;
        int32_t dot[GROUP + 2];
#pragma HLS array_partition variable = dot complete
        for (int o = 0; o < IN_DSP; o += LANES3) {
#pragma HLS unroll
            int32_t lanes[LANES3];
            packed_dot3<SUB>(x, w[o], w[o + 1], w[o + 2], lanes);
            for (int k = 0; k < LANES3; ++k) {
#pragma HLS unroll
                dot[o + k] = lanes[k];
            }
        }
        for (int o = IN_DSP; o < GROUP; ++o) {
#pragma HLS unroll
            dot[o] = fabric_dot<SUB>(x, w[o]);
        }
        // what the low halves lack: 8 of every weight
        int sum = 0;
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            sum += x[i];
        }
        const int lacking = part == ROW_LOW ? 8 * sum : 0;
        for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
            const int32_t row = part == ROW_HIGH ? 16 * dot[o] : dot[o] + lacking;
            acc[l][o] = (clear ? 0 : acc[l][o]) + row;
        }
    }
}

// One row. first: window index of lane 0; row: in the weight buffer.
template <class P>
inline void multiply_step(const MacEntry& entry, const MacMemory<P>& memory,
                          const Lanes<P::PP>& lanes, int first, int row, int tap, int sub,
                          RowPart part, bool clear, int32_t (&acc)[P::PP][GROUP]) {
#pragma HLS inline
    const int ty = entry.ty[tap], tx = entry.tx[tap];
    const WeightRow<P::WEIGHT_BITS> weights = memory.weights[row];
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
    multiply_row<P>(operands, weights, part, clear, acc);
}

#endif

}  // namespace lda

#endif
