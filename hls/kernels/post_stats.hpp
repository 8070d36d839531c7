// Sums over stored values: of 8 channels over the pixels of an item (group norm), of 8 pixels over
// the channels (layer norm), or the maxima of 8 pixels (softmax).
#ifndef LDA_POST_STATS_HPP
#define LDA_POST_STATS_HPP

#include "arithmetic.hpp"
#include "params.hpp"
#include "post_word.hpp"
#include "program.hpp"
#include "types.hpp"

namespace lda {

// Iterations from a write to a memory of post to the first one that reads it. Sums: a unit has at
// least two words in a tile visit, so an output group and item comes back after three, unless it
// is the next one, which has its sums in a register.
static const int POST_DISTANCE = 3;

struct StatSums {
    int32_t sum[GROUP];
    int64_t square[GROUP];
};

inline StatSums empty_sums(bool maxima) {
#pragma HLS inline
    StatSums sums;
    for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
        sums.sum[k] = maxima ? -32768 : 0;
        sums.square[k] = 0;
    }
    return sums;
}

inline StatWord stat_word(const StatSums& sums) {
#pragma HLS inline
    StatWord word;
    for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
        word.sum[k] = sums.sum[k];
        set_square(word, k, sums.square[k]);
    }
    return word;
}

inline StatSums sums_of(const StatWord& word) {
#pragma HLS inline
    StatSums sums;
    for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
        sums.sum[k] = word.sum[k];
        sums.square[k] = square_at(word, k);
    }
    return sums;
}

// Adds an octet of which `pixels` are pixels.
inline StatSums add_octet(const StatSums& before, const ResultWord& result, int stats, int pixels,
                          const WordScale& scale) {
#pragma HLS inline
    const bool by_pixel = stats == STATS_LAYER || stats == STATS_SOFTMAX;
    const bool maxima = stats == STATS_SOFTMAX;
    StatSums after;
SUMS:
    for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
        int32_t sum = 0, top = -32768;
        int64_t square = 0;
        for (int j = 0; j < GROUP; ++j) {
#pragma HLS unroll
            const int pixel = by_pixel ? k : j, output = by_pixel ? j : k;
            const bool valid = pixel < pixels;
            const int32_t y = valid ? result.y[pixel * GROUP + output] : 0;
            sum += y;
            square += uint32_t(y * y);
            if (valid && scale.counts[output] && y > top) top = y;
        }
        const int32_t kept = before.sum[k];
        after.sum[k] = !maxima ? kept + sum : top > kept ? top : kept;
        after.square[k] = maxima ? 0 : before.square[k] + square;
    }
    return after;
}

// Sums of a round's output groups and items. Two memories with the same contents: one to add to,
// one to send from.
template <class P>
struct GroupSums {
    StatWord sums[P::UNITS * P::ITEMS];
    StatWord sent[P::UNITS * P::ITEMS];
};

// Sends a round's sums beside the words of its tiles: item by item behind the tile that finishes
// the item, or output group by output group behind the last tile, which finishes all items.
struct StatSender {
    int32_t group, item;     // the next one
    int32_t groups, items;   // of the round
    int32_t left, finished;  // sums that are to be sent, that are in memory by now
    int32_t together;        // sums that are finished at a time
    uint32_t closing;        // whether the last POST_DISTANCE iterations finished some
    bool by_item;

    void start(int groups_now, int items_now, bool item_by_item) {
#pragma HLS inline
        group = item = finished = 0;
        groups = groups_now;
        items = items_now;
        left = groups_now * items_now;
        by_item = item_by_item;
        together = item_by_item ? 1 : items_now;
        closing = 0;
    }

    bool ready() const { return finished > 0; }

    void next() {
#pragma HLS inline
        --left;
        --finished;
        if (by_item) {
            if (++group == groups) {
                group = 0;
                ++item;
            }
        } else if (++item == items) {
            item = 0;
            ++group;
        }
    }

    // At the end of an iteration.
    void pass(bool closes) {
#pragma HLS inline
        closing = (closing << 1) | (closes ? 1u : 0u);
        finished += (closing >> (POST_DISTANCE - 1)) & 1u ? together : 0;
    }
};

}  // namespace lda

#endif
