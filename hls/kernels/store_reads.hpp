// The order in which store reads: source octets, ring weights.
#ifndef LDA_STORE_READS_HPP
#define LDA_STORE_READS_HPP

#include "program.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "types.hpp"

namespace lda {

// Source octets: octet, source, local group.
struct FillRead {
    int octet, source, group;

    void start() { octet = source = group = 0; }

    void next(const StoreEntry& entry) {
#pragma HLS inline
        if (++group < entry.source[source].groups) return;
        group = 0;
        if (++source < entry.sources) return;
        source = 0;
        ++octet;
    }
};

// Ring weights. K: token octet, local group of the head; V: local group of the head, token octet.
struct RingRead {
    int outer, inner;

    void start() { outer = inner = 0; }

    void next(int inner_count) {
#pragma HLS inline
        if (++inner < inner_count) return;
        inner = 0;
        ++outer;
    }
};

// How the ring weights of a round are spread over the tiles of the round before. What mac loads in
// a tile's slot, ceil(rows / tiles) rows, has to be on its way by then: `grains` whole ones, and
// one more whenever the rows of those before do not reach. A grain is the least that a row needs
// from the ring: all of a unit for K, whose words go to one rank after the other, a row for V.
struct RingShare {
    int words;  // of `grains`
    int rest;   // rows besides
};

struct RingSpread {
    int grain_rows, grain_words;
    RingShare full, last;  // of a full round, of the last one
    int spare;             // rows on their way that mac does not load yet

    RingShare share_of(int units, int steps, int tiles) const {
#pragma HLS inline
        const int rows = ceil_div(units * steps, tiles);
        const int grains = rows / grain_rows;
        RingShare share;
        share.words = grains * grain_words;
        share.rest = rows - grains * grain_rows;
        return share;
    }

    // byte_rows: weight rows of a step of V
    void start(const Shape& shape, int tiles, int byte_rows) {
#pragma HLS inline
        grain_rows = shape.ring == RING_K ? shape.steps : byte_rows;
        grain_words = shape.ring == RING_K ? shape.ring_words : 2;
        full.words = full.rest = last.words = last.rest = spare = 0;
        // Rounds 0 and 1 are not spread.
        if (shape.ring != RING_NONE && shape.units > 2 * shape.per_round) {
            const int tail = shape.units % shape.per_round;
            full = share_of(shape.per_round, shape.steps, tiles);
            last = share_of(tail ? tail : shape.per_round, shape.steps, tiles);
        }
    }

    // Words of the next tile's slot.
    int take(bool of_last) {
#pragma HLS inline
        const RingShare share = of_last ? last : full;
        const bool more = spare < share.rest;
        spare += (more ? grain_rows : 0) - share.rest;
        return share.words + (more ? grain_words : 0);
    }
};

}  // namespace lda

#endif
