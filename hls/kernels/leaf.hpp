// The multiplier array's inner product, in the form that a CPU runs fastest.
//
// Operands are kept as x + 128 (uint8), weights as they come (WeightRow: output*16 + input): one
// AVX-512 VNNI instruction adds 64 products of 4 outputs x 16 inputs of a pixel. As every pixel
// meets all weights of the unit, masked ones with the padding operand, what the offset adds is the
// same for all. AVX2 widens both to int16. The plain form of mac multiplies one step per iteration
// instead; all give the same int32 sums.
#ifndef LDA_LEAF_HPP
#define LDA_LEAF_HPP

#include "types.hpp"

#ifdef LDA_FAST
#include <cstring>
#ifdef __AVX2__
// GCC's own header is not free of these warnings (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace lda {

static const int STEP_WEIGHTS = SUB * GROUP;  // bytes of one step
static const int LEAF_PIXELS = 8;             // pixels of one call

inline uint8_t operand_of(int x) {
    return uint8_t(x + 128);
}

// Half a sub: 8 operands.
inline void store_operands(const int8_t* from, uint8_t* to) {
    uint64_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    bytes ^= UINT64_C(0x8080808080808080);
    std::memcpy(to, &bytes, sizeof bytes);
}

inline void clear_operands(uint8_t* to) {
    const uint64_t bytes = UINT64_C(0x8080808080808080);
    std::memcpy(to, &bytes, sizeof bytes);
}

// acc[p][o] of LEAF_PIXELS pixels: the sum over taps, subs and 16 inputs. pixel[tap * pixels + p]
// points to a pixel's operands of a tap, weights to the unit's rows, tap-major.
inline void multiply_portable(const uint8_t* const* pixel, int pixels, int taps, int subs,
                              const int8_t* weights, int32_t (*acc)[GROUP]) {
    for (int p = 0; p < LEAF_PIXELS; ++p) {
        int32_t sum[GROUP] = {0}, weight[GROUP] = {0};
        const int8_t* w = weights;
        for (int tap = 0; tap < taps; ++tap) {
            const uint8_t* x = pixel[tap * pixels + p];
            for (int step = 0; step < subs; ++step, x += SUB, w += STEP_WEIGHTS) {
                for (int o = 0; o < GROUP; ++o) {
                    for (int i = 0; i < SUB; ++i) {
                        sum[o] += int32_t(x[i]) * w[o * SUB + i];
                        weight[o] += w[o * SUB + i];
                    }
                }
            }
        }
        for (int o = 0; o < GROUP; ++o)
            acc[p][o] = sum[o] - 128 * weight[o];
    }
}

#ifdef __AVX2__
// Two pixels and four outputs at a time: eight sums stay in registers.
inline void multiply_avx2(const uint8_t* const* pixel, int pixels, int taps, int subs,
                          const int8_t* weights, int32_t (*acc)[GROUP]) {
    const int OUTPUTS = 4;
    for (int first = 0; first < GROUP; first += OUTPUTS) {
        for (int p = 0; p < LEAF_PIXELS; p += 2) {
            __m256i sum[2][OUTPUTS];
#pragma GCC unroll 4
            for (int o = 0; o < OUTPUTS; ++o)
                sum[0][o] = sum[1][o] = _mm256_setzero_si256();
            const int8_t* w = weights + first * SUB;
            const __m256i offset = _mm256_set1_epi16(128);
            for (int tap = 0; tap < taps; ++tap) {
                const uint8_t* x0 = pixel[tap * pixels + p];
                const uint8_t* x1 = pixel[tap * pixels + p + 1];
                for (int step = 0; step < subs; ++step) {
                    const __m256i a = _mm256_sub_epi16(
                        _mm256_cvtepu8_epi16(
                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(x0 + step * SUB))),
                        offset);
                    const __m256i b = _mm256_sub_epi16(
                        _mm256_cvtepu8_epi16(
                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(x1 + step * SUB))),
                        offset);
#pragma GCC unroll 4
                    for (int o = 0; o < OUTPUTS; ++o) {
                        const __m256i row = _mm256_cvtepi8_epi16(
                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + o * SUB)));
                        sum[0][o] = _mm256_add_epi32(sum[0][o], _mm256_madd_epi16(a, row));
                        sum[1][o] = _mm256_add_epi32(sum[1][o], _mm256_madd_epi16(b, row));
                    }
                    w += STEP_WEIGHTS;
                }
            }
