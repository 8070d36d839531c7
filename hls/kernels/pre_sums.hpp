// First process of pre: owns the statistics. Per execution: takes the header, sends the scales with
// which the fill is normalised, and then takes the statistics of the destination, if it has any.
//
// sc: group norm: per item, norm group one Scale. rw: layer norm and softmax: per fill octet one
// ScaleWord. sg: as docs/engine.md says ("Statistics").
#ifndef LDA_PRE_NORM_HPP
#define LDA_PRE_NORM_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "words.hpp"

namespace lda {

// Sums of 8 channels of an item: address a lies in bank a mod BANKS, so that a StatBeat is stored,
// or two neighbouring groups are read, in one cycle.
template <class P>
struct NormMemory {
    static const int BANKS = P::RANKS > 2 ? P::RANKS : 2;
    static_assert(P::STATS_WORDS % BANKS == 0, "banks of equal sizes");
    StatWord sums[BANKS][P::STATS_WORDS / BANKS];
    ScaleWord rows[P::ROW_OCTETS];
};

// Header of an execution.
struct NormHeader {
    int64_t epsilon;      // of this entry's norm
    int64_t row_epsilon;  // of the layer norm that will read the destination
    int32_t row_n;        // values per row of that one
};

inline NormHeader header_of(const Word& word) {
#pragma HLS inline
    NormHeader header;
    header.epsilon = int64_at(word, 0);
    header.row_epsilon = int64_at(word, 1);
    header.row_n = int32_at(word, 4);
    return header;
}

// The words at `address` and behind it.
template <class P>
inline void read_sums(const NormMemory<P>& memory, int address, StatWord (&words)[2]) {
#pragma HLS inline
    const int BANKS = NormMemory<P>::BANKS, ROWS = P::STATS_WORDS / BANKS;
    const int first = address % BANKS, row = address / BANKS;
    StatWord read[NormMemory<P>::BANKS];
#pragma HLS array_partition variable = read complete
READ:
    for (int b = 0; b < BANKS; ++b) {
#pragma HLS unroll
        // what lies behind the memory's end is read, but not used
        read[b] = memory.sums[b][least(row + (b < first ? 1 : 0), ROWS - 1)];
    }
    words[0] = read[first];
    words[1] = read[(first + 1) % BANKS];
}

// Adds lanes first .. first + count - 1 of two neighbouring words.
inline void add_lanes(const StatWord (&words)[2], int first, int count, int align, int64_t& sum,
                      int64_t& square) {
#pragma HLS inline
    int64_t lane_sum = 0, lane_square = 0;
LANES:
    for (int l = 0; l < 2 * GROUP; ++l) {
#pragma HLS unroll
        const bool counts = l >= first && l < first + count;
        const StatWord& word = words[l / GROUP];
        lane_sum += counts ? word.sum[l % GROUP] : 0;
        lane_square += counts ? square_at(word, l % GROUP) : 0;
    }
    sum += shift_left(lane_sum, align);
    square += shift_left(lane_square, 2 * align);
}

// Group norm: up to 16 channels of one norm group per cycle. A norm group may lie in both sources.
template <class P>
void send_group_scales(const PreEntry& entry, int i0, int i1, int64_t epsilon,
                       const NormMemory<P>& memory, hls::stream<Scale>& sc_s) {
#pragma HLS inline off
    const int total = entry.items * entry.norm_groups;
    int first[MAX_SOURCES];  // address of the item's first word
#pragma HLS array_partition variable = first complete
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
#pragma HLS unroll
        first[s] = at(entry.stats_base[s], i0, i1);
    }
    int made = 0, source = 0, channel = 0, missing = entry.group_size;
    int64_t sum = 0, square = 0;
GROUPS:
    while (made < total) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 16 max = 1024
        TICK(1);
        const int lane = channel % GROUP;
        const int address = first[source] + channel / GROUP;
        const int rest = entry.channels[source] - channel;
        const int count = least(least(2 * GROUP - lane, rest), missing);
        LDA_CHECK(address >= 0 && address + (lane + count - 1) / GROUP < P::STATS_WORDS,
                  "pre: a channel outside of the statistics memory");
        LDA_CHECK(count > 0, "pre: norm groups do not cover the channels");
        StatWord words[2];
        read_sums<P>(memory, address, words);
        add_lanes(words, lane, count, entry.align[source], sum, square);
        missing -= count;
        channel += count;
        if (missing == 0) {
            sc_s.write(normaliser(sum, square, entry.n, epsilon));
            sum = square = 0;
            missing = entry.group_size;
            ++made;
        }
        if (channel == entry.channels[source]) {
            channel = 0;
            first[source] += entry.stats_pitch[source];
            if (++source == entry.sources) source = 0;
        }
    }
    LOOP_EXIT();
}

template <class P>
void send_row_scales(const PreEntry& entry, int i0, int i1, const NormMemory<P>& memory,
                     hls::stream<ScaleWord>& rw_s) {
#pragma HLS inline off
    const int first = at(entry.row_in, i0, i1), octets = entry.shape.fill;
    LDA_CHECK(first >= 0 && first + octets <= P::ROW_OCTETS,
              "pre: row statistics outside of their memory");
OCTETS:
    for (int i = 0; i < octets; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 4 max = 1024
        TICK(1);
        rw_s.write(memory.rows[first + i]);
    }
    LOOP_EXIT();
}

