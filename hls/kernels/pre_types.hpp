// Elements of the streams inside pre.
#ifndef LDA_PRE_TYPES_HPP
#define LDA_PRE_TYPES_HPP

#include "arithmetic.hpp"
#include "types.hpp"

namespace lda {

// Scales of the 8 pixels of an octet; for softmax rows mu is the row's maximum.
struct ScaleWord {
    Scale s[GROUP];
};

}  // namespace lda

#endif
