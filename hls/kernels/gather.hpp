// gather: every rank reads the whole input. Joins the px words of all ranks into Beats (gs), makes
// the weight rows of this rank out of ring weights (ks), and sums up the operands of softmax rows
// (ss).
//
// Processes of rank r of R (link.hpp draws the line). Streams inside, all of depth DEPTH_COPY:
//     own_s, rightward_s, leftward_s   Word      copy -> join, right, left
//     left_s, right_s                  Beat<n>   right, left -> join
//     kept_s                           Beat<R>   join -> rows: ring weights that this rank keeps
//         R = 1           join(px), rows
//         r = 0           copy(px; to_right, own), join(own, from_right), rows
//         0 < r < R - 1   copy(px; rightward, leftward, own), right(from_left, rightward; to_right,
//                         left), left(from_right, leftward; to_left, right), join, rows
//         r = R - 1       copy(px; to_left, own), join(from_left, own), rows
#ifndef LDA_GATHER_HPP
#define LDA_GATHER_HPP

#include "link.hpp"
#include "params.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// Local groups of all sources: Beats of a fill octet.
inline int octet_words(const GatherEntry& entry) {
#pragma HLS inline
    int words = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
#pragma HLS unroll
        if (s < entry.sources) words += entry.groups[s];
    }
    return words;
}

inline int link_words(const GatherEntry& entry) {
#pragma HLS inline
    return ring_words_of(entry.shape, entry.shape.units) + entry.shape.fill * octet_words(entry);
}

template <class P>
void gather_copy(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Word>& px_s, hls::stream<Beat<1>>& link_s, hls::stream<Word>& own_s) {
    link_copy(segments, segment_count, entries, px_s, link_s, own_s);
}

template <class P>
void gather_copy(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Word>& px_s, hls::stream<Word>& rightward_s,
                 hls::stream<Word>& leftward_s, hls::stream<Word>& own_s) {
    link_copy(segments, segment_count, entries, px_s, rightward_s, leftward_s, own_s);
}

template <class P, int RANK>
void gather_right(const Segment* segments, int segment_count, const GatherEntry* entries,
                  hls::stream<Beat<RANK>>& from_left_s, hls::stream<Word>& rightward_s,
                  hls::stream<Beat<RANK + 1>>& to_right_s, hls::stream<Beat<RANK>>& left_s) {
    link_pass<0>(segments, segment_count, entries, from_left_s, rightward_s, to_right_s, left_s);
}

template <class P, int RANK>
void gather_left(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Beat<P::RANKS - 1 - RANK>>& from_right_s,
                 hls::stream<Word>& leftward_s, hls::stream<Beat<P::RANKS - RANK>>& to_left_s,
                 hls::stream<Beat<P::RANKS - 1 - RANK>>& right_s) {
    link_pass<1>(segments, segment_count, entries, from_right_s, leftward_s, to_left_s, right_s);
}

// Beats of one execution: fill to gs, ring weights that this rank keeps to `kept_s` (K: the token
// octets T with T mod R == RANK; V: its own words, in b[0]).
template <class P, int RANK, class Left, class Right>
void join_entry(const GatherEntry& entry, Left& left_s, hls::stream<Word>& own_s, Right& right_s,
                hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<Beat<P::RANKS>>& kept_s,
                hls::stream<SumWord>& ss_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const int beats = octet_words(entry);
    const int ring_first = ring_words_of(shape, least(shape.per_round, shape.units));
    const int fill_end = ring_first + shape.fill * beats;
    const int total = link_words(entry);
    // V of a joined product comes before K
    const int first_token = shape.pv_units * shape.pv_words;
    const bool has_tokens = shape.ring == RING_K;
    int group = 0, turn = 0;  // K: local group, rank whose token octet this is
    int beat_of_octet = 0;
    SumWord sums = SumWord();
#pragma HLS array_partition variable = sums.sum complete
BEATS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        Beat<P::RANKS> beat;
        take_all<RANK>(left_s, own_s, right_s, beat);
        const bool tokens = has_tokens && i >= first_token;
        if (i >= ring_first && i < fill_end) {
            gs_s.write(beat);
            if (entry.row_sums) {
                for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
                    int32_t sum = beat_of_octet == 0 ? 0 : sums.sum[p];
                    for (int r = 0; r < P::RANKS; ++r) {
#pragma HLS unroll
                        for (int c = 0; c < GROUP; ++c) {
#pragma HLS unroll
                            sum += beat.b[r].b[p * GROUP + c];
                        }
                    }
                    sums.sum[p] = sum;
                }
                if (beat_of_octet == entry.groups[0] - 1) ss_s.write(sums);
            }
            if (++beat_of_octet == beats) beat_of_octet = 0;
        } else if (tokens) {
            if (turn == RANK) kept_s.write(beat);
            if (++group == entry.ring_groups) {
                group = 0;
                if (++turn == P::RANKS) turn = 0;
            }
        } else {
            beat.b[0] = beat.b[RANK];
            kept_s.write(beat);
        }
    }
    LOOP_EXIT();
}