// Channel sums of all ranks: per local group, item.
template <class P>
void keep_group_sums(const PreEntry& entry, int i0, int i1, NormMemory<P>& memory,
                     hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS inline off
    const int BANKS = NormMemory<P>::BANKS;
    const bool add = entry.stats == STATS_GROUP_ADD;
    int group = at(entry.stats_out, i0, i1), address = group, item = 0;
WORDS:
    for (int i = 0; i < entry.stat_words; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 1024
// no dependence: an execution meets no address twice
#pragma HLS dependence variable = memory.sums type = inter false
        TICK(1);
        const StatBeat<P::RANKS> beat = sg_s.read();
        LDA_CHECK(address >= 0 && address % P::RANKS == 0 && address + P::RANKS <= P::STATS_WORDS,
                  "pre: a group outside of the statistics memory");
        const int first = address % BANKS, row = address / BANKS;
        for (int b = 0; b < BANKS; ++b) {
#pragma HLS unroll
            const int r = b - first;
            if (r >= 0 && r < P::RANKS) {
                StatWord word = beat.b[r];
                const StatWord before = memory.sums[b][row];
                for (int l = 0; l < GROUP; ++l) {
#pragma HLS unroll
                    const int64_t square = square_at(word, l) + (add ? square_at(before, l) : 0);
                    word.sum[l] += add ? before.sum[l] : 0;
                    set_square(word, l, square);
                }
                memory.sums[b][row] = word;
            }
        }
        address += entry.stats_pitch_out;
        if (++item == entry.items_out) {
            item = 0;
            group += P::RANKS;
            address = group;
        }
    }
    LOOP_EXIT();
}

// Sums of the rows of all ranks, or their maxima, per octet.
template <class P>
void keep_row_scales(const PreEntry& entry, int i0, int i1, const NormHeader& header,
                     NormMemory<P>& memory, hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS inline off
    const bool layer = entry.stats == STATS_LAYER;
    const int first = at(entry.row_out, i0, i1);
    LDA_CHECK(first >= 0 && first + entry.stat_words <= P::ROW_OCTETS,
              "pre: row statistics outside of their memory");
    int octet = 0, pixel = 0;
    int64_t sum[GROUP], square[GROUP];
    ScaleWord word = ScaleWord();
#pragma HLS array_partition variable = sum complete
#pragma HLS array_partition variable = square complete
#pragma HLS array_partition variable = word.s complete
    for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
        sum[p] = square[p] = 0;
    }
ROWS:
    while (octet < entry.stat_words) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 4096
        TICK(1);
        if (pixel == 0) {
            const StatBeat<P::RANKS> beat = sg_s.read();
            for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
                int64_t total = 0, squares = 0;
                int32_t largest = beat.b[0].sum[p];
                for (int r = 0; r < P::RANKS; ++r) {
#pragma HLS unroll
                    total += beat.b[r].sum[p];
                    squares += square_at(beat.b[r], p);
                    largest = most(largest, beat.b[r].sum[p]);
                }
                sum[p] = total;
                square[p] = squares;
                word.s[p].mu = largest;
                word.s[p].r = word.s[p].e = 0;
            }
        }
        if (layer) {
            for (int k = 0; k < P::NORMALISERS; ++k) {
#pragma HLS unroll
                word.s[pixel + k] =
                    normaliser(sum[pixel + k], square[pixel + k], header.row_n, header.row_epsilon);
            }
        }
        pixel += layer ? P::NORMALISERS : GROUP;
        if (pixel == GROUP) {
            pixel = 0;
            memory.rows[first + octet] = word;
            ++octet;
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_norm_entry(const PreEntry& entry, int i0, int i1, NormMemory<P>& memory,
                    hls::stream<Word>& hd_s, hls::stream<StatBeat<P::RANKS>>& sg_s,
                    hls::stream<Scale>& sc_s, hls::stream<ScaleWord>& rw_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory.sums complete dim = 1
    const NormHeader header = header_of(hd_s.read());
    if (entry.norm == NORM_GROUP) {
        send_group_scales<P>(entry, i0, i1, header.epsilon, memory, sc_s);
    } else if (entry.norm != NORM_NONE) {
        send_row_scales<P>(entry, i0, i1, memory, rw_s);
    }
    if (entry.stats == STATS_GROUP || entry.stats == STATS_GROUP_ADD) {
        keep_group_sums<P>(entry, i0, i1, memory, sg_s);
    } else if (entry.stats != STATS_NONE) {
        keep_row_scales<P>(entry, i0, i1, header, memory, sg_s);
    }
}

template <class P>
void pre_norm(const Segment* segments, int segment_count, const PreEntry* entries,
              NormMemory<P>& memory, hls::stream<Word>& hd_s, hls::stream<StatBeat<P::RANKS>>& sg_s,
              hls::stream<Scale>& sc_s, hls::stream<ScaleWord>& rw_s) {
    static_assert(CheckEngine<P>::ok, "engine parameters");
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
                    pre_norm_entry<P>(entry, i0, i1, memory, hd_s, sg_s, sc_s, rw_s);
                }
            }
        }
    }
}

}  // namespace lda

#endif
