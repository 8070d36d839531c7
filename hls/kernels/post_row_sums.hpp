// The sums by which post divides the rows of a softmax.
#ifndef LDA_POST_ROW_SUMS_HPP
#define LDA_POST_ROW_SUMS_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace lda {

// The row sums of an octet. A divider in front of the memory would stand between a row sum and the
// word that needs it a few iterations later: the plain form divides behind the memory, the fast
// form only once.
struct RowSums {
#ifdef LDA_FAST
    Reciprocal reciprocal[GROUP];
#else
    SumWord word;
#endif
};

inline RowSums row_sums_of(const SumWord& word) {
#pragma HLS inline
    RowSums sums;
#ifdef LDA_FAST
    for (int p = 0; p < GROUP; ++p)
        sums.reciprocal[p] = reciprocal(word.sum[p]);
#else
    sums.word = word;
#endif
    return sums;
}

inline void reciprocals_of(const RowSums& sums, Reciprocal (&to)[GROUP]) {
#pragma HLS inline
PIXELS:
    for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
#ifdef LDA_FAST
        to[p] = sums.reciprocal[p];
#else
        to[p] = reciprocal(sums.word.sum[p]);
#endif
    }
}

}  // namespace lda

#endif
