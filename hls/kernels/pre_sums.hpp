// Second process of pre: owns the statistics memory. Per entry: takes the header of pp and passes
// the other words on, sums up the groups of a group norm, and at last stores the statistics of the
// entry's destination, if anyone normalises it.
//
// params: pp without its header. eps: one value per group- or layer-normalised entry.
// group_sums: per item, per group.
#ifndef LDA_PRE_SUMS_HPP
#define LDA_PRE_SUMS_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "words.hpp"

namespace lda {

template <class P>
struct StatsMemory {
    StatWord word[P::STATS_CHANNELS / GROUP];
};

template <class P>
void pre_sums_entry(const PreEntry& entry, StatsMemory<P>& memory, hls::stream<Word>& pp_s,
                    hls::stream<StatWord>& st_s, hls::stream<Word>& params_s,
                    hls::stream<int64_t>& eps_s, hls::stream<Sums>& group_sums_s) {
#pragma HLS inline off
    int blocks = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) blocks += entry.blocks[s];
    }
    const int words = 1 + (entry.table ? TABLE_SIZE / WORD_BYTES : 0) + 6 * blocks;
PARAMS:
    for (int i = 0; i < words; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 7 max = 128
        TICK(1);
        const Word word = pp_s.read();
        if (i > 0) {
            params_s.write(word);
        } else if (entry.norm == NORM_GROUP || entry.norm == NORM_LAYER) {
            eps_s.write(int64_of(word));
        }
    }
    LOOP_EXIT();

    if (entry.norm == NORM_GROUP) {
        const int total = entry.items * entry.norm_groups * entry.group_size;
        int item = 0, source = 0, channel = 0, member = 0;
        Sums sums = {0, 0};
    CHANNELS:
        for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 4096
            TICK(1);
            const int address =
                entry.stats_base[source] / GROUP + (channel / GROUP) * entry.items + item;
            LDA_CHECK(address >= 0 && address < P::STATS_CHANNELS / GROUP,
                      "pre: a channel outside of the statistics memory");
            const StatWord word = memory.word[address];
            const int lane = channel % GROUP;
            sums.sum += shift_left(word.sum[lane], entry.align[source]);
            sums.square += shift_left(word.square[lane], 2 * entry.align[source]);
            if (++member == entry.group_size) {
                group_sums_s.write(sums);
                member = 0;
                sums.sum = sums.square = 0;
            }
            if (++channel == entry.channels[source]) {
                channel = 0;
                if (++source == entry.sources) {
                    source = 0;
                    ++item;
                }
            }
        }
        LOOP_EXIT();
    }

    const int arriving = entry.stats_out >= 0 ? entry.groups_out * entry.items_out : 0;
STATISTICS:
    for (int i = 0; i < arriving; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 0 max = 512
        TICK(1);
        const int address = entry.stats_out / GROUP + i;
        LDA_CHECK(address < P::STATS_CHANNELS / GROUP,
                  "pre: a channel outside of the statistics memory");
        memory.word[address] = st_s.read();
    }
    LOOP_EXIT();
}

template <class P>
void pre_sums(const Segment* segments, int segment_count, const PreEntry* entries,
              StatsMemory<P>& memory, hls::stream<Word>& pp_s, hls::stream<StatWord>& st_s,
              hls::stream<Word>& params_s, hls::stream<int64_t>& eps_s,
              hls::stream<Sums>& group_sums_s) {
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_sums_entry<P>(entry, memory, pp_s, st_s, params_s, eps_s, group_sums_s);
            }
        }
    }
}

}  // namespace lda

#endif
