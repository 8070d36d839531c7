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

// Which of the two products of a joined execution the units of a tile belong to, one after the
// other. What is kept by unit lies in another order, those with V before those with K: `place`.
struct Turns {
    int pv;    // units with V so far
    int next;  // the next one

    void start() { pv = next = 0; }

    bool of_v(const Shape& shape, int unit) const {
#pragma HLS inline
        return pv < shape.pv_units && unit == next;
    }

    int place(const Shape& shape, int unit) const {
#pragma HLS inline
        return of_v(shape, unit) ? pv : shape.pv_units + unit - pv;
    }

    // That was `unit`.
    void pass(const Shape& shape, int unit) {
#pragma HLS inline
        if (!of_v(shape, unit)) return;
        ++pv;
        next += shape.pv_every;
    }
};

// Weight rows, and px words of ring weights, of the first `units` places of units.
inline int32_t rows_of(const Shape& shape, int units) {
#pragma HLS inline
    const int pv = least(units, shape.pv_units);
    return pv * shape.pv_steps + (units - pv) * shape.steps;
}
inline int32_t ring_words_of(const Shape& shape, int units) {
#pragma HLS inline
    const int pv = least(units, shape.pv_units);
    return shape.ring == RING_NONE ? 0 : pv * shape.pv_words + (units - pv) * shape.ring_words;
}

// The execution that follows the one of entry `k` of segments[s] at (i0, i1): its entry, and its
// own position in its segment. entry == -1: that was the last one of the step.
struct Following {
    int entry;
    int i0;
    int i1;
};

inline Following following(const Segment* segments, int segment_count, int s, int i0, int i1,
                           int k) {
#pragma HLS inline
    const Segment segment = segments[s];
    Following next = {-1, 0, 0};
    if (k + 1 < segment.count) {
        next.entry = segment.first + k + 1;
        next.i0 = i0;
        next.i1 = i1;
    } else if (i1 + 1 < segment.n1) {
        next.entry = segment.first;
        next.i0 = i0;
        next.i1 = i1 + 1;
    } else if (i0 + 1 < segment.n0) {
        next.entry = segment.first;
        next.i0 = i0 + 1;
    } else if (s + 1 < segment_count) {
        next.entry = segments[s + 1].first;
    }
    return next;
}

}  // namespace lda

#endif
