// Elements of the streams inside pre.
#ifndef LDA_PRE_TYPES_HPP
#define LDA_PRE_TYPES_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace lda {

// 64 channels of one pixel, planes joined.
struct RowWord {
    int16_t q[WORD_BYTES];
};

// Sums of a row or of a group; for a softmax row `sum` is its maximum.
struct Sums {
    int64_t sum;
    int64_t square;
};

}  // namespace lda

#endif
