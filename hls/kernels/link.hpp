// The line of ranks, shared by gather and reduce: every rank sends one element at a time to all
// ranks. Rightward, rank r sends the elements of ranks 0..r to rank r + 1; leftward, those of
// ranks r..R-1 to rank r - 1. Neither direction ever waits for the other, so there is no circle.
//
//                     +--------------------- right ---> to_right
//     from_left --->--+--left_s---+
//     px or st --> copy --own_s---+-> join
//     from_right -->--+--right_s--+
//                     +--------------------- left ----> to_left
//
// The ends of the line have no process `right` or `left`: their copy sends to the neighbour, and
// what comes from the neighbour goes to join. One rank alone has no copy either.
//
// `Many<N>` is what N ranks send at once (Beat, StatBeat), `One` what one sends (Word, StatWord);
// `link_words(entry)` is the number of elements of an execution.
#ifndef LDA_LINK_HPP
#define LDA_LINK_HPP

#include "program.hpp"
#include "types.hpp"

namespace lda {

// Where there is no neighbour.
struct NoLink {};

template <int FIRST, template <int> class Many, int N, int RANKS>
inline void take(hls::stream<Many<N>>& from_s, Many<RANKS>& all) {
#pragma HLS inline
    const Many<N> some = from_s.read();
RANKS:
    for (int r = 0; r < N; ++r) {
#pragma HLS unroll
        all.b[FIRST + r] = some.b[r];
    }
}

template <int FIRST, template <int> class Many, int RANKS>
inline void take(NoLink&, Many<RANKS>&) {
#pragma HLS inline
}

// The elements of all ranks.
template <int RANK, template <int> class Many, class One, int RANKS, class Left, class Right>
inline void take_all(Left& left_s, hls::stream<One>& own_s, Right& right_s, Many<RANKS>& all) {
#pragma HLS inline
    take<0>(left_s, all);
    all.b[RANK] = own_s.read();
    take<RANK + 1>(right_s, all);
}

// At an end of the line: `link_s` leads to the only neighbour.
template <class Entry, template <int> class Many, class One>
void link_copy(const Segment* segments, int segment_count, const Entry* entries,
               hls::stream<One>& in_s, hls::stream<Many<1>>& link_s, hls::stream<One>& own_s) {
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
#pragma HLS loop_tripcount min = 0 max = 65536
                    TICK(1);
                    Many<1> one;
                    one.b[0] = in_s.read();
                    link_s.write(one);
                    own_s.write(one.b[0]);
                }
                LOOP_EXIT();
            }
        }
    }
}

// Within the line.
template <class Entry, class One>
void link_copy(const Segment* segments, int segment_count, const Entry* entries,
               hls::stream<One>& in_s, hls::stream<One>& rightward_s, hls::stream<One>& leftward_s,
               hls::stream<One>& own_s) {
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
#pragma HLS loop_tripcount min = 0 max = 65536
                    TICK(1);
                    const One one = in_s.read();
                    rightward_s.write(one);
                    leftward_s.write(one);
                    own_s.write(one);
                }
                LOOP_EXIT();
            }
        }
    }
}

// Passes on what `from_s` brings, with this rank's own element before (leftward, AHEAD = 1) or
// behind it (rightward, AHEAD = 0); join gets what came.
template <int AHEAD, class Entry, template <int> class Many, class One, int N, int MORE>
void link_pass(const Segment* segments, int segment_count, const Entry* entries,
               hls::stream<Many<N>>& from_s, hls::stream<One>& own_s, hls::stream<Many<MORE>>& to_s,
               hls::stream<Many<N>>& join_s) {
    static_assert(MORE == N + 1, "a rank adds its own element");
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
#pragma HLS loop_tripcount min = 0 max = 65536
                    TICK(1);
                    const Many<N> some = from_s.read();
                    Many<MORE> more;
                    for (int r = 0; r < N; ++r) {
#pragma HLS unroll
                        more.b[AHEAD + r] = some.b[r];
                    }
                    more.b[AHEAD ? 0 : N] = own_s.read();
                    to_s.write(more);
                    join_s.write(some);
                }
                LOOP_EXIT();
            }
        }
    }
}

}  // namespace lda

#endif