template <class P, int RANK, class Left, class Right>
void join_all(const Segment* segments, int segment_count, const GatherEntry* entries, Left& left_s,
              hls::stream<Word>& own_s, Right& right_s, hls::stream<Beat<P::RANKS>>& gs_s,
              hls::stream<Beat<P::RANKS>>& kept_s, hls::stream<SumWord>& ss_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const GatherEntry entry = entries[segment.first + k];
                join_entry<P, RANK>(entry, left_s, own_s, right_s, gs_s, kept_s, ss_s);
            }
        }
    }
}

template <class P, int RANK>
void gather_join(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Beat<RANK>>& left_s, hls::stream<Word>& own_s,
                 hls::stream<Beat<P::RANKS - 1 - RANK>>& right_s, hls::stream<Beat<P::RANKS>>& gs_s,
                 hls::stream<Beat<P::RANKS>>& kept_s, hls::stream<SumWord>& ss_s) {
    join_all<P, RANK>(segments, segment_count, entries, left_s, own_s, right_s, gs_s, kept_s, ss_s);
}

template <class P>
void gather_join_first(const Segment* segments, int segment_count, const GatherEntry* entries,
                       hls::stream<Word>& own_s, hls::stream<Beat<P::RANKS - 1>>& right_s,
                       hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<Beat<P::RANKS>>& kept_s,
                       hls::stream<SumWord>& ss_s) {
    NoLink left;
    join_all<P, 0>(segments, segment_count, entries, left, own_s, right_s, gs_s, kept_s, ss_s);
}

template <class P>
void gather_join_last(const Segment* segments, int segment_count, const GatherEntry* entries,
                      hls::stream<Beat<P::RANKS - 1>>& left_s, hls::stream<Word>& own_s,
                      hls::stream<Beat<P::RANKS>>& gs_s, hls::stream<Beat<P::RANKS>>& kept_s,
                      hls::stream<SumWord>& ss_s) {
    NoLink right;
    join_all<P, P::RANKS - 1>(segments, segment_count, entries, left_s, own_s, right, gs_s, kept_s,
                              ss_s);
}

template <class P>
void gather_join_only(const Segment* segments, int segment_count, const GatherEntry* entries,
                      hls::stream<Word>& px_s, hls::stream<Beat<P::RANKS>>& gs_s,
                      hls::stream<Beat<P::RANKS>>& kept_s, hls::stream<SumWord>& ss_s) {
    NoLink left, right;
    join_all<P, 0>(segments, segment_count, entries, left, px_s, right, gs_s, kept_s, ss_s);
}

// A weight row of two words. K: byte = output*8 + input of each; V: input*8 + output.
inline WeightRow<8> row_of(const Word& low, const Word& high, bool transposed) {
#pragma HLS inline
    WeightRow<8> row;
BYTES:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        for (int i = 0; i < SUB; ++i) {
#pragma HLS unroll
            const int j = i % GROUP;
            const Word& word = i < GROUP ? low : high;
            row.b[o * SUB + i] = word.b[transposed ? j * GROUP + o : o * GROUP + j];
        }
    }
    return row;
}

// Rows of the units of one product: `values`: with V.
template <class P>
void rows_entry(const GatherEntry& entry, bool values, int units,
                hls::stream<Beat<P::RANKS>>& kept_s, hls::stream<WeightRow<8>>& ks_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const bool joined = values && shape.pv_units > 0;
    const int ring_words = joined ? shape.pv_words : shape.ring_words;
    const int steps = (joined ? shape.pv_steps : shape.steps) / byte_rows<P>();
    // words of a kept Beat that are weights; a row takes two words
    const int width = values ? 1 : P::RANKS;
    const int parts = width > 1 ? width / 2 : 1;
    const int beats = values ? ring_words : entry.ring_groups;  // of a unit
    const int valid = values ? beats : entry.ring_valid;        // words of a unit
    const int total = units * beats * parts;
    LDA_CHECK(values || ring_words == P::RANKS * entry.ring_groups,
              "gather: ring words of K are not those of R token octets");
    LDA_CHECK(!values || ring_words == 2 * steps, "gather: ring words of V are not two per step");
    int beat = 0, part = 0, word = 0;  // within the unit; word: first of this part
    Beat<P::RANKS> kept = Beat<P::RANKS>();
    const Word none = Word();
    Word before = none;
ROWS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 0 max = 8192
        TICK(1);
        if (part == 0) kept = kept_s.read();
        const bool last = beat == beats - 1;
        const int step = word / 2 - (values ? 0 : entry.ring_first);
        const bool due = step >= 0 && step < steps;
        const int b = 2 * part;
        const Word first = word < valid ? kept.b[b] : none;
        if (width > 1) {
            const Word second = word + 1 < valid ? kept.b[(b + 1) % P::RANKS] : none;
            if (due) ks_s.write(row_of(first, second, false));
            word += 2;
        } else {
            const bool odd = word & 1;
            if (due && (odd || last)) {
                ks_s.write(row_of(odd ? before : first, odd ? first : none, values));
            }
            before = first;
            ++word;
        }
        if (++part == parts) {
            part = 0;
            ++beat;
            if (last) beat = word = 0;
        }
    }
    LOOP_EXIT();
}

