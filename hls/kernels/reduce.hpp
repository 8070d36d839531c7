// reduce: sends the statistics that every rank's post has made to all ranks: st -> sg. pre.sums
// combines them.
//
// Processes of rank r of R (link.hpp draws the line). Streams inside, all of depth DEPTH_COPY:
//     own_s, rightward_s, leftward_s   StatWord      copy -> join, right, left
//     left_s, right_s                  StatBeat<n>   right, left -> join
//         R = 1           join(st)
//         r = 0           copy(st; to_right, own), join(own, from_right)
//         0 < r < R - 1   copy(st; rightward, leftward, own), right(from_left, rightward; to_right,
//                         left), left(from_right, leftward; to_left, right), join
//         r = R - 1       copy(st; to_left, own), join(from_left, own)
#ifndef LDA_REDUCE_HPP
#define LDA_REDUCE_HPP

#include "link.hpp"
#include "params.hpp"
#include "program.hpp"
#include "types.hpp"

namespace lda {

inline int link_words(const ReduceEntry& entry) {
#pragma HLS inline
    return entry.stat_words;
}

template <class P>
void reduce_copy(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatWord>& st_s, hls::stream<StatBeat<1>>& link_s,
                 hls::stream<StatWord>& own_s) {
    link_copy(segments, segment_count, entries, st_s, link_s, own_s);
}

template <class P>
void reduce_copy(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatWord>& st_s, hls::stream<StatWord>& rightward_s,
                 hls::stream<StatWord>& leftward_s, hls::stream<StatWord>& own_s) {
    link_copy(segments, segment_count, entries, st_s, rightward_s, leftward_s, own_s);
}

template <class P, int RANK>
void reduce_right(const Segment* segments, int segment_count, const ReduceEntry* entries,
                  hls::stream<StatBeat<RANK>>& from_left_s, hls::stream<StatWord>& rightward_s,
                  hls::stream<StatBeat<RANK + 1>>& to_right_s,
                  hls::stream<StatBeat<RANK>>& left_s) {
    link_pass<0>(segments, segment_count, entries, from_left_s, rightward_s, to_right_s, left_s);
}

template <class P, int RANK>
void reduce_left(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatBeat<P::RANKS - 1 - RANK>>& from_right_s,
                 hls::stream<StatWord>& leftward_s,
                 hls::stream<StatBeat<P::RANKS - RANK>>& to_left_s,
                 hls::stream<StatBeat<P::RANKS - 1 - RANK>>& right_s) {
    link_pass<1>(segments, segment_count, entries, from_right_s, leftward_s, to_left_s, right_s);
}

template <class P, int RANK, class Left, class Right>
void reduce_all(const Segment* segments, int segment_count, const ReduceEntry* entries,
                Left& left_s, hls::stream<StatWord>& own_s, Right& right_s,
                hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const int total = link_words(entries[segment.first + k]);
            WORDS:
                for (int w = 0; w < total; ++w) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 0 max = 1024
                    TICK(1);
                    StatBeat<P::RANKS> beat;
                    take_all<RANK>(left_s, own_s, right_s, beat);
                    sg_s.write(beat);
                }
                LOOP_EXIT();
            }
        }
    }
}

template <class P, int RANK>
void reduce_join(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatBeat<RANK>>& left_s, hls::stream<StatWord>& own_s,
                 hls::stream<StatBeat<P::RANKS - 1 - RANK>>& right_s,
                 hls::stream<StatBeat<P::RANKS>>& sg_s) {
    reduce_all<P, RANK>(segments, segment_count, entries, left_s, own_s, right_s, sg_s);
}

template <class P>
void reduce_join_first(const Segment* segments, int segment_count, const ReduceEntry* entries,
                       hls::stream<StatWord>& own_s, hls::stream<StatBeat<P::RANKS - 1>>& right_s,
                       hls::stream<StatBeat<P::RANKS>>& sg_s) {
    NoLink left;
    reduce_all<P, 0>(segments, segment_count, entries, left, own_s, right_s, sg_s);
}

template <class P>
void reduce_join_last(const Segment* segments, int segment_count, const ReduceEntry* entries,
                      hls::stream<StatBeat<P::RANKS - 1>>& left_s, hls::stream<StatWord>& own_s,
                      hls::stream<StatBeat<P::RANKS>>& sg_s) {
    NoLink right;
    reduce_all<P, P::RANKS - 1>(segments, segment_count, entries, left_s, own_s, right, sg_s);
}

template <class P>
void reduce_join_only(const Segment* segments, int segment_count, const ReduceEntry* entries,
                      hls::stream<StatWord>& st_s, hls::stream<StatBeat<P::RANKS>>& sg_s) {
    NoLink left, right;
    reduce_all<P, 0>(segments, segment_count, entries, left, st_s, right, sg_s);
}

// The kernel of each kind of rank; simulations run the processes by themselves.
template <class P>
void reduce_only(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatWord>& st_s, hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS inline
    reduce_join_only<P>(segments, segment_count, entries, st_s, sg_s);
}

template <class P>
void reduce_first(const Segment* segments, int segment_count, const ReduceEntry* entries,
                  hls::stream<StatWord>& st_s, hls::stream<StatBeat<P::RANKS - 1>>& from_right_s,
                  hls::stream<StatBeat<1>>& to_right_s, hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<StatWord, P::DEPTH_COPY> own_s("own_s");
    reduce_copy<P>(segments, segment_count, entries, st_s, to_right_s, own_s);
    reduce_join_first<P>(segments, segment_count, entries, own_s, from_right_s, sg_s);
}

template <class P, int RANK>
void reduce_middle(const Segment* segments, int segment_count, const ReduceEntry* entries,
                   hls::stream<StatWord>& st_s, hls::stream<StatBeat<RANK>>& from_left_s,
                   hls::stream<StatBeat<P::RANKS - 1 - RANK>>& from_right_s,
                   hls::stream<StatBeat<P::RANKS - RANK>>& to_left_s,
                   hls::stream<StatBeat<RANK + 1>>& to_right_s,
                   hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<StatWord, P::DEPTH_COPY> rightward_s("rightward_s");
    hls::stream<StatWord, P::DEPTH_COPY> leftward_s("leftward_s");
    hls::stream<StatWord, P::DEPTH_COPY> own_s("own_s");
    hls::stream<StatBeat<RANK>, P::DEPTH_COPY> left_s("left_s");
    hls::stream<StatBeat<P::RANKS - 1 - RANK>, P::DEPTH_COPY> right_s("right_s");
    reduce_copy<P>(segments, segment_count, entries, st_s, rightward_s, leftward_s, own_s);
    reduce_right<P, RANK>(segments, segment_count, entries, from_left_s, rightward_s, to_right_s,
                          left_s);
    reduce_left<P, RANK>(segments, segment_count, entries, from_right_s, leftward_s, to_left_s,
                         right_s);
    reduce_join<P, RANK>(segments, segment_count, entries, left_s, own_s, right_s, sg_s);
}

template <class P>
void reduce_last(const Segment* segments, int segment_count, const ReduceEntry* entries,
                 hls::stream<StatWord>& st_s, hls::stream<StatBeat<P::RANKS - 1>>& from_left_s,
                 hls::stream<StatBeat<1>>& to_left_s, hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<StatWord, P::DEPTH_COPY> own_s("own_s");
    reduce_copy<P>(segments, segment_count, entries, st_s, to_left_s, own_s);
    reduce_join_last<P>(segments, segment_count, entries, from_left_s, own_s, sg_s);
}

}  // namespace lda

#endif
