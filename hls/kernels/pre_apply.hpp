// Last process of pre: from stored values to operands of the multiplier array.
//
// px: one word per fill pixel, source, block. ss: for softmax layers with row sums, the sum of a
// pixel's operands after its last word.
#ifndef LDA_PRE_APPLY_HPP
#define LDA_PRE_APPLY_HPP

#include "params.hpp"
#include "pre_types.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "words.hpp"

#ifdef LDA_FAST
#include <cstring>
#endif

namespace lda {

// Constants per channel (of every block of a pixel), per item and channel, and the table. In
// hardware every lane has its own copy of the table, 32 words of 64 bytes in LUTRAM, so that a
// table is replaced in 32 cycles and read in all lanes at once.
template <class P>
struct ApplyMemory {
    int16_t gamma[P::ROW_WORDS][WORD_BYTES];
    int32_t beta[P::ROW_WORDS][WORD_BYTES];
    int32_t mu[P::SCALE_WORDS][WORD_BYTES];
    int32_t r[P::SCALE_WORDS][WORD_BYTES];
    int32_t e[P::SCALE_WORDS][WORD_BYTES];
#ifdef LDA_FAST
    int8_t table[TABLE_SIZE];
#else
    Word table[WORD_BYTES][TABLE_SIZE / WORD_BYTES];
#endif
};

// Operands of the 64 channels of a word: `slot` is its block within the pixel, `row` the scale of
// the pixel, `scales` the row of mu, r, e that holds the scales of its channels.
template <class P>
inline void transform_plain(const PreEntry& entry, const ApplyMemory<P>& memory,
                            const RowWord& row_word, int slot, int align, int scales,
                            const Scale& row, int valid, Word& operands) {
#pragma HLS inline
LANES:
    for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
        const int32_t q = row_word.q[l];
        Scale scale = row;
        if (entry.norm == NORM_GROUP) {
            scale.mu = memory.mu[scales][l];
            scale.r = memory.r[scales][l];
            scale.e = memory.e[scales][l];
        }
        int32_t z = q;
        if (entry.norm == NORM_GROUP || entry.norm == NORM_LAYER) {
            z = normalise(q * (1 << align), scale);
        } else if (entry.norm == NORM_SOFTMAX) {
            z = q - row.mu;
        }
        const int64_t t =
            rshr(int64_t(z) * memory.gamma[slot][l] + memory.beta[slot][l], entry.shift);
        const int index = clamp<11>(t) + TABLE_SIZE / 2;
#ifdef LDA_FAST
        const int8_t looked_up = memory.table[index];
#else
        const int8_t looked_up = memory.table[l][index / WORD_BYTES].b[index % WORD_BYTES];
#endif
        const int8_t x = entry.table ? looked_up : int8_t(clamp<8>(t));
        operands.b[l] = l < valid ? x : int8_t(0);
    }
}

#ifdef LDA_FAST

// The same in loops that vectorise: 64-bit lanes only hold products, shifts are logical.
template <class P>
inline void transform_fast(const PreEntry& entry, const ApplyMemory<P>& memory,
                           const RowWord& row_word, int slot, int align, int scales,
                           const Scale& row, int valid, Word& operands) {
    int32_t z[WORD_BYTES];
    if (entry.norm == NORM_GROUP || entry.norm == NORM_LAYER) {
        int64_t y[WORD_BYTES];
        const int32_t unit = 1 << (align + FRACTION);
        if (entry.norm == NORM_GROUP) {
            const int32_t* mu = memory.mu[scales];
            const int32_t* r = memory.r[scales];
            const int32_t* e = memory.e[scales];
            for (int l = 0; l < WORD_BYTES; ++l)
                y[l] = int64_t(row_word.q[l] * unit - mu[l]) * r[l];
            for (int l = 0; l < WORD_BYTES; ++l) {
                const uint64_t up = uint64_t(e[l] >= 0 ? 0 : e[l] < -16 ? 16 : -e[l]);
                const uint64_t down = uint64_t(e[l] >= 0 ? e[l] : 0);
                const uint64_t offset = uint64_t(1) << 62;
                const uint64_t half = (uint64_t(1) << down) >> 1;
                y[l] =
                    int64_t((((uint64_t(y[l]) << up) + half + offset) >> down) - (offset >> down));
            }
        } else {
            const int up = row.e >= 0 ? 0 : row.e < -16 ? 16 : -row.e;
            const int down = row.e >= 0 ? row.e : 0;
            for (int l = 0; l < WORD_BYTES; ++l)
                y[l] = int64_t(row_word.q[l] * unit - row.mu) * row.r;
            for (int l = 0; l < WORD_BYTES; ++l)
                y[l] = rshr_by_offset(shift_left(y[l], up), down);
        }
        for (int l = 0; l < WORD_BYTES; ++l)
            z[l] = clamp<18>(y[l]);
    } else {
        const int32_t mu = entry.norm == NORM_SOFTMAX ? row.mu : 0;
        for (int l = 0; l < WORD_BYTES; ++l)
            z[l] = row_word.q[l] - mu;
    }
    const int16_t* gamma = memory.gamma[slot];
    const int32_t* beta = memory.beta[slot];
    int64_t t[WORD_BYTES];
    for (int l = 0; l < WORD_BYTES; ++l)
        t[l] = int64_t(z[l]) * int32_t(gamma[l]) + beta[l];
    for (int l = 0; l < WORD_BYTES; ++l)
        t[l] = rshr_by_offset(t[l], entry.shift);
    if (entry.table) {
        int32_t index[WORD_BYTES];
        for (int l = 0; l < WORD_BYTES; ++l)
            index[l] = clamp<11>(t[l]) + TABLE_SIZE / 2;
        for (int l = 0; l < WORD_BYTES; ++l)
            operands.b[l] = memory.table[index[l]];
    } else {
        for (int l = 0; l < WORD_BYTES; ++l)
            operands.b[l] = int8_t(clamp<8>(t[l]));
    }
    for (int l = valid < 0 ? 0 : valid; l < WORD_BYTES; ++l)
        operands.b[l] = 0;
}

