// What mac needs to know of an execution, worked out ahead of it.
//
// A process of its own steps through the program and sends one job per execution, so that the
// multiplier array goes on from one execution to the next without leaving its loop, and no product
// or quotient stands between the two.
#ifndef LDA_MAC_PLAN_HPP
#define LDA_MAC_PLAN_HPP

#include "fill_walk.hpp"
#include "lanes.hpp"
#include "mac_memory.hpp"
#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

static const int JOBS_DEPTH = 4;  // of the FIFO to the array

struct MacJob {
    MacEntry entry;
    RowLoad own;   // rows of round 0
    RowLoad next;  // those of the following execution
    FillPlan fill;
    Grid grid;          // of the output
    int32_t settling;   // cycles until all lanes are placed
    int32_t row_parts;  // weight rows of a step: 1, or 2 where its weights come in halves
    int32_t unit_cycles;
    int32_t pv_cycles;     // of a unit of the product with V in a joined execution,
    int32_t pv_first_sub;  // its first sub
    int32_t first_row;     // and the first weight row behind its own
    int32_t pace;          // cycles from row to row, of rows of this execution
    int32_t next_pace;     // and of the following one's
    int32_t share;         // ring rows of a tile slot, for a full round and for the last one
    int32_t last_share;
    int32_t lead_cycles;  // Beat cycles of the lead slot
    int32_t turns;        // 1: the window buffer holds a part of the window pixels at a time
    int32_t last;         // 1: of the program
};

template <class P>
inline MacJob job_of(const MacEntry& entry, const RowLoad& next) {
#pragma HLS inline
    const Shape& shape = entry.shape;
    const int inputs = entry.taps * (entry.subs - entry.pv_subs);
    const bool whole = shape.steps == inputs;
    LDA_CHECK(
        entry.taps <= MAX_TAPS && (whole || (P::WEIGHT_BITS == 4 && shape.steps == 2 * inputs)),
        "mac: steps are not taps x subs");
    LDA_CHECK(shape.pv_steps == (whole ? 1 : 2) * entry.pv_subs,
              "mac: steps of the product with V are not its subs");
    LDA_CHECK(shape.pv_units == 0 ||
                  (shape.ring == RING_K && entry.taps == 1 && shape.units <= shape.per_round),
              "mac: products that cannot be joined");
    LDA_CHECK(shape.pv_units == 0 ||
                  (shape.pv_every > 0 && (shape.pv_units - 1) * shape.pv_every < shape.units - 1),
              "mac: units with V that are not followed by one with K");
    LDA_CHECK(shape.pv_units == 0 ||
                  (entry.sources == 2 && entry.sub_base[0] == entry.subs - entry.pv_subs &&
                   entry.sub_base[0] + ceil_div(entry.source_groups[0], 2) == entry.subs &&
                   entry.sub_base[1] <= 0 &&
                   entry.sub_base[1] + ceil_div(entry.source_groups[1], 2) == entry.sub_base[0]),
              "mac: subs of joined products that are not those of K, then those of V");
    LDA_CHECK(shape.ring == RING_NONE || whole == (P::WEIGHT_BITS == 8),
              "mac: ring weights have 8 bits");
    LDA_CHECK(rows_of(shape, least(shape.per_round, shape.units)) <= P::WEIGHT_ROWS,
              "mac: more weight rows than the weight buffer has");
    const int tiles = ceil_div(shape.octets, P::PP / GROUP);
    int beats = 0;  // of an octet
BEATS:
    for (int s = 0; s < MAX_SOURCES; ++s) {
#pragma HLS unroll
        if (s < entry.sources) beats += entry.groups[s];
    }
    MacJob job;
    job.entry = entry;
    const RowLoad own = first_rows(entry);
    const bool ring = shape.ring != RING_NONE;
    job.own = ring ? ring_rows(shape, least(shape.per_round, shape.units)) : own;
    job.next = next;
    job.fill = fill_plan(entry);
    job.grid = grid_of(entry.height, entry.width, entry.pitch);
    job.settling =
        most(Lanes<P::PP>::settling(entry.out_slot), Lanes<GROUP>::settling(entry.fill_slot));
    job.row_parts = whole ? 1 : 2;
    // a unit's steps last at least as long as the results of the one before take to leave
    job.unit_cycles = most(shape.steps, P::PP / GROUP / 2);
    job.pv_cycles = most(shape.pv_steps, P::PP / GROUP / 2);
    job.pv_first_sub = entry.subs - entry.pv_subs;
    job.first_row = shape.pv_units * shape.pv_steps;
    const int other_units = least(shape.per_round, shape.units) - shape.pv_units;
    // K's rows are the last to come, and follow the first unit with V wherever others are between
    LDA_CHECK(shape.pv_units < 2 || shape.pv_every == 1 ||
                  job.pv_cycles + other_units * shape.steps >= P::GUARD,
              "mac: weight rows that are read too soon");
    const int round_cycles =
        tiles * (shape.pv_units * job.pv_cycles + other_units * job.unit_cycles);
    job.pace = load_pace(own.left, round_cycles);
    job.next_pace = load_pace(next.left, round_cycles);
    job.share = job.last_share = 0;
    if (ring && shape.units > 2 * shape.per_round) {
        const int full = ceil_div(shape.units, shape.per_round) - 1;
        job.share = ceil_div(shape.per_round * shape.steps, tiles);
        job.last_share = ceil_div((shape.units - full * shape.per_round) * shape.steps, tiles);
    }
    LDA_CHECK(shape.lead <= shape.fill && entry.late >= 0 && entry.late <= shape.lead,
              "mac: the octets before the first tile are not some of the fill");
    job.lead_cycles = shape.lead * beats * job.fill.passes;
    job.turns = entry.stride == 1 && entry.plane > entry.window_slots;
    LDA_CHECK(!job.turns || (entry.window_slots % P::PP == 0 && entry.start == 0),
              "mac: a turn of the window buffer that is not a number of tiles");
    LDA_CHECK(!job.turns || (entry.taps == 1 && entry.up == 0 && shape.units <= shape.per_round),
              "mac: a part of the window for tiles that are visited again");
    job.last = 0;
    return job;
}

template <class P>
void mac_plan(const Segment* segments, int segment_count, const MacEntry* entries,
              hls::stream<MacJob>& jobs_s) {
#pragma HLS inline off
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
#pragma HLS pipeline II = 4 style = flp
                    TICK(4);
                    const Following next = following(segments, segment_count, s, i0, i1, k);
                    RowLoad rows = RowLoad();
                    if (next.entry >= 0) rows = first_rows(entries[next.entry]);
                    MacJob job = job_of<P>(entries[segment.first + k], rows);
                    job.last = next.entry < 0;
                    jobs_s.write(job);
                }
            }
        }
    }
    LOOP_EXIT();
}

}  // namespace lda

#endif
