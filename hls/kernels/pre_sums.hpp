// First process of pre: owns the channel sums. Per execution: adds up the norm groups of a group
// norm, and then takes the statistics of the destination, if it has any, from all ranks. Those of
// items that are finished last may be left to the following execution, which normalises the items
// one by one as their sums come.
//
// sm: group norm: per item, the sums of NORMALISERS norm groups at a time (the last ones of an item
// may be fewer); rows for a layer norm: per octet, those of NORMALISERS pixels at a time. mk: rows
// for a softmax: the maxima of an octet at a time, as no normaliser works on them.
#ifndef LDA_PRE_SUMS_HPP
#define LDA_PRE_SUMS_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"

namespace lda {

// Sums of 8 channels of an item: address a lies in bank a mod BANKS, so that a StatBeat is stored,
// or two neighbouring groups are read, in one cycle.
template <class P>
struct SumsMemory {
    static const int BANKS = P::RANKS > 2 ? P::RANKS : 2;
    static_assert(P::STATS_WORDS % BANKS == 0, "banks of equal sizes");
    StatWord sums[BANKS][P::STATS_WORDS / BANKS];
};

// The words at `address` and behind it.
template <class P>
inline void read_sums(const SumsMemory<P>& memory, int address, StatWord (&words)[2]) {
#pragma HLS inline
    const int BANKS = SumsMemory<P>::BANKS, ROWS = P::STATS_WORDS / BANKS;
    const int first = address % BANKS, row = address / BANKS;
    StatWord read[SumsMemory<P>::BANKS];
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

// Adds lanes first .. end - 1 of two neighbouring words.
inline void add_lanes(const StatWord (&words)[2], int first, int end, int align, int64_t& sum,
                      int64_t& square) {
#pragma HLS inline
    int64_t lane_sum = 0, lane_square = 0;
LANES:
    for (int l = 0; l < 2 * GROUP; ++l) {
#pragma HLS unroll
        const bool counts = l >= first && l < end;
        const StatWord& word = words[l / GROUP];
        lane_sum += counts ? word.sum[l % GROUP] : 0;
        lane_square += counts ? square_at(word, l % GROUP) : 0;
    }
    sum += shift_left(lane_sum, align);
    square += shift_left(lane_square, 2 * align);
}

template <int N>
inline void clear(SumSet<N>& set) {
#pragma HLS inline
SETS:
    for (int k = 0; k < N; ++k) {
#pragma HLS unroll
        set.sum[k] = set.square[k] = 0;
    }
}

// Where the channel sums of an execution's destination go, in the order in which post sends them.
struct SumsWalk {
    int32_t address;        // of the next StatBeat: an item's groups of all ranks
    int32_t inner, outer;   // by_item: group of the round and item, else item and group
    int32_t inner_count;    // of the round
    int32_t outer_address;  // where the inner loop began
    int32_t outer_count;    // by_item: items, else all groups
    int32_t inner_step, outer_step;
    int32_t round_address;       // where the round began
    int32_t per_round, to_come;  // groups of a full round; of this round and later ones
    bool add, by_item;

    template <class P>
    void start(const PreEntry& entry, int first) {
#pragma HLS inline
        const int gates = entry.shape.gates;
        per_round = gates == 2 ? entry.shape.per_round >> 1 : entry.shape.per_round;
        to_come = gates == 2 ? entry.shape.units >> 1 : entry.shape.units;
        by_item = entry.by_item != 0;
        add = entry.stats == STATS_GROUP_ADD;
        inner = outer = 0;
        address = outer_address = round_address = first;
        inner_count = by_item ? least(per_round, to_come) : entry.items_out;
        outer_count = by_item ? entry.items_out : to_come;
        inner_step = by_item ? P::RANKS : entry.stats_pitch_out;
        outer_step = by_item ? entry.stats_pitch_out : P::RANKS;
    }

    template <class P>
    void next() {
#pragma HLS inline
        address += inner_step;
        if (++inner < inner_count) return;
        inner = 0;
        outer_address += outer_step;
        address = outer_address;
        if (++outer < outer_count || !by_item) return;
        outer = 0;
        round_address += inner_count * P::RANKS;
        address = outer_address = round_address;
        to_come -= inner_count;
        inner_count = least(per_round, to_come);
    }
};

// Group norm: up to 16 channels per cycle, of up to NORMALISERS norm groups, of items first_item to
// end_item - 1. A norm group may lie in both sources.
template <class P>
void send_group_sums(const PreEntry& entry, int i0, int i1, int first_item, int end_item,
                     const SumsMemory<P>& memory, hls::stream<SumSet<P::NORMALISERS>>& sm_s) {
#pragma HLS inline off
    const int N = P::NORMALISERS, size = entry.group_size;
    int first[MAX_SOURCES];  // address of the item's first word
#pragma HLS array_partition variable = first complete
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
#pragma HLS unroll
        first[s] = at(entry.stats_base[s], i0, i1) + first_item * entry.stats_pitch[s];
    }
    int item = first_item, source = 0, channel = 0;
    int groups_left = entry.norm_groups;  // of the item, from this set on
    int used = 0;                         // channels of this set that are added up
    int missing = least(N, groups_left) * size;
    SumSet<P::NORMALISERS> set;
#pragma HLS array_partition variable = set.sum complete
#pragma HLS array_partition variable = set.square complete
    clear(set);
SETS:
    while (item < end_item) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 8 max = 1024
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
        for (int k = 0; k < N; ++k) {
#pragma HLS unroll
            const int from = lane - used + k * size;
            add_lanes(words, most(from, lane), least(from + size, lane + count),
                      entry.align[source], set.sum[k], set.square[k]);
        }
        used += count;
        missing -= count;
        channel += count;
        if (channel == entry.channels[source]) {
            channel = 0;
            first[source] += entry.stats_pitch[source];
            if (++source == entry.sources) source = 0;
        }
        if (missing == 0) {
            sm_s.write(set);
            clear(set);
            used = 0;
            groups_left -= N;
            if (groups_left <= 0) {
                groups_left = entry.norm_groups;
                ++item;
            }
            missing = least(N, groups_left) * size;
        }
    }
    LOOP_EXIT();
}

