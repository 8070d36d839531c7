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

}  // namespace lda
#endif

#endif
