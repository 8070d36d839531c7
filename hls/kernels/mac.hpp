// mac: the multiplier array, output stationary. Fills its window buffer from gs, its weight buffer
// from ws or ks, and sends accumulators to post (as), per round, tile, unit, octet.
//
// One flattened loop per execution runs through the slots of docs/engine.md: "lead", one per round
// and tile, and a last one that sends the last unit's words. In every cycle of a slot one multiply
// step, one Beat cycle, one weight row and one as word are handled.
#ifndef LDA_MAC_HPP
#define LDA_MAC_HPP

#include "fill_walk.hpp"
#include "lanes.hpp"
#include "mac_memory.hpp"
#include "multiply.hpp"
#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// What an execution leaves to the following one.
struct MacState {
    int32_t half;  // of the weight buffer, of the next round
    RowLoad load;  // its rows that are still to come from ws
};

// next: the weight rows of the following execution's round 0 that come from ws.
template <class P>
void mac_entry(const MacEntry& entry, const RowLoad& next, MacMemory<P>& memory, MacState& state,
               hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<WeightRow>& ks_s,
               hls::stream<WeightRow>& ws_s, hls::stream<AccWord>& as_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const int TILE_WORDS = P::PP / GROUP;
    const int ALL = 1 << 30;
    const bool ring = shape.ring != RING_NONE;
    LDA_CHECK(entry.subs * entry.taps == shape.steps && entry.taps <= MAX_TAPS,
              "mac: steps are not taps x subs");
    LDA_CHECK(least(shape.per_round, shape.units) * shape.steps <= P::WEIGHT_ROWS,
              "mac: more weight rows than the weight buffer has");

    const int tiles = ceil_div(shape.octets, TILE_WORDS);
    // a unit's steps last at least as long as the results of the one before take to leave
    const int unit_cycles = most(shape.steps, TILE_WORDS);
    const int round_cycles = tiles * least(shape.per_round, shape.units) * unit_cycles;
    const int pace = load_pace(entry.first_rows, round_cycles);
    const int next_pace = load_pace(next.left, round_cycles);
    // ring rows of a tile slot, in full rounds and in the last one
    int share = 0, last_share = 0;
    if (ring && shape.units > 2 * shape.per_round) {
        const int tail =
            shape.units - (ceil_div(shape.units, shape.per_round) - 1) * shape.per_round;
        share = ceil_div(shape.per_round * shape.steps, tiles);
        last_share = ceil_div(tail * shape.steps, tiles);
    }

    Lanes<P::PP> lanes;
#pragma HLS array_partition variable = lanes.lane complete
#pragma HLS array_partition variable = lanes.at_first complete
    lanes.start(entry.height, entry.width, entry.pitch, entry.out_slot);
    FillWalk fill;
#pragma HLS array_partition variable = fill.lanes.lane complete
#pragma HLS array_partition variable = fill.lanes.at_first complete
    fill.start(entry);
    const int settling = most(lanes.settling(), fill.lanes.settling());
    int beats = 0;  // of an octet
BEATS:
    for (int s = 0; s < MAX_SOURCES; ++s) {
#pragma HLS unroll
        if (s < entry.sources) beats += entry.groups[s];
    }
    // With two ranks and more, one pass per Beat fills subs no slower than the first tap reads
    // them; then only the first Beat of a slot's last octet keeps the next slot waiting.
    const bool fill_leads = P::RANKS > 1 && fill.passes == 1;

    Beat<P::RANKS> beat = Beat<P::RANKS>();
    int32_t result[P::PP][GROUP];
#pragma HLS array_partition variable = result complete dim = 0
#ifdef LDA_FAST
    TileOperands<P> operands;
    operands.start(entry);
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
    bool lead = true, draining = false, done = false;
    int fill_left = shape.fill;  // octets
    int settled = 0;
    int lead_left = least(shape.lead, shape.fill) * beats * fill.passes;  // cycles
    // of the round
    int round = 0, units_left = shape.units;  // of this round and later ones
    int units_now = least(shape.per_round, shape.units);
    int half = state.half;
    bool last_round = false;
    RowLoad load = state.load;
    bool ring_load = ring;  // `load` comes from ks
    int load_half = half, load_wait = 0;
    if (ring) load.start(units_now, shape.steps);
    // of the slot
    int tile = 0, octets_left = shape.octets;      // from this tile on
    int first = entry.start;                       // window index of lane 0
    int fill_due = least(shape.lead, shape.fill);  // octets
    int rows_due = ring ? ALL : 0;                 // ring rows
    int hold = 0;                                  // cycles until the next slot may begin
    int unit = 0, phase = 0, tap = 0, sub = 0, row = 0;
    // of the unit before
    int ready = 0, leaving = 0;  // words of `result`, the next one to leave
    fill_left -= fill_due;
SLOTS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
// What a slot loads is read GUARD cycles later at the earliest: no read meets its write in the
// pipeline.
#pragma HLS dependence variable = memory.window.bank type = inter false
#pragma HLS dependence variable = memory.weights type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        const bool computes = !lead && !draining && unit < units_now;
        // Ring weights travel as px words: in the lead slot before the fill, later behind it. Rows
        // from ws that are left for the lead slot come while the fill is still on its way.
        const bool first_row = lead && load.units > 0 && (ring || load.left > lead_left);
        const bool fills = fill_due > 0 && (fill.direct || settled == settling) && !first_row;
        const bool paced = load.units > 0 && load_wait == 0 && !draining;
        const bool loads = ring_load ? rows_due > 0 && (lead || fill_due == 0) : paced;
        const bool leaves = leaving < ready;
#ifdef LDA_FAST
        // what touches no stream is one long iteration, up to the next event
        int span = computes ? unit_cycles - phase : most(hold, 1);
        if (fills) span = fill.pass ? least(span, fill.passes - fill.pass) : 1;
        if (!ring_load && load.units > 0) span = least(span, most(load_wait, 1));
        if (loads || leaves || settled < settling) span = 1;
#else
        const int span = 1;
#endif
        TICK(span);
        hold = most(hold - span, 0);
        load_wait = most(load_wait - span, 0);
        if (loads) {
            LDA_CHECK(load.row < P::WEIGHT_ROWS, "mac: a weight row outside of the weight buffer");
            memory.weights[load_half * P::WEIGHT_ROWS + load.row] =
                ring_load ? ks_s.read() : ws_s.read();
            // row k is read k cycles into the round at the earliest
            hold = most(hold, P::GUARD - 1 - load.row);
            load_wait = (lead || ring_load ? 1 : last_round ? next_pace : pace) - 1;
            load.next();
            rows_due = !ring_load || load.units == 0 ? 0 : rows_due - 1;
        }
        if (fills) {
            if (fill.pass == 0) beat = gs_s.read();
            const BeatPlace place = {fill.group * P::RANKS, entry.source_groups[fill.source],
                                     entry.sub_base[fill.source]};
            FillLanes to;
#ifdef LDA_FAST
            if (fill.pass == 0) {
                for (int pass = 0; pass < fill.passes; ++pass) {
                    fill.place(entry, pass, to);
                    write_window<P>(memory.window, entry.subs, place, to, beat);
                }
            }
#else
            fill.place(entry, fill.pass, to);
            write_window<P>(memory.window, entry.subs, place, to, beat);
#endif
            if (!fill_leads || fill.first_beat()) hold = most(hold, P::GUARD - 1);
            lead_left -= span;
            if (fill.next(entry, span)) --fill_due;
        }
        if (leaves) {
            AccWord word;
            for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
                for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                    word.a[p * GROUP + o] = result[leaving * GROUP + p][o];
                }
            }
            as_s.write(word);
            ++leaving;
        }
        if (computes) {
#ifdef LDA_FAST
            if (phase == 0 && unit == 0) {
                const int filled = fill.direct ? fill.slot : entry.window_slots;
                operands.place(entry, memory.window, lanes, first,
                               least(TILE_WORDS, octets_left) * GROUP, filled);
            }
#else
            if (phase < shape.steps) {
                multiply_step<P>(entry, memory, lanes, first, half * P::WEIGHT_ROWS + row, tap, sub,
                                 phase == 0, acc);
                ++row;
                if (++sub == entry.subs) {
                    sub = 0;
                    ++tap;
                }
            }
#endif
            phase += span;
            if (phase == unit_cycles) {
#ifdef LDA_FAST
                multiply_unit(operands.pixel, P::PP, entry.taps, entry.subs,
                              memory.weights[half * P::WEIGHT_ROWS + unit * shape.steps].b, result);
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
                phase = tap = sub = leaving = 0;
                ++unit;
            }
        }
        if (settled < settling) {
            lanes.settle(settled, settling - 1);
            fill.lanes.settle(settled, settling - 1);
            ++settled;
        }
        const bool last_tile = octets_left <= TILE_WORDS;
        const bool computed = lead ? settled == settling : unit == units_now;
        // the following execution's rows may come later, and nothing of this one is read any more
        const bool loaded = load.units == 0 || (!lead && (!last_tile || last_round));
        const bool over = computed && fill_due == 0 && rows_due == 0 && loaded &&
                          (hold == 0 || (last_tile && last_round));
        if (draining) {
            done = leaving == ready;
        } else if (over) {
            unit = row = 0;
            if (lead || last_tile) {
                if (!lead) {
                    half ^= 1;
                    units_left -= units_now;
                    ++round;
                    lanes.rewind();
                }
                draining = units_left == 0;
                done = draining && leaving == ready;
                lead = false;
                tile = 0;
                octets_left = shape.octets;
                first = entry.start;
                units_now = least(shape.per_round, units_left);
                const int units_next = least(shape.per_round, units_left - units_now);
                last_round = units_next == 0;
                ring_load = ring && !last_round;
                if (!draining) {
                    load_half = half ^ 1;
                    load = next;
                    if (!last_round) load.start(units_next, shape.steps);
                }
            } else {
                ++tile;
                octets_left -= TILE_WORDS;
                first += P::PP;
                lanes.advance();
            }
            fill_due = least(TILE_WORDS, fill_left);
            fill_left -= fill_due;
            LDA_CHECK(fill_due == 0 || round == 0,
                      "mac: octets of the fill that no tile waits for");
            // of round 1 all in round 0's last tile, of later rounds a share in every tile
            const bool full = units_left - units_now >= shape.per_round;
            const int due = round > 0                   ? (full ? share : last_share)
                            : octets_left <= TILE_WORDS ? ALL
                                                        : 0;
            rows_due = ring_load && load.units > 0 ? due : 0;
        }
    }
    LOOP_EXIT();
    state.half = half;
    state.load = load;
}

template <class P>
void mac(const Segment* segments, int segment_count, const MacEntry* entries, MacMemory<P>& memory,
         hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<WeightRow>& ks_s,
         hls::stream<WeightRow>& ws_s, hls::stream<AccWord>& as_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
    MacState state = MacState();
    if (segment_count > 0) state.load = first_rows(entries[segments[0].first]);
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const MacEntry entry = entries[segment.first + k];
                    const Following next = following(segments, segment_count, s, i0, i1, k);
                    RowLoad rows = RowLoad();
                    if (next.entry >= 0) rows = first_rows(entries[next.entry]);
                    mac_entry<P>(entry, rows, memory, state, gs_s, ks_s, ws_s, as_s);
                }
            }
        }
    }
}

}  // namespace lda

#endif
