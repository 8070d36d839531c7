// Weight rows: single weights, rows of 4 bits as rows of 8, and weights of 8 bits as rows of 4.
//
// Where the array's rows hold 4 bits, a step whose weights have 8 (K, V, layers that the quantiser
// keeps at 8 bits) takes two rows and two cycles:
//     w = 16 * high + low + 8,   high = w >> 4,   low = (w mod 16) - 8,   both in -8 .. 7,
// so that every int8 has halves that fit. sum w*x = 16 * sum high*x + sum low*x + 8 * sum x: the
// array adds eight times the sum of its operands in the second cycle.
#ifndef LDA_WEIGHTS_HPP
#define LDA_WEIGHTS_HPP

#include "hls_stream.h"

#include "types.hpp"

namespace lda {

// Which part of a step's weights a row holds.
enum RowPart { ROW_WHOLE, ROW_HIGH, ROW_LOW };

// 4 bits, two's complement, from the low or the high half of a byte.
inline int8_t nibble_of(int8_t byte, bool high) {
#pragma HLS inline
    const int bits = high ? uint8_t(byte) >> 4 : uint8_t(byte) & 15;
    return int8_t((bits ^ 8) - 8);
}

inline int8_t weight_at(const WeightRow<8>& row, int output, int input) {
#pragma HLS inline
    return row.b[output * SUB + input];
}

inline int8_t weight_at(const WeightRow<4>& row, int output, int input) {
#pragma HLS inline
    const int k = output * SUB + input;
    return nibble_of(row.b[k % WORD_BYTES], k >= WORD_BYTES);
}

// A row out of its last word, and of its first one where it has two.
inline void row_from(const Word& first, const Word& last, WeightRow<8>& row) {
#pragma HLS inline
BYTES:
    for (int k = 0; k < WORD_BYTES; ++k) {
#pragma HLS unroll
        row.b[k] = first.b[k];
        row.b[WORD_BYTES + k] = last.b[k];
    }
}

inline void row_from(const Word&, const Word& last, WeightRow<4>& row) {
#pragma HLS inline
BYTES:
    for (int k = 0; k < WORD_BYTES; ++k) {
#pragma HLS unroll
        row.b[k] = last.b[k];
    }
}

// A stored row as the array takes it.
template <int BITS>
inline void widen(const WeightRow<BITS>& stored, WeightRow<BITS>& row) {
#pragma HLS inline
    row = stored;
}

inline void widen(const WeightRow<4>& stored, WeightRow<8>& row) {
#pragma HLS inline
BYTES:
    for (int k = 0; k < WORD_BYTES; ++k) {
#pragma HLS unroll
        row.b[k] = nibble_of(stored.b[k], false);
        row.b[WORD_BYTES + k] = nibble_of(stored.b[k], true);
    }
}

// One half of a row of bytes.
inline WeightRow<4> half_of(const WeightRow<8>& row, RowPart part) {
#pragma HLS inline
    WeightRow<4> half;
BYTES:
    for (int k = 0; k < WORD_BYTES; ++k) {
#pragma HLS unroll
        const uint8_t first = uint8_t(row.b[k]), second = uint8_t(row.b[WORD_BYTES + k]);
        const int high = first >> 4 | (second & 0xF0);
        const int low = ((first & 15) | (second & 15) << 4) ^ 0x88;
        half.b[k] = int8_t(uint8_t(part == ROW_HIGH ? high : low));
    }
    return half;
}

// The next row for the weight buffer out of ring weights, number `step` of its unit. `held`: the
// last row that was read.
inline void take_ring_row(hls::stream<WeightRow<8>>& ks_s, int step, WeightRow<8>& held,
                          WeightRow<8>& row) {
#pragma HLS inline
    (void)step;
    held = ks_s.read();
    row = held;
}

inline void take_ring_row(hls::stream<WeightRow<8>>& ks_s, int step, WeightRow<8>& held,
                          WeightRow<4>& row) {
#pragma HLS inline
    if (step % 2 == 0) held = ks_s.read();
    row = half_of(held, step % 2 == 0 ? ROW_HIGH : ROW_LOW);
}

}  // namespace lda

#endif
