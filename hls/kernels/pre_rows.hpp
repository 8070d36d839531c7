// Third process of pre: owns the scales of rows (layer norm, softmax). Per execution: keeps those
// of the octets that the execution before has made (layer norm: rk; softmax: mk), and then sends
// those of its own fill octets (rw); with `rows_first` the other way round, so that the products
// with V of the first pairs (item, head) do not wait for the last logits.
//
// Where the following execution reads the rows of this one, or those of the following segment the
// rows of those of this one in the same order, the first `rows_ahead` of them are sent as soon as
// they are known, and those executions leave out as many (`rows_sent`): they follow tile by tile.
// The FIFO rw holds all that wait.
#ifndef LDA_PRE_ROWS_HPP
#define LDA_PRE_ROWS_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"

namespace lda {

template <class P>
struct RowsMemory {
    ScaleWord rows[P::ROW_OCTETS];
};

template <class P>
void send_row_scales(const PreEntry& entry, int i0, int i1, const RowsMemory<P>& memory,
                     hls::stream<ScaleWord>& rw_s) {
#pragma HLS inline off
    const int first = at(entry.row_in, i0, i1), octets = entry.shape.fill;
    LDA_CHECK(first >= 0 && first + octets <= P::ROW_OCTETS,
              "pre: row statistics outside of their memory");
    // or statistics would be held up that this execution, or the one before, makes before the fill
    // ends: those that were sent ahead are in the way of the others
    LDA_CHECK((entry.stats < STATS_LAYER && entry.rows_first == 0) || octets <= P::DEPTH_RW,
              "pre: more rows than FIFO rw holds");
OCTETS:
    for (int i = entry.rows_sent; i < octets; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 4 max = 1024
        TICK(1);
        rw_s.write(memory.rows[first + i]);
    }
    LOOP_EXIT();
}

// Rows that an execution makes.
struct RowsMade {
    int32_t first, octets, ahead;
    bool layer;
};

inline RowsMade rows_made(const PreEntry& entry, int i0, int i1) {
#pragma HLS inline
    const bool layer = entry.stats == STATS_LAYER;
    const bool some = layer || entry.stats == STATS_SOFTMAX;
    const RowsMade made = {at(entry.row_out, i0, i1), some ? entry.stat_words : 0, entry.rows_ahead,
                           layer};
    return made;
}

// Whether an execution reads other rows.
inline bool apart(const PreEntry& entry, int i0, int i1, const RowsMade& made) {
#pragma HLS inline
    const int first = at(entry.row_in, i0, i1);
    return made.octets == 0 || first + entry.shape.fill <= made.first ||
           made.first + made.octets <= first;
}

template <class P>
void keep_row_scales(const RowsMade& made, RowsMemory<P>& memory,
                     hls::stream<ScaleSet<P::NORMALISERS>>& rk_s, hls::stream<MaxWord>& mk_s,
                     hls::stream<ScaleWord>& rw_s) {
#pragma HLS inline off
    const int N = P::NORMALISERS, first = made.first;
    LDA_CHECK(first >= 0 && first + made.octets <= P::ROW_OCTETS,
              "pre: row statistics outside of their memory");
    LDA_CHECK(made.ahead <= P::DEPTH_RW, "pre: more rows ahead than FIFO rw holds");
    int octet = 0, pixel = 0;
    ScaleWord word = ScaleWord();
#pragma HLS array_partition variable = word.s complete
OCTETS:
    while (octet < made.octets) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 4096
        TICK(1);
        if (made.layer) {
            const ScaleSet<P::NORMALISERS> scales = rk_s.read();
            for (int k = 0; k < N; ++k) {
#pragma HLS unroll
                word.s[pixel + k] = scales.s[k];
            }
            pixel += N;
        } else {
            const MaxWord maxima = mk_s.read();
            for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
                const Scale maximum = {maxima.m[k], 0, 0};
                word.s[k] = maximum;
            }
            pixel = GROUP;
        }
        if (pixel == GROUP) {
            pixel = 0;
            memory.rows[first + octet] = word;
            if (octet < made.ahead) rw_s.write(word);
            ++octet;
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_rows(const Segment* segments, int segment_count, const PreEntry* entries,
              RowsMemory<P>& memory, hls::stream<ScaleSet<P::NORMALISERS>>& rk_s,
              hls::stream<MaxWord>& mk_s, hls::stream<ScaleWord>& rw_s) {
    RowsMade made = {0, 0, 0, false};  // by the execution before
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    OUTER:
        for (int i0 = 0; i0 < segment.n0; ++i0) {
        INNER:
            for (int i1 = 0; i1 < segment.n1; ++i1) {
            ENTRIES:
                for (int k = 0; k < segment.count; ++k) {
                    const PreEntry entry = entries[segment.first + k];
                    const bool reads = entry.norm == NORM_LAYER || entry.norm == NORM_SOFTMAX;
                    const bool first = entry.rows_first != 0;
                    LDA_CHECK(!reads || !first || apart(entry, i0, i1, made),
                              "pre: rows are sent before they are kept");
                    if (reads && first) send_row_scales<P>(entry, i0, i1, memory, rw_s);
                    if (made.octets > 0) keep_row_scales<P>(made, memory, rk_s, mk_s, rw_s);
                    if (reads && !first) send_row_scales<P>(entry, i0, i1, memory, rw_s);
                    made = rows_made(entry, i0, i1);
                }
            }
        }
    }
    if (made.octets > 0) keep_row_scales<P>(made, memory, rk_s, mk_s, rw_s);
}

}  // namespace lda

#endif
