// pre: from stored values to operands. Four processes in a dataflow region, each of which steps
// through the whole program by itself:
//
//     sg -> sums --sm--> scale --sc-----------------v
//             \    hd ----^  \---rk--> rows --rw--> apply -> px
//              \---------------mk------^             ^
//     pp, xs ----------------------------------------/
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
         SumsMemory<P>& sums_memory, RowsMemory<P>& rows_memory, ApplyMemory<P>& apply_memory,
         hls::stream<Word>& hd_s, hls::stream<Word>& pp_s, hls::stream<Pair>& xs_s,
         hls::stream<StatBeat<P::RANKS>>& sg_s, hls::stream<Word>& px_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<SumSet<P::NORMALISERS>, P::DEPTH_SM> sm_s("sm_s");
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_SC> sc_s("sc_s");
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_RK> rk_s("rk_s");
    hls::stream<MaxWord, P::DEPTH_MK> mk_s("mk_s");
    hls::stream<ScaleWord, P::DEPTH_RW> rw_s("rw_s");
    pre_sums<P>(segments, segment_count, entries, sums_memory, sg_s, sm_s, mk_s);
    pre_scale<P>(segments, segment_count, entries, hd_s, sm_s, sc_s, rk_s);
    pre_rows<P>(segments, segment_count, entries, rows_memory, rk_s, mk_s, rw_s);
    pre_apply<P>(segments, segment_count, entries, apply_memory, pp_s, xs_s, sc_s, rw_s, px_s);
}

}  // namespace lda

#endif
