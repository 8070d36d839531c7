// Third process of pre: turns sums into mean and reciprocal standard deviation.
//
// Takes one Sums per group, or one per word of a row, of which the row's last one counts.
// scales: for a group norm one per item and group, for a layer norm one per fill pixel, for a
// softmax one per fill pixel with mu = the row's maximum.
#ifndef LDA_PRE_SCALE_HPP
#define LDA_PRE_SCALE_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"

namespace lda {

template <class P>
void pre_scale_entry(const PreEntry& entry, hls::stream<int64_t>& eps_s,
                     hls::stream<Sums>& row_sums_s, hls::stream<Sums>& group_sums_s,
                     hls::stream<Scale>& scales_s) {
#pragma HLS inline off
    const bool group = entry.norm == NORM_GROUP, layer = entry.norm == NORM_LAYER;
    int blocks = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) blocks += entry.blocks[s];
    }
    const int total = entry.norm == NORM_NONE ? 0
                      : group                 ? entry.items * entry.norm_groups
                                              : entry.fill * blocks;
    int block = 0;
    int64_t eps = 0;
    if (group || layer) eps = eps_s.read();
SCALES:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 0 max = 4096
        TICK(1);
        const Sums sums = group ? group_sums_s.read() : row_sums_s.read();
        if (++block == blocks || group) {
            block = 0;
            Scale scale = {int32_t(sums.sum), 0, 0};
            if (group || layer) scale = normaliser(sums.sum, sums.square, entry.n, eps);
            scales_s.write(scale);
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_scale(const Segment* segments, int segment_count, const PreEntry* entries,
               hls::stream<int64_t>& eps_s, hls::stream<Sums>& row_sums_s,
               hls::stream<Sums>& group_sums_s, hls::stream<Scale>& scales_s) {
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_scale_entry<P>(entry, eps_s, row_sums_s, group_sums_s, scales_s);
            }
        }
    }
}

}  // namespace lda

#endif
