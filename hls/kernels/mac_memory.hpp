// The memories of mac, and the loading of weight rows.
#ifndef LDA_MAC_MEMORY_HPP
#define LDA_MAC_MEMORY_HPP

#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"
#include "window.hpp"

namespace lda {

// The two halves of the weight buffer are one memory: half h is rows h * WEIGHT_ROWS ..
template <class P>
struct MacMemory {
    Window<P> window;
    WeightRow<P::WEIGHT_BITS> weights[2 * P::WEIGHT_ROWS];
};

// Weight rows that are still to come, unit by unit, into one half of the weight buffer.
struct RowLoad {
    int32_t units;  // 0: nothing is due
    int32_t steps;  // rows of a unit
    int32_t step;   // of the unit that is being loaded
    int32_t row;    // next row within the half
    int32_t left;   // rows
};

inline RowLoad load_of(int units, int steps) {
#pragma HLS inline
    const RowLoad load = {units, steps, 0, 0, units * steps};
    return load;
}

inline void next_row(RowLoad& load) {
#pragma HLS inline
    ++load.row;
    --load.left;
    if (++load.step == load.steps) {
        load.step = 0;
        --load.units;
    }
}

// Rows of an execution's first `units` units from the ring.
inline RowLoad ring_rows(const Shape& shape, int units) {
#pragma HLS inline
    if (shape.pv_units == 0) return load_of(units, shape.steps);
    return load_of(1, rows_of(shape, units));
}

// The rows of an execution's round 0 that come from ws.
inline RowLoad first_rows(const MacEntry& entry) {
#pragma HLS inline
    const Shape& shape = entry.shape;
    const bool own = shape.ring == RING_NONE;
    const RowLoad load = load_of(own ? least(shape.per_round, shape.units) : 0, shape.steps);
    LDA_CHECK(load.left == entry.first_rows, "mac: first_rows are not the rows of round 0");
    return load;
}

// The longest interval of 1, 2, 4 cycles from row to row with which `rows` come within `cycles`:
// evenly spread, a load from DDR is not waited for while others still compute.
inline int load_pace(int rows, int cycles) {
#pragma HLS inline
    return 4 * rows <= cycles ? 4 : 2 * rows <= cycles ? 2 : 1;
}

}  // namespace lda

#endif
