// mac: the multiplier array, output stationary. Fills its window buffer from gs, its weight buffer
// from ws or ks, and sends accumulators to post (as, bs), per round, tile, unit, octet.
//
// Two processes in a dataflow region: mac_plan sends what every execution needs to know, mac_array
// runs through the slots of docs/engine.md in one flattened loop over all of them: per execution
// "lead" and one slot per round and tile. In every cycle of a slot one multiply step, one Beat
// cycle, one weight row and two words for post are handled. A unit's words leave during the next
// unit's steps, those of an execution's last unit before the following one's fill.
#ifndef LDA_MAC_HPP
#define LDA_MAC_HPP

#include "fill_walk.hpp"
#include "lanes.hpp"
#include "mac_memory.hpp"
#include "mac_plan.hpp"
#include "multiply.hpp"
#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"
#include "weights.hpp"

namespace lda {

template <class P>
void mac_array(hls::stream<MacJob>& jobs_s, MacMemory<P>& memory, hls::stream<Beat<P::RANKS>>& gs_s,
               hls::stream<WeightRow<8>>& ks_s, hls::stream<WeightRow<P::WEIGHT_BITS>>& ws_s,
               hls::stream<AccWord>& as_s, hls::stream<AccWord>& bs_s) {
#pragma HLS inline off
    const int TILE_WORDS = P::PP / GROUP;
    const int ALL = 1 << 30;
    MacJob job = MacJob();
    const MacEntry& entry = job.entry;
    const Shape& shape = job.entry.shape;
    Lanes<P::PP> lanes = Lanes<P::PP>();
#pragma HLS array_partition variable = lanes.lane complete
#pragma HLS array_partition variable = lanes.at_first complete
    FillWalk fill = FillWalk();
#pragma HLS array_partition variable = fill.lanes.lane complete
#pragma HLS array_partition variable = fill.lanes.at_first complete
    Beat<P::RANKS> beat = Beat<P::RANKS>();
    int32_t result[P::PP][GROUP];
#pragma HLS array_partition variable = result complete dim = 0
#ifdef LDA_FAST
    TileOperands<P> operands;
    UnitWeights<P> unit_weights;
#else
    int32_t acc[P::PP][GROUP];
#pragma HLS array_partition variable = acc complete dim = 0
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
            acc[l][o] = result[l][o] = 0;
        }
    }
#endif

#pragma HLS array_partition variable = memory.window.bank complete dim = 1
#pragma HLS array_partition variable = memory.window.bank complete dim = 2

    // of the execution
    bool begins = true, first_job = true, lead = false, ends = false, done = false;
    bool ring = false;
    // With two ranks and more, one pass per Beat fills subs no slower than the first tap (of joined
    // products the first unit with V, then that with K) reads them; then the first Beat of an octet
    // is what the next slot waits for, otherwise the last.
    bool fill_leads = false;
    int fill_left = 0;  // octets
    int settled = 0;
    int lead_left = 0;  // Beat cycles
    // of the round
    int round = 0, units_left = 0;  // of this round and later ones
    int units_now = 0;
    int half = 0;  // of the weight buffer
    bool last_round = false;
    RowLoad load = RowLoad();
    bool ring_load = false;  // `load` comes from ks
    int load_half = 0, load_wait = 0;
    WeightRow<8> ks_row = WeightRow<8>();  // of which the second half may be to come
    // of the slot
    int octets_left = 0;  // from this tile on
    int first = 0;        // window index of lane 0
    int fill_due = 0;     // octets
    int fill_needed = 0;  // of them, for the next slot
    int rows_due = 0;     // ring rows
    int hold = 0;         // cycles until the next slot may begin
    int unit = 0, phase = 0, tap = 0, sub = 0, part = 0;
    Turns products = Turns();        // of the units, where two are joined
    int weight_row = 0, pv_row = 0;  // the latter of the product with V
#ifdef LDA_FAST
    bool operands_of_v = false;
#endif
    // of the unit before
    int ready = 0, leaving = 0;  // words of `result`, the next one to leave