// The next `count` channel sums of all ranks.
template <class P>
void keep_group_sums(int count, SumsWalk& walk, SumsMemory<P>& memory,
                     hls::stream<StatBeat<P::RANKS>>& sg_s) {
#pragma HLS inline off
    const int BANKS = SumsMemory<P>::BANKS;
    const bool add = walk.add;
WORDS:
    for (int i = 0; i < count; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 1024
// no dependence: an execution meets no address twice
#pragma HLS dependence variable = memory.sums type = inter false
        TICK(1);
        const StatBeat<P::RANKS> beat = sg_s.read();
        const int address = walk.address;
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
        walk.template next<P>();
    }
    LOOP_EXIT();
}

// Sums of the rows of all ranks.
template <class P>
void send_row_sums(const PreEntry& entry, hls::stream<StatBeat<P::RANKS>>& sg_s,
                   hls::stream<SumSet<P::NORMALISERS>>& sm_s) {
#pragma HLS inline off
    const int N = P::NORMALISERS, total = entry.stat_words * (GROUP / N);
    int pixel = 0;
    StatBeat<P::RANKS> beat = StatBeat<P::RANKS>();
ROWS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 4096
        TICK(1);
        if (pixel == 0) beat = sg_s.read();
        SumSet<P::NORMALISERS> sums;
        for (int k = 0; k < N; ++k) {
#pragma HLS unroll
            int64_t sum = 0, square = 0;
            for (int r = 0; r < P::RANKS; ++r) {
#pragma HLS unroll
                sum += beat.b[r].sum[pixel + k];
                square += square_at(beat.b[r], pixel + k);
            }
            sums.sum[k] = sum;
            sums.square[k] = square;
        }
        sm_s.write(sums);
        pixel = pixel + N == GROUP ? 0 : pixel + N;
    }
    LOOP_EXIT();
}

// Maxima of the rows of all ranks: logits, which have 16 bits.
template <class P>
void send_row_maxima(int octets, hls::stream<StatBeat<P::RANKS>>& sg_s,
                     hls::stream<MaxWord>& mk_s) {
#pragma HLS inline off
ROWS:
    for (int i = 0; i < octets; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 512
        TICK(1);
        const StatBeat<P::RANKS> beat = sg_s.read();
        MaxWord maxima;
        for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
            int16_t largest = int16_t(beat.b[0].sum[k]);
            for (int r = 1; r < P::RANKS; ++r) {
#pragma HLS unroll
                const int16_t other = int16_t(beat.b[r].sum[k]);
                largest = other > largest ? other : largest;
            }
            maxima.m[k] = largest;
        }
        mk_s.write(maxima);
    }
    LOOP_EXIT();
}

// walk: of the execution before, whose sums may not all be kept yet; then of this one.
template <class P>
void pre_sums_entry(const PreEntry& entry, int i0, int i1, SumsWalk& walk, SumsMemory<P>& memory,
                    hls::stream<StatBeat<P::RANKS>>& sg_s,
                    hls::stream<SumSet<P::NORMALISERS>>& sm_s, hls::stream<MaxWord>& mk_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory.sums complete dim = 1
    if (entry.norm == NORM_GROUP) {
        const bool one_by_one = entry.sums_before > 0;
        int item = 0;
    ITEMS:
        while (item < entry.items) {
#pragma HLS loop_tripcount min = 1 max = 2
            const int end = one_by_one ? item + 1 : entry.items;
            if (item > 0) keep_group_sums<P>(entry.sums_before, walk, memory, sg_s);
            send_group_sums<P>(entry, i0, i1, item, end, memory, sm_s);
            item = end;
        }
    }
    if (entry.stats == STATS_GROUP || entry.stats == STATS_GROUP_ADD) {
        walk.template start<P>(entry, at(entry.stats_out, i0, i1));
        keep_group_sums<P>(entry.stat_words - entry.sums_left, walk, memory, sg_s);
    } else if (entry.stats == STATS_LAYER) {
        send_row_sums<P>(entry, sg_s, sm_s);
    } else if (entry.stats == STATS_SOFTMAX) {
        send_row_maxima<P>(entry.stat_words, sg_s, mk_s);
    }
}

template <class P>
void pre_sums(const Segment* segments, int segment_count, const PreEntry* entries,
              SumsMemory<P>& memory, hls::stream<StatBeat<P::RANKS>>& sg_s,
              hls::stream<SumSet<P::NORMALISERS>>& sm_s, hls::stream<MaxWord>& mk_s) {
    static_assert(CheckEngine<P>::ok, "engine parameters");
    SumsWalk walk = SumsWalk();
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
                    pre_sums_entry<P>(entry, i0, i1, walk, memory, sg_s, sm_s, mk_s);
                }
            }
        }
    }
}

}  // namespace lda

#endif
