// Elements of the streams inside pre.
#ifndef LDA_PRE_TYPES_HPP
#define LDA_PRE_TYPES_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace lda {

// Sums of N norm groups or rows.
template <int N>
struct SumSet {
    int64_t sum[N];
    int64_t square[N];
};

// Scales of N norm groups or rows; for softmax rows mu is the maximum.
template <int N>
struct ScaleSet {
    Scale s[N];
};

// Of the 8 pixels of an octet.
typedef ScaleSet<GROUP> ScaleWord;

// Maxima of the logits of the 8 pixels of an octet.
struct MaxWord {
    int16_t m[GROUP];
};

}  // namespace lda

#endif