SLOTS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
// What a slot loads is read GUARD cycles later at the earliest: no read meets its write in the
// pipeline.
#pragma HLS dependence variable = memory.window.bank type = inter false
#pragma HLS dependence variable = memory.weights type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        const bool works = !begins && !ends;
        const bool computes = works && !lead && unit < units_now;
        const bool leaves = leaving < ready;
        // units of a joined product with V: other subs, other steps, other rows
        const bool of_v = products.of_v(shape, unit);
        const int unit_cycles = of_v ? job.pv_cycles : job.unit_cycles;
        const int steps = of_v ? shape.pv_steps : shape.steps;
        const int first_sub = of_v ? job.pv_first_sub : 0;
        const int row = half * P::WEIGHT_ROWS + (of_v ? pv_row : weight_row);
        // The fill may wait for what the last words become in the store: they go first.
        const bool may_load = works && !(lead && leaves);
        // Ring weights travel as px words: in the lead slot before the fill, later behind it. Rows
        // from ws that are left for the lead slot come while the fill is still on its way.
        const bool rows_first = lead && load.units > 0 && (ring || load.left > lead_left);
        const bool placed = settled == job.settling;
        const bool fills = may_load && fill_due > 0 && (job.fill.direct || placed) && !rows_first;
        const bool ring_row = rows_due > 0 && (lead || fill_due == 0);
        const bool loads = may_load && (ring_load ? ring_row : load.units > 0 && load_wait == 0);
#ifdef LDA_FAST
        // what touches no stream is one long iteration, up to the next event
        int span = computes ? unit_cycles - phase : most(hold, 1);
        if (fills) span = fill.pass ? least(span, job.fill.passes - fill.pass) : 1;
        if (!ring_load && load.units > 0) span = least(span, most(load_wait, 1));
        if (loads || leaves || begins || !placed) span = 1;
#else
        const int span = 1;
#endif
        TICK(span);
        hold = most(hold - span, 0);
        load_wait = most(load_wait - span, 0);
        if (loads) {
            LDA_CHECK(load.row < P::WEIGHT_ROWS, "mac: a weight row outside of the weight buffer");
            WeightRow<P::WEIGHT_BITS> weights;
            if (ring_load) {
                take_ring_row(ks_s, load.step, ks_row, weights);
            } else {
                weights = ws_s.read();
            }
            memory.weights[load_half * P::WEIGHT_ROWS + load.row] = weights;
            // row k is read k cycles into the round at the earliest
            hold = most(hold, P::GUARD - 1 - load.row);
            load_wait = (lead || ring_load ? 1 : last_round ? job.next_pace : job.pace) - 1;
            next_row(load);
            rows_due = !ring_load || load.units == 0 ? 0 : rows_due - 1;
        }
        if (fills) {
            if (fill.pass == 0) beat = gs_s.read();
            const BeatPlace place = {fill.group * P::RANKS, entry.source_groups[fill.source],
                                     entry.sub_base[fill.source]};
            FillLanes to;
#ifdef LDA_FAST
            if (fill.pass == 0) {
                for (int pass = 0; pass < job.fill.passes; ++pass) {
                    fill.place(entry, pass, to);
                    write_window<P>(memory.window, entry.subs, place, to, beat);
                }
            }
#else
            fill.place(entry, fill.pass, to);
            write_window<P>(memory.window, entry.subs, place, to, beat);
#endif
            const bool waited_for = fill_needed > 0 && (!fill_leads || fill.first_beat());
            if (waited_for) hold = most(hold, P::GUARD - 1);
            lead_left -= span;
            if (fill.next(entry, span)) {
                --fill_due;
                --fill_needed;
            }
        }
        if (leaves) {
            AccWord even, odd;
            for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
                for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                    even.a[p * GROUP + o] = result[leaving * GROUP + p][o];
                    odd.a[p * GROUP + o] = result[(leaving + 1) * GROUP + p][o];
                }
            }
            as_s.write(even);
            bs_s.write(odd);
            leaving += 2;
        }
        if (computes) {
#ifdef LDA_FAST
            const int rows = phase + span == unit_cycles ? steps : 0;
            if (phase == 0 && (unit == 0 || of_v != operands_of_v)) {
                operands_of_v = of_v;
                const bool grows = job.fill.direct && !job.turns;
                const int filled = grows ? fill.slot : entry.window_slots;
                operands.place(entry, first_sub, memory.window, lanes, first,
                               least(TILE_WORDS, octets_left) * GROUP, filled);
            }
#else
            const int rows = phase < steps ? 1 : 0;
            if (rows > 0) {
                const int parts = P::WEIGHT_BITS == 8 ? 1 : job.row_parts;
                const RowPart of_step = parts == 1 ? ROW_WHOLE : part == 0 ? ROW_HIGH : ROW_LOW;
                multiply_step<P>(entry, memory, lanes, first, row, tap, first_sub + sub, of_step,
                                 phase == 0, acc);
                if (++part == parts) {
                    part = 0;
                    if (++sub == entry.subs) {
                        sub = 0;
                        ++tap;
                    }
                }
            }
#endif
            phase += span;
            weight_row += of_v ? 0 : rows;
            pv_row += of_v ? rows : 0;
            if (phase == unit_cycles) {
#ifdef LDA_FAST
                multiply_unit(
                    operands.pixel, P::PP, entry.taps, of_v ? entry.pv_subs : job.pv_first_sub,
                    bytes_of(memory.weights + row, steps, job.row_parts, unit_weights), result);
#else
                for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
                    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                        result[l][o] = acc[l][o];
                    }
                }
