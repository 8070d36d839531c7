// store: owns the activation memory. Sends source octets and ring weights to pre (xs), residuals to
// post (rs), and takes results from post (ys).
//
// Work goes by micro-slots (docs/engine.md, "Micro-slots of store"): the lead slot, then one per
// round, tile and output group. A micro-slot reads one octet a cycle, and at the same time writes
// what the micro-slot LAG earlier has computed, be it of this execution or of one before. Nothing
// that is read lies where a write is outstanding: where an entry reads what was written lately, it
// asks for a flush. Before and after an execution rows may move between the memory and the rank's
// DDR bank; then everything is written first.
#ifndef LDA_STORE_HPP
#define LDA_STORE_HPP

#include "params.hpp"
#include "port.hpp"
#include "program.hpp"
#include "sampler.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "store_moves.hpp"
#include "store_reads.hpp"
#include "store_writes.hpp"
#include "types.hpp"

namespace lda {

// Micro-slots that are written a little early, while there is something to read anyway.
static const int EARLY = 4;

// The reads of one execution, and the writes that fall due meanwhile. flush: of the micro-slots of
// earlier executions, all but `pending` are written before the lead slot reads, all but
// `pending_tile` fewer before each tile of round 0, and all but `pending_end` before round 1 or the
// end of all.
template <class P, class Hook>
void store_entry(const StoreEntry& entry, int i0, int i1, bool flush,
                 typename StoreTypes<P>::Memory& memory, Writes<P>& writes, Hook& hook,
                 hls::stream<Pair>& xs_s, hls::stream<Pair>& rs_s, hls::stream<ResultPair>& ys_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
#pragma HLS array_partition variable = writes.results complete
    const Shape& shape = entry.shape;
    const Work work = work_of<P>(shape);
    const Location sources[MAX_SOURCES] = {location_of(entry.source[0], i0, i1),
                                           location_of(entry.source[1], i0, i1)};
    const Location ring_place = location_of(entry.weights, i0, i1);
    const Location pv_place = location_of(entry.pv_weights, i0, i1);
    const Location residual = location_of(entry.residual, i0, i1);
    const bool has_residual = entry.residual.groups > 0;
    const bool has_tokens = shape.ring == RING_K;
    const bool joined = shape.pv_units > 0;
    int octet_words = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) octet_words += entry.source[s].groups;
    }
    const int TILE_OCTETS = P::PP / GROUP;
    const int tile_words = TILE_OCTETS * octet_words;
    LDA_CHECK(!joined || work.groups <= work.per_round, "store: joined products of several rounds");
    LDA_CHECK(
        !joined || shape.pv_units * entry.pv_share + (shape.units - shape.pv_units) * entry.share >=
                       tile_words,
        "store: a tile's micro-slots do not read all of its fill");

    FillRead fill;
    RingRead ring;
    RingSpread spread;
    MicroSlot slot;
    Turns turns;
    fill.start();
    ring.start();
    spread.start(shape, work.tiles, byte_rows<P>());
    slot.start();
    turns.start();

    // xs carries the ring weights of round 0, the fill, the other ring weights; a slot sends what
    // mac loads in it.
    const int round_words = shape.per_round * shape.ring_words;
    const int lead_words = least(shape.lead, shape.fill) * octet_words;
    int before_left = ring_words_of(shape, least(shape.per_round, shape.units));
    int pv_left = shape.pv_units * shape.pv_words;  // of them, those of V in a joined execution
    int ring_due = ring_words_of(shape, shape.units) - before_left;  // of rounds to come
    int fill_left = shape.fill * octet_words;
    int fill_due = fill_left - lead_words;  // behind the lead slot
    int load_left = 0;                      // ring weights of the next round that are not loaded
    int fill_now = 0;                       // of the tile, behind this micro-slot
    bool load_last = false;

    // Of the current slot. Residuals come first: rs has room for LAG micro-slots, whereas xs may be
    // full until mac has gone on.
    bool lead = true;
    int rs_words = 0;
    int reads = before_left + lead_words;
    int cycle = 0;
    bool over = false, done = false;  // all is read; and written that has to be
    // Micro-slots of earlier executions: still to write; that may be, now and for the next tile;
    // that need not be soon.
    int before = writes.due;
    int allowed = flush ? entry.pending : P::LAG;
    int next_allowed = 0;
    int unhurried = flush ? entry.pending - least(EARLY, entry.pending >> 2) : P::LAG;
    int settling = 0;  // cycles until those that the next tile needs can be read
    int hold = 0;      // cycles until reading goes on
    const int LAZY = P::LAG - least(EARLY, P::LAG - 2);
