// Second process of pre: turns sums into mean and reciprocal standard deviation, NORMALISERS at a
// time. Per execution: takes the header, then makes the scales of its group norm (sc), and then
// those of the rows of its destination, if a layer norm reads it (rk).
//
// sc: per item, NORMALISERS norm groups at a time. rk: per octet, NORMALISERS pixels at a time.
#ifndef LDA_PRE_SCALE_HPP
#define LDA_PRE_SCALE_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "words.hpp"

namespace lda {

template <class P>
void make_scales(int total, int32_t n, int64_t epsilon, hls::stream<SumSet<P::NORMALISERS>>& sm_s,
                 hls::stream<ScaleSet<P::NORMALISERS>>& scales_s) {
#pragma HLS inline off
SCALES:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 8 max = 4096
        TICK(1);
        const SumSet<P::NORMALISERS> sums = sm_s.read();
        ScaleSet<P::NORMALISERS> scales;
        for (int k = 0; k < P::NORMALISERS; ++k) {
#pragma HLS unroll
            scales.s[k] = normaliser(sums.sum[k], sums.square[k], n, epsilon);
        }
        scales_s.write(scales);
    }
    LOOP_EXIT();
}

template <class P>
void pre_scale_entry(const PreEntry& entry, hls::stream<Word>& hd_s,
                     hls::stream<SumSet<P::NORMALISERS>>& sm_s,
                     hls::stream<ScaleSet<P::NORMALISERS>>& sc_s,
                     hls::stream<ScaleSet<P::NORMALISERS>>& rk_s) {
#pragma HLS inline off
    const Word header = hd_s.read();
    if (entry.norm == NORM_GROUP) {
        const int sets = entry.items * ceil_div(entry.norm_groups, P::NORMALISERS);
        // or statistics would be held up that the execution makes before its fill ends, or those of
        // the execution before
        LDA_CHECK((entry.stats == STATS_NONE && entry.sums_before == 0) || sets <= P::DEPTH_SC,
                  "pre: more scales than FIFO sc holds");
        make_scales<P>(sets, entry.n, int64_at(header, 0), sm_s, sc_s);
    }
    if (entry.stats == STATS_LAYER) {
        make_scales<P>(entry.stat_words * (GROUP / P::NORMALISERS), int32_at(header, 4),
                       int64_at(header, 1), sm_s, rk_s);
    }
}

template <class P>
void pre_scale(const Segment* segments, int segment_count, const PreEntry* entries,
               hls::stream<Word>& hd_s, hls::stream<SumSet<P::NORMALISERS>>& sm_s,
               hls::stream<ScaleSet<P::NORMALISERS>>& sc_s,
               hls::stream<ScaleSet<P::NORMALISERS>>& rk_s) {
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_scale_entry<P>(entry, hd_s, sm_s, sc_s, rk_s);
            }
        }
    }
}

}  // namespace lda

#endif