#endif
                ready = least(TILE_WORDS, octets_left);
                LDA_CHECK(ready % 2 == 0, "mac: an odd number of octets");
                phase = tap = sub = part = leaving = 0;
                products.pass(shape, unit);
                ++unit;
            }
        }
        if (works && !placed) {
            lanes.settle(settled, job.settling - 1);
            fill.lanes.settle(settled, job.settling - 1);
            ++settled;
        }
        const bool last_tile = octets_left <= TILE_WORDS;
        const bool computed = lead ? settled == job.settling : unit == units_now;
        // the following execution's rows may come later, and nothing of this one is read any more
        const bool loaded = load.units == 0 || (!lead && (!last_tile || last_round));
        const bool over = works && computed && fill_due == 0 && rows_due == 0 && loaded &&
                          (hold == 0 || (!lead && last_tile && last_round));
        if (begins) {
            begins = false;
            job = jobs_s.read();
            ring = shape.ring != RING_NONE;
            fill_leads = P::RANKS > 1 && job.fill.passes == 1;
            lanes.start(job.grid, entry.out_slot);
            fill.start(entry, job.fill);
#ifdef LDA_FAST
            operands.start(entry);
#endif
            lead = true;
            settled = round = 0;
            units_left = shape.units;
            units_now = least(shape.per_round, shape.units);
            // what is left of its rows from ws, or those of the ring
            if (first_job || ring) load = job.own;
            first_job = false;
            ring_load = ring;
            load_half = half;
            rows_due = ring ? ALL : 0;
            fill_due = shape.lead;
            fill_left = shape.fill - fill_due;
            fill_needed = fill_due - entry.late;
            lead_left = job.lead_cycles;
        } else if (over) {
            unit = pv_row = 0;
            weight_row = job.first_row;
            products.start();
            if (lead || last_tile) {
                if (!lead) {
                    half ^= 1;
                    units_left -= units_now;
                    ++round;
                    lanes.rewind();
                }
                begins = units_left == 0 && !job.last;
                ends = units_left == 0 && job.last;
                lead = false;
                octets_left = shape.octets;
                first = entry.start;
                units_now = least(shape.per_round, units_left);
                const int units_next = least(shape.per_round, units_left - units_now);
                last_round = units_next == 0;
                ring_load = ring && !last_round;
                if (units_left > 0) {
                    load_half = half ^ 1;
                    load = job.next;
                    if (!last_round) load = load_of(units_next, shape.steps);
                }
            } else {
                octets_left -= TILE_WORDS;
                first += P::PP;
                if (job.turns && first == entry.window_slots) first = 0;
                lanes.advance();
            }
            fill_due = least(TILE_WORDS, fill_left);
            fill_left -= fill_due;
            fill_needed = TILE_WORDS - entry.late;
            LDA_CHECK(fill_due == 0 || round == 0,
                      "mac: octets of the fill that no tile waits for");
            // of round 1 all in round 0's last tile, of later rounds a share in every tile
            const bool full = units_left - units_now >= shape.per_round;
            const int share = full ? job.share : job.last_share;
            const int of_tile = octets_left <= TILE_WORDS ? ALL : 0;
            rows_due = ring_load && load.units > 0 ? (round > 0 ? share : of_tile) : 0;
        }
        done = ends && leaving == ready;
    }
    LOOP_EXIT();
}

// Simulations run the two processes by themselves, with a stream of this depth.
template <class P>
void mac(const Segment* segments, int segment_count, const MacEntry* entries, MacMemory<P>& memory,
         hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<WeightRow<8>>& ks_s,
         hls::stream<WeightRow<P::WEIGHT_BITS>>& ws_s, hls::stream<AccWord>& as_s,
         hls::stream<AccWord>& bs_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<MacJob, JOBS_DEPTH> jobs_s("jobs_s");
    mac_plan<P>(segments, segment_count, entries, jobs_s);
    mac_array<P>(jobs_s, memory, gs_s, ks_s, ws_s, as_s, bs_s);
}

}  // namespace lda

#endif
