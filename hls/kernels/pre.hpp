// pre: from stored values to operands. Four processes in a dataflow region, each of which steps
// through the whole program by itself:
//
//     xs -> rows --rows--------------------> apply -> px
//             \--row_sums--> scale --scales--> |  \-> ss
//     pp,st -> sums --eps,group_sums--^        |
//               \----------params--------------^
#ifndef LDA_PRE_HPP
#define LDA_PRE_HPP

#include "pre_apply.hpp"
#include "pre_rows.hpp"
#include "pre_scale.hpp"
#include "pre_sums.hpp"

namespace lda {

// Simulations run the four processes by themselves, with streams of these depths.
template <class P>
void pre(const Segment* segments, int segment_count, const PreEntry* entries,
         StatsMemory<P>& stats_memory, ApplyMemory<P>& apply_memory, hls::stream<Word>& xs_s,
         hls::stream<Word>& pp_s, hls::stream<StatWord>& st_s, hls::stream<Word>& px_s,
         hls::stream<int32_t>& ss_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<RowWord, P::DEPTH_ROWS> rows("rows");
    hls::stream<Sums, P::DEPTH_ROW_SUMS> row_sums("row_sums");
    hls::stream<Sums, P::DEPTH_GROUP_SUMS> group_sums("group_sums");
    hls::stream<int64_t, P::DEPTH_EPS> eps("eps");
    hls::stream<Word, P::DEPTH_PARAMS> params("params");
    hls::stream<Scale, P::DEPTH_SCALES> scales("scales");
    pre_rows<P>(segments, segment_count, entries, xs_s, rows, row_sums);
    pre_sums<P>(segments, segment_count, entries, stats_memory, pp_s, st_s, params, eps,
                group_sums);
    pre_scale<P>(segments, segment_count, entries, eps, row_sums, group_sums, scales);
    pre_apply<P>(segments, segment_count, entries, apply_memory, rows, params, scales, px_s, ss_s);
}

}  // namespace lda

#endif
