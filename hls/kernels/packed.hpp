// Dot products of int8 operands on DSP48E2 multipliers, several products by each of them.
//
// A DSP48E2 multiplies 27 by 18 signed bits and adds into 48. Operands that meet a common factor
// are packed side by side into the 27-bit port, D bits (a lane) apart:
//     (x1 * 2^D + x0) * y  =  (x1 * y) * 2^D + x0 * y
// A sum of such products holds one dot product per lane. A lane below the top one is read as a
// signed D-bit field, so its sum must stay in -2^(D-1) .. 2^(D-1) - 1; with activations in
// -128 .. 127 and weights of magnitude <= L that allows
//     chain = floor((2^(D-1) - 1) / (128 * L))  products.
// A negative lane borrows one from the lane above it: whenever the top bit of a field is set, the
// rest of the word is one too low. Longer dot products are several chains, added in fabric.
//
//   packed_dot2  two pixels' activations packed, D = 18, times a weight that both share.
//                |a1 * 2^18 + a0| <= 128 * 2^18 + 128 < 2^26 fits 27 bits. The chain is 7 for
//                L = 128 (any int8), 8 for L = 127, 146 for L = 7 (4-bit weights).
//   packed_dot3  the weights of three outputs packed, times an activation that they share. Weights
//                of W bits and products of W + A - 1 bits give 1 + floor((27 - W) / (W + A - 1))
//                lanes, three for W = 4 and A = 8, D = 11: |w2 * 2^22 + w1 * 2^11 + w0| <=
//                8 * (2^22 + 2^11 + 1) < 2^26. 12 would not fit. Products of weights in -8 .. 7 and
//                activations in -128 .. 127 are -1016 .. 1024: 1023 more, added by the DSP, makes
//                all of them 7 .. 2047, an unsigned field of 11 bits, and no lane borrows. The
//                chain is 1: every field is taken out and added in fabric.
//   fabric_dot   one product per LUT multiplier.
//
// Sources: AMD WP486 and WP487 (int8), WP521 (int4); UG579 (DSP48E2). All sums are exact int32.
#ifndef LDA_PACKED_HPP
#define LDA_PACKED_HPP

#include <stdint.h>

#ifdef __SYNTHESIS__
#include <ap_int.h>
#endif

