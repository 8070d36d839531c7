// Stepping through the layer program, the same in all kernels:
//     for every segment, i0 < n0, i1 < n1, entry of the segment
#ifndef LDA_SEQUENCE_HPP
#define LDA_SEQUENCE_HPP

#include "program.hpp"
#include "types.hpp"

namespace lda {

inline int32_t at(const Addr& address, int i0, int i1) {
#pragma HLS inline
    return address.base + i0 * address.s0 + i1 * address.s1;
}

inline int least(int a, int b) {
    return a < b ? a : b;
}
inline int most(int a, int b) {
    return a > b ? a : b;
}
// a / b rounded up, for a >= 0
inline int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

// Blocks of 64 channels that `subs` 16-channel subs touch, the first being sub `first` of its
// block.
inline int blocks_of(int first, int subs) {
    return (first + subs + 3) >> 2;
}

// First sub within its block of a region that starts at 8-channel group `group`.
inline int first_sub(int group) {
    return (group & 7) >> 1;
}

}  // namespace lda

#endif
