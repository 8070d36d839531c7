// Integers and planes in 64-byte words (little endian).
#ifndef LDA_WORDS_HPP
#define LDA_WORDS_HPP

#include "types.hpp"

namespace lda {

inline int16_t int16_at(const Word& word, int i) {
#pragma HLS inline
    return int16_t(uint8_t(word.b[2 * i]) | uint16_t(uint8_t(word.b[2 * i + 1])) << 8);
}

inline int32_t int32_at(const Word& word, int i) {
#pragma HLS inline
    return int32_t(uint32_t(uint8_t(word.b[4 * i])) | uint32_t(uint8_t(word.b[4 * i + 1])) << 8 |
                   uint32_t(uint8_t(word.b[4 * i + 2])) << 16 |
                   uint32_t(uint8_t(word.b[4 * i + 3])) << 24);
}

inline int64_t int64_at(const Word& word, int i) {
#pragma HLS inline
    const uint64_t low = uint32_t(int32_at(word, 2 * i));
    return int64_t(low | uint64_t(uint32_t(int32_at(word, 2 * i + 1))) << 32);
}

// 64 values of which `low` and `high` are the planes.
inline void join_planes(const Word& low, const Word& high, int16_t (&values)[WORD_BYTES]) {
#pragma HLS inline
LANES:
    for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
        values[l] = int16_t(uint8_t(low.b[l]) | uint16_t(uint8_t(high.b[l])) << 8);
    }
}

inline void widen(const Word& word, int16_t (&values)[WORD_BYTES]) {
#pragma HLS inline
LANES:
    for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
        values[l] = word.b[l];
    }
}

}  // namespace lda

#endif
