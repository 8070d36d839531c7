// pre: from stored values to operands. Two processes in a dataflow region, each of which steps
// through the whole program by itself:
//
//     hd, sg -> norm --sc (Scale), rw (ScaleWord)--+
//     pp, xs -----------------------------------> apply -> px
#ifndef LDA_PRE_HPP
#define LDA_PRE_HPP

#include "pre_apply.hpp"
#include "pre_norm.hpp"

namespace lda {

// Simulations run the two processes by themselves, with streams of these depths.
template <class P>
void pre(const Segment* segments, int segment_count, const PreEntry* entries,
         NormMemory<P>& norm_memory, ApplyMemory<P>& apply_memory, hls::stream<Word>& hd_s,
         hls::stream<Word>& pp_s, hls::stream<Pair>& xs_s, hls::stream<StatBeat<P::RANKS>>& sg_s,
         hls::stream<Word>& px_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<Scale, P::DEPTH_SC> sc_s("sc_s");
    hls::stream<ScaleWord, P::DEPTH_RW> rw_s("rw_s");
    pre_norm<P>(segments, segment_count, entries, norm_memory, hd_s, sg_s, sc_s, rw_s);
    pre_apply<P>(segments, segment_count, entries, apply_memory, pp_s, xs_s, sc_s, rw_s, px_s);
}

}  // namespace lda

#endif