SLOTS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
// What is read has been written GUARD cycles before at the latest.
#pragma HLS dependence variable = memory type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        const bool flushes = before > allowed;
        const bool goes_on = !flushes && hold == 0;
        const bool soon = cycle < reads ? writes.due > LAZY || before > unhurried || writes.full()
                                        : !lead && writes.due >= P::LAG;
        if (goes_on && cycle < rs_words) {
            const int octet = slot.tile * TILE_OCTETS + cycle;
            rs_s.write(read_octet<P>(memory, residual, slot.first + slot.group, octet));
        } else if (goes_on && cycle < reads) {
            if (before_left == 0 && fill_left > 0) {
                int octet = fill.octet;
                if (LDA_FAULT == 2 && octet == 1) octet = 0;
                xs_s.write(read_octet<P>(memory, sources[fill.source], fill.group, octet));
                fill.next(entry);
                --fill_left;
            } else {
                const bool of_v = pv_left > 0, by_token = has_tokens && !of_v;
                const int group = by_token ? ring.inner : ring.outer;
                const int octet = by_token ? ring.outer : ring.inner;
                xs_s.write(read_octet<P>(memory, of_v ? pv_place : ring_place, group, octet));
                ring.next(by_token ? entry.weights.groups
                          : of_v   ? shape.pv_words
                                   : shape.ring_words);
                if (before_left > 0) --before_left;
                if (of_v && --pv_left == 0) ring.start();
            }
        }
        settling = most(settling - 1, 0);
        hold = most(hold - 1, 0);
        if (flushes || soon) {
            if (writes.write(memory, hook, ys_s) && before > 0) {
                --before;
                if (before >= next_allowed) settling = P::GUARD;
                if (flushes) hold = P::GUARD;
            }
        }
        cycle += goes_on ? 1 : 0;
        if (goes_on && cycle >= reads && (lead || writes.due < P::LAG)) {
            cycle = 0;
            if (!lead && !over) {
                ++writes.due;
                turns.pass(shape, slot.group);
                over = !slot.next(work);
                if (slot.group == 0) turns.start();
                if (over && flush) allowed = entry.pending_end;
            }
            done = over && before <= allowed;
            lead = false;
            int load = 0;
            if (slot.group == 0 && !over) {  // mac's slot of the tile begins
                const bool first_round = slot.first == 0;
                if (slot.tile == (first_round ? work.tiles - 1 : 0)) {
                    load_left = least(round_words, ring_due);
                    load_last = load_left == ring_due;
                    ring_due -= load_left;
                    spread.spare = 0;
                }
                load = first_round ? load_left : least(spread.take(load_last), load_left);
                load_left -= load;
                fill_now = first_round ? least(tile_words, fill_due) : 0;
                fill_due -= fill_now;
                if (flush) {
                    const int end = entry.pending_end;
                    allowed = first_round ? most(allowed - entry.pending_tile, end) : end;
                    // what round 1 reads may be what the last tile leaves
                    const bool tiles_left = first_round && slot.tile + 1 < work.tiles;
                    next_allowed = tiles_left ? most(allowed - entry.pending_tile, end) : end;
                    unhurried = most(allowed - most(EARLY, 2 * entry.pending_tile), 0);
                    hold = settling;
                }
            }
            // Joined products read as much as they write: every micro-slot of a tile its share.
            const int share = turns.of_v(shape, slot.group) ? entry.pv_share : entry.share;
            const int words = least(joined ? share : tile_words, fill_now);
            fill_now -= words;
            load += words;
            rs_words = has_residual && !over ? slot.template octets<P>(work) : 0;
            reads = rs_words + load;
        }
    }
    LOOP_EXIT();
}

