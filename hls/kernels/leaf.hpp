// The multiplier array's inner product, in the form that a CPU runs fastest.
//
// One step is PP pixels x 16 inputs x 8 outputs. Operands are kept as int16, weights of a step as
// [input pair][output][2] int16: one 32-bit broadcast of two operands meets eight outputs in one
// multiply-add, and nothing is ever summed across lanes. The plain form of mac multiplies one
// step per iteration instead; both give the same int32 sums.
#ifndef LDA_LEAF_HPP
#define LDA_LEAF_HPP

#include "types.hpp"

#ifdef LDA_FAST
#include <cstring>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace lda {

static const int PAIRS = SUB / 2;
static const int STEP_WEIGHTS = SUB * GROUP;  // int16 values of one step

// One weight word (half a step) as the leaf wants it: from bytes output*8 + input, or, transposed,
// from bytes input*8 + output.
inline void pack_weights_portable(const int8_t* word, bool transposed, int16_t* packed) {
    for (int pair = 0; pair < PAIRS / 2; ++pair) {
        for (int o = 0; o < GROUP; ++o) {
            for (int k = 0; k < 2; ++k) {
                const int i = 2 * pair + k;
                packed[2 * (pair * GROUP + o) + k] =
                    word[transposed ? i * GROUP + o : o * GROUP + i];
            }
        }
    }
}

// acc[p][o] += sum over `subs` steps of pixel[p][16*step ..] . weights[step][..][o]
template <int PIXELS>
inline void multiply_tap_portable(const int16_t* const* pixel, int subs, const int16_t* weights,
                                  int32_t (*acc)[GROUP]) {
    for (int p = 0; p < PIXELS; ++p) {
        for (int step = 0; step < subs; ++step) {
            const int16_t* x = pixel[p] + SUB * step;
            const int16_t* w = weights + STEP_WEIGHTS * step;
            for (int pair = 0; pair < PAIRS; ++pair) {
                for (int o = 0; o < GROUP; ++o) {
                    acc[p][o] += x[2 * pair] * w[2 * (pair * GROUP + o)] +
                                 x[2 * pair + 1] * w[2 * (pair * GROUP + o) + 1];
                }
            }
        }
    }
}

#ifdef __AVX2__
inline void pack_weights_avx2(const int8_t* word, bool transposed, int16_t* packed) {
    __m128i row[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
        row[k] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(word + 16 * k));
    __m128i pair[4];  // bytes output*2 + input mod 2
    if (transposed) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k)
            pair[k] = _mm_unpacklo_epi8(row[k], _mm_srli_si128(row[k], 8));
    } else {
        // a row is 2 outputs x 4 pairs: pair by pair, then 8 outputs together
        const __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k)
            row[k] = _mm_shuffle_epi8(row[k], order);
        const __m128i low01 = _mm_unpacklo_epi32(row[0], row[1]);
        const __m128i high01 = _mm_unpackhi_epi32(row[0], row[1]);
        const __m128i low23 = _mm_unpacklo_epi32(row[2], row[3]);
        const __m128i high23 = _mm_unpackhi_epi32(row[2], row[3]);
        pair[0] = _mm_unpacklo_epi64(low01, low23);
        pair[1] = _mm_unpackhi_epi64(low01, low23);
        pair[2] = _mm_unpacklo_epi64(high01, high23);
        pair[3] = _mm_unpackhi_epi64(high01, high23);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed + 2 * GROUP * k),
                            _mm256_cvtepi8_epi16(pair[k]));
}

// Eight pixels at a time: eight sums, a row of weights and a broadcast stay in registers. Without
// unrolling, which -O2 leaves out, the sums would live in memory.
template <int PIXELS>
inline void multiply_tap_avx2(const int16_t* const* pixel, int subs, const int16_t* weights,
                              int32_t (*acc)[GROUP]) {
    const int BLOCK = 8;
    static_assert(PIXELS % BLOCK == 0, "whole register blocks");
    for (int p = 0; p < PIXELS; p += BLOCK) {
        const int16_t* x[BLOCK];
        __m256i sum[BLOCK];
#pragma GCC unroll 8
        for (int k = 0; k < BLOCK; ++k) {
            x[k] = pixel[p + k];
            sum[k] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(acc[p + k]));
        }
        for (int pair = 0; pair < PAIRS * subs; ++pair) {
            const __m256i row =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 2 * GROUP * pair));
#pragma GCC unroll 8
            for (int k = 0; k < BLOCK; ++k) {
                int32_t two;
                std::memcpy(&two, x[k] + 2 * pair, sizeof two);
                sum[k] = _mm256_add_epi32(sum[k], _mm256_madd_epi16(_mm256_set1_epi32(two), row));
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < BLOCK; ++k)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(acc[p + k]), sum[k]);
    }
}
#endif

template <int PIXELS>
inline void multiply_tap(const int16_t* const* pixel, int subs, const int16_t* weights,
                         int32_t (*acc)[GROUP]) {
#ifdef __AVX2__
    multiply_tap_avx2<PIXELS>(pixel, subs, weights, acc);
#else
    multiply_tap_portable<PIXELS>(pixel, subs, weights, acc);
#endif
}

inline void pack_weights(const int8_t* word, bool transposed, int16_t* packed) {
#ifdef __AVX2__
    pack_weights_avx2(word, transposed, packed);
#else
    pack_weights_portable(word, transposed, packed);
#endif
}

}  // namespace lda
#endif

#endif
