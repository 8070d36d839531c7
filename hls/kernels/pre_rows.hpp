// First process of pre: joins the planes of xs words and, for layer norm and softmax, sums up every
// row (the channels of one pixel).
//
// rows: one RowWord per fill pixel, source, block. row_sums: with every such word of a layer norm
// (sum, sum of squares) or softmax (maximum) the Sums of the row so far. Only those that come with
// a row's last word count; the others keep the next process moving, whose results would otherwise
// wait in its pipeline until later rows are complete.
#ifndef LDA_PRE_ROWS_HPP
#define LDA_PRE_ROWS_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "words.hpp"

namespace lda {

// Adds the first `valid` lanes of a word to the sums.
inline void add_lanes(const RowWord& word, int valid, Sums& sums) {
#pragma HLS inline
    int32_t sum = 0;
    int64_t square = 0;
LANES:
    for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
        const int32_t q = l < valid ? word.q[l] : 0;
        sum += q;
        square += uint32_t(q * q);
    }
    sums.sum += sum;
    sums.square += square;
}

// Largest of `least_so_far` and the first `valid` lanes.
inline int32_t largest_lane(const RowWord& word, int valid, int32_t least_so_far) {
#pragma HLS inline
    int32_t largest = least_so_far;
LANES:
    for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
        const int32_t q = l < valid ? word.q[l] : -32768;
        largest = q > largest ? q : largest;
    }
    return largest;
}

template <class P>
void pre_rows_entry(const PreEntry& entry, hls::stream<Word>& xs_s, hls::stream<RowWord>& rows_s,
                    hls::stream<Sums>& row_sums_s) {
#pragma HLS inline off
    int words = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) words += entry.blocks[s] * entry.planes[s];
    }
    const int total = entry.fill * words;
    const bool sums_rows = entry.norm == NORM_LAYER || entry.norm == NORM_SOFTMAX;
    int source = 0, block = 0, plane = 0;
    Word low = Word();
    Sums sums = {0, 0};
    int32_t largest = -32768;
WORDS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        const Word word = xs_s.read();
        const bool wide = entry.planes[source] == 2;
        RowWord row;
        if (wide) {
            join_planes(low, word, row.q);
        } else {
            widen(word, row.q);
        }
        low = word;
        if (++plane == entry.planes[source]) {
            plane = 0;
            rows_s.write(row);
            if (sums_rows) {
                const int valid = entry.valid - block * WORD_BYTES;
                if (entry.norm == NORM_LAYER) {
                    add_lanes(row, valid, sums);
                } else {
                    largest = largest_lane(row, valid, largest);
                    sums.sum = largest;
                }
                row_sums_s.write(sums);
            }
            if (++block == entry.blocks[source]) {
                block = 0;
                if (++source == entry.sources) {
                    source = 0;
                    sums.sum = sums.square = 0;
                    largest = -32768;
                }
            }
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_rows(const Segment* segments, int segment_count, const PreEntry* entries,
              hls::stream<Word>& xs_s, hls::stream<RowWord>& rows_s,
              hls::stream<Sums>& row_sums_s) {
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_rows_entry<P>(entry, xs_s, rows_s, row_sums_s);
            }
        }
    }
}

}  // namespace lda

#endif
