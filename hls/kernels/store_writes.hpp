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

// Results of one execution. pv_place: where those of a joined product with V go. There are several
// of these to select from, so that what is small has few bits.
struct Results {
    Work work;
    Location place;
    Location pv_place;
    uint8_t pv_units, pv_every;
    int entry, i0, i1;

    // What Turns needs of it.
    Shape shape() const {
#pragma HLS inline
        Shape shape = Shape();
        shape.pv_units = pv_units;
        shape.pv_every = pv_every;
        return shape;
    }
};

// Executions whose results may be due at once; more only wait longer.
static const int EXECUTIONS = 16;

template <class P>
struct Writes {
    Results results[EXECUTIONS];  // a ring
    int oldest, count;
    int due;         // micro-slots of all of them
    MicroSlot slot;  // of the oldest
    Turns turns;     // of its tile
    int word;        // of its words

    void start() {
        oldest = count = due = word = 0;
        slot.start();
        turns.start();
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
        const int unit = slot.first + slot.group;  // in a joined execution, else an output group
        const Shape shape = made.shape();
        const bool of_v = turns.of_v(shape, unit);
        Location place = made.place;
        if (of_v) place = made.pv_place;
        const int group = of_v ? turns.pv : unit - turns.pv;  // of the product
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
        turns.pass(shape, unit);
        const bool goes_on = slot.next(made.work);
        if (slot.group == 0) turns.start();
        if (goes_on) return true;
        slot.start();
        hook(made.entry, made.i0, made.i1);
        oldest = (oldest + 1) % EXECUTIONS;
        --count;
        return true;
    }
};

}  // namespace lda

#endif
