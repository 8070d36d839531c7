// Where the source octets go in the window buffer (docs/engine.md, "Window buffer").
//
// Per octet, per source, per local group one Beat; per Beat `passes` cycles: for every copy (up 1:
// dy, dx) and every subset of the lanes that the banks allow at once. A lane's window index:
//     stride 1, up 0:  slot - origin, of which the buffer holds a turn of window_slots at a time
//     stride 2:        item*pitch + (y div 2)*width + x div 2 - origin, in phase y%2 * 2 + x%2
//     up 1:            item*pitch + (2y+dy)*width + 2x+dx - origin
// A phase has `plane` window pixels; a lane whose index is outside of it goes nowhere.
#ifndef LDA_FILL_WALK_HPP
#define LDA_FILL_WALK_HPP

#include "lanes.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// Window indices of the lanes of an octet; < 0: not written.
struct FillLanes {
    int32_t index[GROUP];
};

// What does not change from octet to octet.
struct FillPlan {
    Grid grid;           // of the sources
    int32_t direct;      // 1: stride 1, up 0
    int32_t passes;      // cycles of a Beat: copies x split
    int32_t split_bits;  // log2 split
};

inline FillPlan fill_plan(const MacEntry& entry) {
#pragma HLS inline
    LDA_CHECK(entry.stride >= 1 && entry.stride <= 2 && entry.up >= 0 && entry.up <= 1 &&
                  entry.stride + entry.up <= 2,
              "mac: either stride 2 or up-sampling by 2");
    LDA_CHECK(entry.split == 1 || entry.split == 2 || entry.split == 4 || entry.split == 8,
              "mac: a Beat is split into 1, 2, 4 or 8");
    LDA_CHECK(entry.fill_slot % GROUP == 0, "mac: the fill begins with an octet");
    FillPlan plan;
    plan.grid = grid_of(entry.src_height, entry.src_width, entry.src_pitch);
    plan.direct = entry.stride == 1 && entry.up == 0;
    plan.passes = entry.split << (2 * entry.up);
    plan.split_bits = entry.split == 8 ? 3 : entry.split == 4 ? 2 : entry.split == 2 ? 1 : 0;
    return plan;
}

struct FillWalk {
    FillPlan plan;
    Lanes<GROUP> lanes;  // of the source octet; not used if direct
    int32_t slot;        // window pixel of lane 0, if direct
    int32_t turned;      // and its place in the buffer
    int32_t item_base;   // of the octet's item, less origin
    int32_t source, group, pass;

    void start(const MacEntry& entry, const FillPlan& of) {
#pragma HLS inline
        plan = of;
        slot = turned = entry.fill_slot - entry.origin;
        item_base = -entry.origin;
        source = group = pass = 0;
        lanes.start(of.grid, entry.fill_slot);
    }

    bool first_beat() const { return source == 0 && group == 0; }

    // Of one pass of the Beat at hand.
    void place(const MacEntry& entry, int at_pass, FillLanes& to) const {
#pragma HLS inline
        const int copy = at_pass >> plan.split_bits;
        const int turn = at_pass & (entry.split - 1);
        const int dy = copy >> 1, dx = copy & 1;
        const int plane = entry.plane;
        const bool direct = plan.direct != 0;
    FILL_LANES:
        for (int l = 0; l < GROUP; ++l) {
#pragma HLS unroll
            const int y = lanes.lane[l].y, x = lanes.lane[l].x;
            const bool up = entry.up != 0;
            const int phase = (y & 1) * 2 + (x & 1);
            const int row = up ? 2 * y + dy : y >> 1, column = up ? 2 * x + dx : x >> 1;
            const int offset = (phase & 1 ? plane : 0) + (phase & 2 ? 2 * plane : 0);
            const int mapped = item_base + row * entry.width + column;
            const int i = direct ? slot + l : mapped;
            // doubled lanes lie two apart, so neighbours go together
            const int lane_turn = up ? (l << plan.split_bits) >> 3 : l & (entry.split - 1);
            const bool inside = i >= 0 && i < plane;
            // an up-sampled image may be cut by a row and a column
            const bool seen = !up || (row < entry.limit_y && column < entry.limit_x);
            const bool pixel = direct || (y < entry.src_height && seen);
            const bool phased = !direct && !up;
            const int index = direct ? turned + l : i + (phased ? offset : 0);
            to.index[l] = inside && pixel && lane_turn == turn ? index : -1;
        }
    }

    // After `cycles` of the Beat's passes; whether they complete an octet.
    bool next(const MacEntry& entry, int cycles) {
#pragma HLS inline
        pass += cycles;
        if (pass < plan.passes) return false;
        pass = 0;
        if (++group < entry.groups[source]) return false;
        group = 0;
        if (++source < entry.sources) return false;
        source = 0;
        slot += GROUP;
        turned += GROUP;
        if (turned == entry.window_slots) turned = 0;
        if (lanes.advance()) item_base += entry.pitch;
        return true;
    }
};

}  // namespace lda

#endif