// Writes results until those of no more than `left` executions are outstanding.
template <class P, class Hook>
void store_results(int left, typename StoreTypes<P>::Memory& memory, Writes<P>& writes, Hook& hook,
                   hls::stream<ResultPair>& ys_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
#pragma HLS array_partition variable = writes.results complete
RESULTS:
    while (writes.count > left) {
#pragma HLS pipeline II = 1 style = flp
// There are writes only, and no row is written twice.
#pragma HLS dependence variable = memory type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        writes.write(memory, hook, ys_s);
    }
    LOOP_EXIT();
}

// The layer program, once.
template <class P, class Spill, class Hook>
void store_step(Spill& spill, const Segment* segments, int segment_count, const StoreEntry* entries,
                const Move* moves, typename StoreTypes<P>::Memory& memory, Hook& hook,
                hls::stream<Pair>& xs_s, hls::stream<Pair>& rs_s, hls::stream<ResultPair>& ys_s) {
#pragma HLS inline
    Writes<P> writes;
    writes.start();
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const StoreEntry entry = entries[segment.first + k];
                    const bool first = i0 == 0 && i1 == 0;
                    const bool flush = entry.flush == 1 || (entry.flush == 2 && first);
                    const int once = first ? 0 : entry.moves_once;
                    const int before = entry.moves_once + entry.moves_before;
                    const int after = before + entry.moves_after;
                    if (before > once) {
                        store_results<P>(0, memory, writes, hook, ys_s);
                        store_moves<P>(spill, moves, entry.moves_first, once, before, i0, i1,
                                       memory);
                    }
                    store_results<P>(EXECUTIONS - 1, memory, writes, hook, ys_s);
                    const Results made = {work_of<P>(entry.shape),
                                          location_of(entry.dest, i0, i1),
                                          location_of(entry.pv_dest, i0, i1),
                                          uint8_t(entry.shape.pv_units),
                                          uint8_t(entry.shape.pv_every),
                                          segment.first + k,
                                          i0,
                                          i1};
                    writes.add(made);
                    store_entry<P>(entry, i0, i1, flush, memory, writes, hook, xs_s, rs_s, ys_s);
                    if (after > before) {
                        store_results<P>(0, memory, writes, hook, ys_s);
                        store_moves<P>(spill, moves, entry.moves_first, before, after, i0, i1,
                                       memory);
                    }
                }
            }
        }
    }
    store_results<P>(0, memory, writes, hook, ys_s);
}

// Source, Sink: anything indexable by 64-byte word, `const PortWord*` and `PortWord*` in
// hardware. Spill: hls::burst_maxi, or NoSpill in a program without moves. steps: runs of the
// program; more than one with a sampler alone, which makes the next one's input.
template <class P, class Source, class Sink, class Spill, class Hook>
void store(Source latent, Sink result, Spill spill, int steps, const StoreIo& io,
           const Updates& updates, const Segment* segments, int segment_count,
           const StoreEntry* entries, const Move* moves, typename StoreTypes<P>::Memory& memory,
           SamplerMemory<P>& sampler, Hook hook, hls::stream<Pair>& xs_s, hls::stream<Pair>& rs_s,
           hls::stream<ResultPair>& ys_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
    const bool several = P::SAMPLER_PIXELS > 0 && steps > 1;
    LDA_CHECK(several || steps == 1, "store: a number of steps that the engine cannot run");
INPUT:
    for (int i = 0; i < 2 * io.input_rows; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 8192
        TICK(1);
        write_half<P>(memory, io.input_row + (i >> 1), i & 1, word_of(latent[i]));
    }
    LOOP_EXIT();
    if (several) sampler_load<P>(latent, io, updates, sampler);
STEPS:
    for (int step = 0; step < steps; ++step) {
#pragma HLS loop_tripcount min = 1 max = 50
        store_step<P>(spill, segments, segment_count, entries, moves, memory, hook, xs_s, rs_s,
                      ys_s);
        if (several && step + 1 < steps) {
            sampler_update<P>(latent, step, io, updates, memory, sampler);
        }
    }
OUTPUT:
    for (int i = 0; i < 2 * io.output_rows; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 8192
        TICK(1);
        result[i] = port_word(read_half<P>(memory, io.output_row + (i >> 1), i & 1));
    }
    LOOP_EXIT();
    if (several) sampler_save<P>(result, io, updates, sampler);
}

}  // namespace lda

#endif