#endif

template <class P>
void load_constants(const PreEntry& entry, int blocks, ApplyMemory<P>& memory,
                    hls::stream<Word>& params_s) {
#pragma HLS inline off
    const int table_words = entry.table ? TABLE_SIZE / WORD_BYTES : 0;
    const int total = table_words + 6 * blocks;
    LDA_CHECK(blocks <= P::ROW_WORDS, "pre: a pixel of more words than ROW_WORDS");
    int slot = 0, part = 0;
PARAMS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 6 max = 128
        TICK(1);
        const Word word = params_s.read();
        if (i < table_words) {
#ifdef LDA_FAST
            std::memcpy(memory.table + i * WORD_BYTES, word.b, WORD_BYTES);
#else
            for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
                memory.table[l][i] = word;
            }
#endif
        } else {
            for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
                if (part == l / 32) memory.gamma[slot][l] = int16_at(word, l % 32);
                if (part == 2 + l / 16) memory.beta[slot][l] = int32_at(word, l % 16);
            }
            if (++part == 6) {
                part = 0;
                ++slot;
            }
        }
    }
    LOOP_EXIT();
}

// Spreads the scales of groups over the channels that they cover.
template <class P>
void load_scales(const PreEntry& entry, ApplyMemory<P>& memory, hls::stream<Scale>& scales_s) {
#pragma HLS inline off
    const int total = entry.items * entry.norm_groups * entry.group_size;
    int source = 0, channel = 0, member = 0, first_slot = 0;
    Scale scale = {0, 0, 0};
CHANNELS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 4096
        TICK(1);
        if (member == 0) scale = scales_s.read();
        const int slot = first_slot + channel / WORD_BYTES, lane = channel % WORD_BYTES;
#ifdef LDA_FAST
        memory.mu[slot][lane] = scale.mu;
        memory.r[slot][lane] = scale.r;
        memory.e[slot][lane] = scale.e;
#else
        for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
            if (l == lane) {
                memory.mu[slot][l] = scale.mu;
                memory.r[slot][l] = scale.r;
                memory.e[slot][l] = scale.e;
            }
        }
#endif
        if (++member == entry.group_size) member = 0;
        if (++channel == entry.channels[source]) {
            channel = 0;
            first_slot += entry.blocks[source];
            if (++source == entry.sources) source = 0;
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_apply_entry(const PreEntry& entry, ApplyMemory<P>& memory, hls::stream<RowWord>& rows_s,
                     hls::stream<Word>& params_s, hls::stream<Scale>& scales_s,
                     hls::stream<Word>& px_s, hls::stream<int32_t>& ss_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory.gamma complete dim = 2
#pragma HLS array_partition variable = memory.beta complete dim = 2
#pragma HLS array_partition variable = memory.mu complete dim = 2
#pragma HLS array_partition variable = memory.r complete dim = 2
#pragma HLS array_partition variable = memory.e complete dim = 2
#pragma HLS array_partition variable = memory.table complete dim = 1
    int blocks = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) blocks += entry.blocks[s];
    }
    load_constants<P>(entry, blocks, memory, params_s);
    LDA_CHECK(entry.norm != NORM_GROUP || entry.items * blocks <= P::SCALE_WORDS,
              "pre: more normalised items x blocks than SCALE_WORDS");
    if (entry.norm == NORM_GROUP) load_scales<P>(entry, memory, scales_s);

    const bool row_scales = entry.norm == NORM_LAYER || entry.norm == NORM_SOFTMAX;
    const bool group = entry.norm == NORM_GROUP;
    const int total = entry.fill * blocks;
    int source = 0, block = 0, slot = 0, pixel = 0, item = 0;
    int32_t row_sum = 0;
    Scale row = {0, 0, 0};
WORDS:
    for (int i = 0; i < total; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        const RowWord row_word = rows_s.read();
        if (row_scales && slot == 0) row = scales_s.read();
        const int limit = entry.norm == NORM_SOFTMAX ? entry.valid : entry.channels[source];
        const int valid = limit - block * WORD_BYTES;
        const int scales = group ? item * blocks + slot : 0;
        const int align = group ? entry.align[source] : 0;
        Word operands;
#ifdef LDA_FAST
        transform_fast<P>(entry, memory, row_word, slot, align, scales, row, valid, operands);
#else
        transform_plain<P>(entry, memory, row_word, slot, align, scales, row, valid, operands);
#endif
        px_s.write(operands);
        if (entry.row_sums) {
            int32_t sum = 0;
            for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
                sum += operands.b[l];
            }
            row_sum += sum;
        }
        ++slot;
        if (++block == entry.blocks[source]) {
            block = 0;
            if (++source == entry.sources) {
                source = slot = 0;
                if (entry.row_sums) ss_s.write(row_sum);
                row_sum = 0;
                if (++pixel == entry.pixels) {
                    pixel = 0;
                    if (++item == entry.items) item = 0;
                }
            }
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_apply(const Segment* segments, int segment_count, const PreEntry* entries,
               ApplyMemory<P>& memory, hls::stream<RowWord>& rows_s, hls::stream<Word>& params_s,
               hls::stream<Scale>& scales_s, hls::stream<Word>& px_s, hls::stream<int32_t>& ss_s) {
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_apply_entry<P>(entry, memory, rows_s, params_s, scales_s, px_s, ss_s);
            }
        }
    }
}

}  // namespace lda

#endif
