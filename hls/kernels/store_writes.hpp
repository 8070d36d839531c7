// What store still has to write: the executions whose reads have begun, and how far the words of
// the oldest one have come.
#ifndef LDA_STORE_WRITES_HPP
#define LDA_STORE_WRITES_HPP

#include "program.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "types.hpp"

namespace lda {

// Work in micro-slots: round, tile, output group.
//   octets, tiles   of an output group
//   groups          output groups; per_round of them in a round
struct Work {
    int octets;
    int tiles;
    int groups;
    int per_round;
};

template <class P>
inline Work work_of(const Shape& shape) {
#pragma HLS inline
    Work work;
    work.octets = shape.octets;
    work.tiles = ceil_div(shape.octets, P::PP / GROUP);
    work.groups = shape.gates == 2 ? shape.units >> 1 : shape.units;
    work.per_round = shape.gates == 2 ? shape.per_round >> 1 : shape.per_round;
    return work;
}

// A position in it.
struct MicroSlot {
    int first;  // output group of the round
    int tile;
    int group;  // within the round

    void start() { first = tile = group = 0; }

    // Whether there is another one.
    bool next(const Work& work) {
#pragma HLS inline
        if (++group < least(work.per_round, work.groups - first)) return true;
        group = 0;
        if (++tile < work.tiles) return true;
        tile = 0;
        first += work.per_round;
        return first < work.groups;
    }

    template <class P>
    int octets(const Work& work) const {
#pragma HLS inline
        return least(P::PP / GROUP, work.octets - tile * (P::PP / GROUP));
    }
};

// Results of one execution. pv_groups: output groups of a joined product with V, which come first
// and go to pv_place.
struct Results {
    Work work;
    Location place;
    Location pv_place;
    int pv_groups;
    int entry, i0, i1;
};

// Executions whose results may be due at once; more only wait longer.
static const int EXECUTIONS = 16;

template <class P>
struct Writes {
    Results results[EXECUTIONS];  // a ring
    int oldest, count;
    int due;         // micro-slots of all of them
    MicroSlot slot;  // of the oldest
    int word;        // of its words

    void start() {
        oldest = count = due = word = 0;
        slot.start();
    }

    void add(const Results& made) {
#pragma HLS inline
        results[(oldest + count) % EXECUTIONS] = made;
        ++count;
    }

    // Whether the results of another execution would have to wait.
    bool full() const { return count == EXECUTIONS; }

    // Whether that was the last word of a micro-slot.
    template <class Hook>
    bool write(Word (&memory)[2][P::STORE_ROWS], Hook& hook, hls::stream<ResultPair>& ys_s) {
#pragma HLS inline
        const Results& made = results[oldest];
        const bool of_v = slot.first + slot.group < made.pv_groups;
        Location place = made.place;
        if (of_v) place = made.pv_place;
        const int group = slot.first + slot.group - (of_v ? 0 : made.pv_groups);
        const int octets = slot.template octets<P>(made.work);
        // of the micro-slot: octets, or pairs of them
        const int words = place.wide ? octets : (octets + 1) >> 1;
        const int octet = slot.tile * (P::PP / GROUP) + (place.wide ? word : 2 * word);
        const ResultPair result = ys_s.read();
        Pair row;
        row.b[0] = result.b[0];
        row.b[1] = result.b[1];
        if (result.written) write_row<P>(memory, row_of(place, group, octet), row);
        if (++word < words) return false;
        word = 0;
        --due;
        if (slot.next(made.work)) return true;
        slot.start();
        hook(made.entry, made.i0, made.i1);
        oldest = (oldest + 1) % EXECUTIONS;
        --count;
        return true;
    }
};

}  // namespace lda

#endif