template <class P>
void gather_rows(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Beat<P::RANKS>>& kept_s, hls::stream<WeightRow<8>>& ks_s) {
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const GatherEntry entry = entries[segment.first + k];
                // joined: V, then K
                const bool ring = entry.shape.ring != RING_NONE;
                const int joined = entry.shape.pv_units > 0 ? 1 : 0;
            PRODUCTS:
                for (int product = 0; product <= joined; ++product) {
                    const bool values = joined ? product == 0 : entry.shape.ring == RING_V;
                    const int others = entry.shape.units - entry.shape.pv_units;
                    const int units = joined && values ? entry.shape.pv_units : others;
                    rows_entry<P>(entry, values, ring ? units : 0, kept_s, ks_s);
                }
            }
        }
    }
}

// The kernel of each kind of rank; simulations run the processes by themselves.
template <class P>
void gather_only(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Word>& px_s, hls::stream<Beat<P::RANKS>>& gs_s,
                 hls::stream<WeightRow<8>>& ks_s, hls::stream<SumWord>& ss_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<Beat<P::RANKS>, P::DEPTH_COPY> kept_s("kept_s");
    gather_join_only<P>(segments, segment_count, entries, px_s, gs_s, kept_s, ss_s);
    gather_rows<P>(segments, segment_count, entries, kept_s, ks_s);
}

template <class P>
void gather_first(const Segment* segments, int segment_count, const GatherEntry* entries,
                  hls::stream<Word>& px_s, hls::stream<Beat<P::RANKS - 1>>& from_right_s,
                  hls::stream<Beat<1>>& to_right_s, hls::stream<Beat<P::RANKS>>& gs_s,
                  hls::stream<WeightRow<8>>& ks_s, hls::stream<SumWord>& ss_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<Word, P::DEPTH_COPY> own_s("own_s");
    hls::stream<Beat<P::RANKS>, P::DEPTH_COPY> kept_s("kept_s");
    gather_copy<P>(segments, segment_count, entries, px_s, to_right_s, own_s);
    gather_join_first<P>(segments, segment_count, entries, own_s, from_right_s, gs_s, kept_s, ss_s);
    gather_rows<P>(segments, segment_count, entries, kept_s, ks_s);
}

template <class P, int RANK>
void gather_middle(const Segment* segments, int segment_count, const GatherEntry* entries,
                   hls::stream<Word>& px_s, hls::stream<Beat<RANK>>& from_left_s,
                   hls::stream<Beat<P::RANKS - 1 - RANK>>& from_right_s,
                   hls::stream<Beat<P::RANKS - RANK>>& to_left_s,
                   hls::stream<Beat<RANK + 1>>& to_right_s, hls::stream<Beat<P::RANKS>>& gs_s,
                   hls::stream<WeightRow<8>>& ks_s, hls::stream<SumWord>& ss_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<Word, P::DEPTH_COPY> rightward_s("rightward_s");
    hls::stream<Word, P::DEPTH_COPY> leftward_s("leftward_s");
    hls::stream<Word, P::DEPTH_COPY> own_s("own_s");
    hls::stream<Beat<RANK>, P::DEPTH_COPY> left_s("left_s");
    hls::stream<Beat<P::RANKS - 1 - RANK>, P::DEPTH_COPY> right_s("right_s");
    hls::stream<Beat<P::RANKS>, P::DEPTH_COPY> kept_s("kept_s");
    gather_copy<P>(segments, segment_count, entries, px_s, rightward_s, leftward_s, own_s);
    gather_right<P, RANK>(segments, segment_count, entries, from_left_s, rightward_s, to_right_s,
                          left_s);
    gather_left<P, RANK>(segments, segment_count, entries, from_right_s, leftward_s, to_left_s,
                         right_s);
    gather_join<P, RANK>(segments, segment_count, entries, left_s, own_s, right_s, gs_s, kept_s,
                         ss_s);
    gather_rows<P>(segments, segment_count, entries, kept_s, ks_s);
}

template <class P>
void gather_last(const Segment* segments, int segment_count, const GatherEntry* entries,
                 hls::stream<Word>& px_s, hls::stream<Beat<P::RANKS - 1>>& from_left_s,
                 hls::stream<Beat<1>>& to_left_s, hls::stream<Beat<P::RANKS>>& gs_s,
                 hls::stream<WeightRow<8>>& ks_s, hls::stream<SumWord>& ss_s) {
#pragma HLS dataflow disable_start_propagation
    hls::stream<Word, P::DEPTH_COPY> own_s("own_s");
    hls::stream<Beat<P::RANKS>, P::DEPTH_COPY> kept_s("kept_s");
    gather_copy<P>(segments, segment_count, entries, px_s, to_left_s, own_s);
    gather_join_last<P>(segments, segment_count, entries, from_left_s, own_s, gs_s, kept_s, ss_s);
    gather_rows<P>(segments, segment_count, entries, kept_s, ks_s);
}

}  // namespace lda

#endif
