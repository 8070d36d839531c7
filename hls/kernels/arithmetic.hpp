// The integer functions of docs/numerics.md.
#ifndef LDA_ARITHMETIC_HPP
#define LDA_ARITHMETIC_HPP

#include "types.hpp"

namespace lda {

static const int FRACTION = 4;  // fraction bits of a mean

// x / 2^s rounded half up; 0 <= s <= 62. Right shifts of negative numbers are arithmetic in every
// compiler in question (and in C++20).
inline int64_t rshr(int64_t x, int s) {
    const int64_t half = (int64_t(1) << s) >> 1;
    return (x + half) >> s;
}

// The same by logical shifts, which AVX2 has for 64-bit lanes; |x| < 2^62.
inline int64_t rshr_by_offset(int64_t x, int s) {
    const uint64_t offset = uint64_t(1) << 62;
    const uint64_t half = (uint64_t(1) << s) >> 1;
    return int64_t(((uint64_t(x) + half + offset) >> s) - (offset >> s));
}

// x * 2^s without the undefined left shift of a negative number.
inline int64_t shift_left(int64_t x, int s) {
    return int64_t(uint64_t(x) << s);
}

template <int BITS>
inline int32_t clamp(int64_t x) {
    const int64_t low = -(int64_t(1) << (BITS - 1));
    const int64_t high = (int64_t(1) << (BITS - 1)) - 1;
    return int32_t(x < low ? low : x > high ? high : x);
}

inline Wide wide_product(int64_t a, int64_t b) {
#pragma HLS inline
#ifdef __SYNTHESIS__
    return ap_int<64>(a) * ap_int<64>(b);  // not 96 x 96 bits
#else
    return Wide(a) * Wide(b);
#endif
}

// Number of binary digits; x >= 0.
inline int bits_of(Wide x) {
#pragma HLS inline
    int n = 0;
#ifdef __SYNTHESIS__
BITS:
    for (int i = 0; i < 96; ++i) {
#pragma HLS unroll
        if (x[i]) n = i + 1;
    }
#else
    const uint64_t high = uint64_t(x >> 64), low = uint64_t(x);
    if (high) {
        n = 128 - __builtin_clzll(high);
    } else if (low) {
        n = 64 - __builtin_clzll(low);
    }
#endif
    return n;
}

// floor(sqrt(x)), one result bit per stage.
inline uint32_t isqrt(uint32_t x) {
#pragma HLS inline
    uint32_t root = 0, rest = 0;
ROOT:
    for (int i = 15; i >= 0; --i) {
#pragma HLS unroll
        rest = (rest << 2) | ((x >> (2 * i)) & 3u);
        const uint32_t trial = (root << 2) | 1u;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    return root;
}

// floor(a / b), which is less than 2^BITS; b > 0. One result bit per stage: a divider of 64 bits
// would have more than twice as many.
template <int BITS>
inline uint32_t quotient_by_steps(uint64_t a, uint32_t b) {
#pragma HLS inline
    uint32_t quotient = 0;
QUOTIENT:
    for (int i = BITS - 1; i >= 0; --i) {
#pragma HLS unroll
        const uint64_t trial = uint64_t(b) << i;
        if (a >= trial) {
            a -= trial;
            quotient |= uint32_t(1) << i;
        }
    }
    return quotient;
}

template <int BITS>
inline uint32_t quotient(uint64_t a, uint32_t b) {
#pragma HLS inline
#ifdef LDA_FAST
    return uint32_t(a / b);
#else
    return quotient_by_steps<BITS>(a, b);
#endif
}

// floor(a / b), |a / b| <= 2^(BITS-1), b > 0
template <int BITS>
inline int32_t floor_div(int64_t a, int32_t b) {
#pragma HLS inline
    const uint64_t size = a < 0 ? uint64_t(-a) + uint32_t(b - 1) : uint64_t(a);
    const int32_t q = int32_t(quotient<BITS>(size, uint32_t(b)));
    return a < 0 ? -q : q;
}

// Mean with FRACTION bits, reciprocal standard deviation r * 2^-e, of n values with these sums.
struct Scale {
    int32_t mu;
    int32_t r;
    int32_t e;
};

inline Scale normaliser(int64_t sum, int64_t square, int32_t n, int64_t eps) {
#pragma HLS inline
    Scale scale;
    // |mean| <= 2^15 x 2^7 (alignment), with FRACTION bits more
    scale.mu = floor_div<23 + FRACTION>(sum * (1 << FRACTION), n);
    const Wide variance = wide_product(n, square) - wide_product(sum, sum) + Wide(eps);
    LDA_CHECK(variance > 0, "pre: a variance is not positive (damaged statistics or epsilon)");
    const int over = bits_of(variance) - 32;
    const int sh = (over & 1) ? over + 1 : over;
    const uint32_t scaled = sh >= 0 ? uint32_t(variance >> sh) : uint32_t(variance) << -sh;
    const uint32_t root = isqrt(scaled);
    const int digits = bits_of(n);
    scale.r = int32_t(quotient<18>(uint64_t(uint32_t(n)) << (32 - digits), root));
    scale.e = sh / 2 + 24 - digits;
    return scale;
}

// z with 12 fraction bits, 18 bits wide, of the aligned value v.
inline int32_t normalise(int32_t v, const Scale& scale) {
#pragma HLS inline
    const int32_t d = v * (1 << FRACTION) - scale.mu;
    const int64_t y = int64_t(d) * scale.r;
    const int up = scale.e >= 0 ? 0 : (scale.e < -16 ? 16 : -scale.e);
    const int down = scale.e >= 0 ? scale.e : 0;
    return clamp<18>(rshr(y * (int64_t(1) << up), down));
}

// Reciprocal of a softmax row sum: quotient = rshr(a * r, shift), 12 fraction bits.
struct Reciprocal {
    int32_t r;
    int32_t shift;
};

inline Reciprocal reciprocal(int32_t sum) {
#pragma HLS inline
    Reciprocal result;
    const int k = bits_of(sum);
    result.r = sum > 0 ? int32_t((uint64_t(1) << (k + 16)) / uint32_t(sum)) : 0;
    result.shift = k + 4;
    return result;
}

// The square of a lane: 48 bits, 0 or more.
inline int64_t square_at(const StatWord& word, int lane) {
#pragma HLS inline
    return int64_t(uint64_t(word.square[lane][0]) | uint64_t(word.square[lane][1]) << 16 |
                   uint64_t(word.square[lane][2]) << 32);
}

inline void set_square(StatWord& word, int lane, int64_t square) {
#pragma HLS inline
    LDA_CHECK(square >= 0 && square < int64_t(1) << 48, "a sum of squares of more than 48 bits");
    word.square[lane][0] = uint16_t(square);
    word.square[lane][1] = uint16_t(square >> 16);
    word.square[lane][2] = uint16_t(square >> 32);
}

}  // namespace lda

#endif