#pragma GCC unroll 2
            for (int k = 0; k < 2; ++k) {
                const __m256i s01 = _mm256_hadd_epi32(sum[k][0], sum[k][1]);
                const __m256i s23 = _mm256_hadd_epi32(sum[k][2], sum[k][3]);
                const __m256i s = _mm256_hadd_epi32(s01, s23);
                _mm_storeu_si128(
                    reinterpret_cast<__m128i*>(&acc[p + k][first]),
                    _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
            }
        }
    }
}
#endif

#ifdef __AVX512VNNI__
// Adds the four int32 of each 128-bit lane of eight registers: low[p] has outputs 0-3 of pixel p,
// high[p] outputs 4-7. Pixels p and p+1 become acc[p][0..7], acc[p+1][0..7].
inline __m512i fold_pair(const __m512i* low, const __m512i* high, int p) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(low[p], high[p]),
                                       _mm512_unpackhi_epi32(low[p], high[p]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(low[p + 1], high[p + 1]),
                                       _mm512_unpackhi_epi32(low[p + 1], high[p + 1]));
    // per 128-bit lane (output mod 4): p low, p high, p+1 low, p+1 high
    const __m512i both = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, both);
}

inline void multiply_vnni(const uint8_t* const* pixel, int pixels, int taps, int subs,
                          const int8_t* weights, int32_t (*acc)[GROUP]) {
    __m512i low[LEAF_PIXELS], high[LEAF_PIXELS];
#pragma GCC unroll 8
    for (int p = 0; p < LEAF_PIXELS; ++p)
        low[p] = high[p] = _mm512_setzero_si512();
    // a pixel of zeros shows what the offset of the operands adds
    __m512i zero_low = _mm512_setzero_si512(), zero_high = _mm512_setzero_si512();
    const __m512i zero = _mm512_set1_epi8(char(128));
    const int8_t* w = weights;
    for (int tap = 0; tap < taps; ++tap) {
        const uint8_t* x[LEAF_PIXELS];
#pragma GCC unroll 8
        for (int p = 0; p < LEAF_PIXELS; ++p)
            x[p] = pixel[tap * pixels + p];
        for (int step = 0; step < subs; ++step) {
            const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + WORD_BYTES);
            zero_low = _mm512_dpbusd_epi32(zero_low, zero, w0);
            zero_high = _mm512_dpbusd_epi32(zero_high, zero, w1);
#pragma GCC unroll 8
            for (int p = 0; p < LEAF_PIXELS; ++p) {
                const __m512i four = _mm512_broadcast_i32x4(
                    _mm_loadu_si128(reinterpret_cast<const __m128i*>(x[p] + step * SUB)));
                low[p] = _mm512_dpbusd_epi32(low[p], four, w0);
                high[p] = _mm512_dpbusd_epi32(high[p], four, w1);
            }
            w += STEP_WEIGHTS;
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < LEAF_PIXELS; ++p) {
        low[p] = _mm512_sub_epi32(low[p], zero_low);
        high[p] = _mm512_sub_epi32(high[p], zero_high);
    }
#pragma GCC unroll 4
    for (int p = 0; p < LEAF_PIXELS; p += 2)
        _mm512_storeu_si512(&acc[p][0], fold_pair(low, high, p));
}
#endif

// acc[p][o] of `pixels` pixels, a multiple of LEAF_PIXELS.
inline void multiply_unit(const uint8_t* const* pixel, int pixels, int taps, int subs,
                          const int8_t* weights, int32_t (*acc)[GROUP]) {
    for (int p = 0; p < pixels; p += LEAF_PIXELS) {
#if defined(__AVX512VNNI__)
        multiply_vnni(pixel + p, pixels, taps, subs, weights, acc + p);
#elif defined(__AVX2__)
        multiply_avx2(pixel + p, pixels, taps, subs, weights, acc + p);
#else
        multiply_portable(pixel + p, pixels, taps, subs, weights, acc + p);
#endif
    }
}

}  // namespace lda
#endif

#endif