namespace lda {

#ifdef __SYNTHESIS__
typedef ap_int<27> DspWide;
typedef ap_int<18> DspNarrow;
typedef ap_int<48> DspSum;
#else
typedef int32_t DspWide;
typedef int32_t DspNarrow;
typedef int64_t DspSum;
#endif

static const int LANE2 = 18;
static const int LANE3 = 11;
static const int LANES3 = 3;
static const int LIFT3 = 1023;  // of every lane

// Products of an int8 and a weight of magnitude <= limit that a lane can sum.
constexpr int packed_chain(int lane, int limit) {
    return ((1 << (lane - 1)) - 1) / (128 * limit);
}

// The loops below have trip counts that are constants before anything is unrolled.
constexpr int packed_chains(int inputs, int chain) {
    return (inputs + chain - 1) / chain;
}

// One multiplier. Not bound to a DSP by a pragma, which would keep the adder behind it outside.
inline DspSum dsp_product(DspWide wide, DspNarrow narrow) {
#pragma HLS inline
#ifdef __SYNTHESIS__
    return wide * narrow;
#else
    return DspSum(wide) * narrow;
#endif
}

// The lowest lane of a sum, sign-extended.
template <int LANE>
inline int32_t low_lane(DspSum sum) {
#pragma HLS inline
    const uint32_t sign = uint32_t(1) << (LANE - 1);
    const uint32_t field = unsigned(sum) & ((sign << 1) - 1);
    return int32_t(field ^ sign) - int32_t(sign);
}

// The lanes above the lowest one, with what that one borrowed.
template <int LANE>
inline DspSum upper_lanes(DspSum sum) {
#pragma HLS inline
    const uint32_t low = unsigned(sum);
    const int borrow = int((low >> (LANE - 1)) & 1u);
    return DspSum(sum >> LANE) + DspSum(borrow);
}

// dot_a = sum of a[i] * w[i], dot_b = sum of b[i] * w[i]: ceil(INPUTS / chain) chains on INPUTS
// multipliers. The packed operand depends on a and b alone: outputs that share them share it.
//
// \tparam INPUTS        length of the three vectors, 1 .. 2^17 - 1
// \tparam WEIGHT_LIMIT  1 .. 128: every |w[i]| <= WEIGHT_LIMIT (128: any int8)
template <int INPUTS, int WEIGHT_LIMIT = 128>
inline void packed_dot2(const int8_t (&a)[INPUTS], const int8_t (&b)[INPUTS],
                        const int8_t (&w)[INPUTS], int32_t& dot_a, int32_t& dot_b) {
#pragma HLS inline
#pragma HLS expression_balance off
    static_assert(INPUTS >= 1 && INPUTS < (1 << 17), "the sums are int32");
    static_assert(WEIGHT_LIMIT >= 1 && WEIGHT_LIMIT <= 128, "weights are int8");
    const int CHAIN = packed_chain(LANE2, WEIGHT_LIMIT);
    int32_t total_a = 0, total_b = 0;
CHAINS:
    for (int c = 0; c < packed_chains(INPUTS, CHAIN); ++c) {
#pragma HLS unroll
        DspSum sum = 0;
    PRODUCTS:
        for (int k = 0; k < CHAIN; ++k) {
#pragma HLS unroll
            const int i = c * CHAIN + k;
            if (i >= INPUTS) continue;
            const DspWide pair = int32_t(a[i]) * (1 << LANE2) + b[i];
            sum = sum + dsp_product(pair, DspNarrow(w[i]));
        }
        total_b += low_lane<LANE2>(sum);
        total_a += int32_t(unsigned(upper_lanes<LANE2>(sum)));
    }
    dot_a = total_a;
    dot_b = total_b;
}

// dot[k] = sum of x[i] * w<k>[i] for three outputs, weights in -8 .. 7, on INPUTS multipliers. The
// packed operand depends on the weights alone: pixels that share them share it.
//
// \tparam INPUTS  length of the four vectors, 1 .. 2^17 - 1
template <int INPUTS>
inline void packed_dot3(const int8_t (&x)[INPUTS], const int8_t (&w0)[INPUTS],
                        const int8_t (&w1)[INPUTS], const int8_t (&w2)[INPUTS],
                        int32_t (&dot)[LANES3]) {
#pragma HLS inline
    static_assert(INPUTS >= 1 && INPUTS < (1 << 17), "the sums are int32");
    const uint32_t FIELD = (1u << LANE3) - 1;
    const int64_t lift = LIFT3 * ((INT64_C(1) << 2 * LANE3) + (INT64_C(1) << LANE3) + 1);
    int32_t total0 = 0, total1 = 0, total2 = 0;
PRODUCTS:
    for (int i = 0; i < INPUTS; ++i) {
#pragma HLS unroll
        const DspWide triple = (int32_t(w2[i]) * (1 << LANE3) + w1[i]) * (1 << LANE3) + w0[i];
        const DspSum sum = dsp_product(triple, DspNarrow(x[i])) + DspSum(lift);
        total0 += int32_t(unsigned(sum) & FIELD);
        total1 += int32_t(unsigned(sum >> LANE3) & FIELD);
        total2 += int32_t(unsigned(sum >> (2 * LANE3)) & FIELD);
    }
    dot[0] = total0 - INPUTS * LIFT3;
    dot[1] = total1 - INPUTS * LIFT3;
    dot[2] = total2 - INPUTS * LIFT3;
}

// Sum of x[i] * w[i] by multipliers of LUTs, for lanes beyond what the DSPs hold.
//
// \tparam INPUTS  length of both vectors, 1 .. 2^17 - 1
template <int INPUTS>
inline int32_t fabric_dot(const int8_t (&x)[INPUTS], const int8_t (&w)[INPUTS]) {
#pragma HLS inline
    static_assert(INPUTS >= 1 && INPUTS < (1 << 17), "the sum is int32");
    int32_t total = 0;
PRODUCTS:
    for (int i = 0; i < INPUTS; ++i) {
#pragma HLS unroll
        const int16_t product = int16_t(x[i] * w[i]);
// hlslint: allow multiply-binding: LUTs are what is wanted here
#pragma HLS bind_op variable = product op = mul impl = fabric
        total += product;
    }
    return total;
}

}  // namespace lda

#endif
