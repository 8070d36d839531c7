// Last process of pre: from stored values to operands of the multiplier array.
//
// xs, px: docs/engine.md, "Fill" and "Ring weights". One flattened loop per execution: first the
// table and the constants of the channel groups (pp), then one word per cycle: ring weights of
// round 0, the fill, the other ring weights. Scales of a group norm (sc) come item by item, those
// of an item beside the last words of the item before; ScaleWords (rw) with an octet's first word.
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

static const int TABLE_WORDS = TABLE_SIZE / WORD_BYTES;
// Bytes of a pp word where beta, the norm groups and the lane mask begin.
static const int PP_BETA = 16;
static const int PP_GROUP = 48;
static const int PP_MASK = 56;

// Constants of the channel groups of a pixel as pp words, scales of the norm groups of two items,
// and the table. In hardware every channel lane has its own copy of the scales, and each of the 64
// lanes its own copy of the table, 32 words of 64 bytes in LUTRAM, so that a table is replaced in
// 32 cycles and read in all lanes at once.
template <class P>
struct ApplyMemory {
    Word constants[P::ROW_GROUPS];
    static_assert(P::SCALES % P::NORMALISERS == 0, "banks of equal sizes");
#ifdef LDA_FAST
    Scale scales[P::SCALES];
    int8_t table[TABLE_SIZE];
#else
    // channel lane, place within a set, set
    Scale scales[GROUP][P::NORMALISERS][P::SCALES / P::NORMALISERS];
    Word table[WORD_BYTES][TABLE_WORDS];
#endif
};

// Scale of a norm group for channel lane c; `set`: the item's first one.
template <class P>
inline Scale scale_at(const ApplyMemory<P>& memory, int c, int set, int norm_group) {
#pragma HLS inline
#ifdef LDA_FAST
    static_cast<void>(c);
    return memory.scales[set * P::NORMALISERS + norm_group];
#else
    return memory.scales[c][norm_group % P::NORMALISERS][set + norm_group / P::NORMALISERS];
#endif
}

// What the words of one source, or of one channel group, are read with.
//   plain   read with neither norm nor table
//   slot    of the channel group's constants
//   scales  first set of the item's norm groups
struct WordPlace {
    bool wide;
    bool plain;
    int align;
    int shift;
    int slot;
    int scales;
};

inline int16_t stored_value(const Pair& stored, bool wide, int lane) {
#pragma HLS inline
    const uint8_t low = uint8_t(stored.b[0].b[lane]);
    return wide ? int16_t(low | uint16_t(uint8_t(stored.b[1].b[lane])) << 8) : int16_t(int8_t(low));
}

// Operands of 8 pixels x 8 channels; `rows`: scales of the pixels.
template <class P>
inline void transform_plain(const PreEntry& entry, const ApplyMemory<P>& memory, const Pair& stored,
                            const WordPlace& place, const ScaleWord& rows, Word& operands) {
#pragma HLS inline
    const Word constants = memory.constants[place.slot];
    const int norm = place.plain ? int(NORM_NONE) : entry.norm;
    const bool table = entry.table && !place.plain;
PIXELS:
    for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
    CHANNELS:
        for (int c = 0; c < GROUP; ++c) {
#pragma HLS unroll
            const int l = p * GROUP + c;
            const int32_t q = stored_value(stored, place.wide, l);
            int32_t z = q;
            if (norm == NORM_GROUP) {
                const int norm_group = uint8_t(constants.b[PP_GROUP + c]);
                const Scale scale = scale_at<P>(memory, c, place.scales, norm_group);
                z = normalise(q * (1 << place.align), scale);
            } else if (norm == NORM_LAYER) {
                z = normalise(q, rows.s[p]);
            } else if (norm == NORM_SOFTMAX) {
                z = q - rows.s[p].mu;
            }
            const int32_t gamma = int16_at(constants, c);
            const int32_t beta = int32_at(constants, PP_BETA / 4 + c);
            const int64_t t = rshr(int64_t(z) * gamma + beta, place.shift);
            const int index = clamp<11>(t) + TABLE_SIZE / 2;
#ifdef LDA_FAST
            const int8_t looked_up = memory.table[index];
#else
            const int8_t looked_up = memory.table[l][index / WORD_BYTES].b[index % WORD_BYTES];
#endif
            const bool used = uint8_t(constants.b[PP_MASK]) >> c & 1;
            const int8_t x = table ? looked_up : int8_t(clamp<8>(t));
            operands.b[l] = used ? x : int8_t(0);
        }
    }
}

#ifdef LDA_FAST

// z of all lanes; mu, r, e of each.
inline void normalise_lanes(const int32_t* q, int32_t unit, const int32_t* mu, const int32_t* r,
                            const int32_t* e, int32_t* z) {
    int64_t y[WORD_BYTES];
    for (int l = 0; l < WORD_BYTES; ++l)
        y[l] = int64_t(q[l] * unit - mu[l]) * r[l];
    for (int l = 0; l < WORD_BYTES; ++l) {
        const uint64_t up = uint64_t(e[l] >= 0 ? 0 : e[l] < -16 ? 16 : -e[l]);
        const uint64_t down = uint64_t(e[l] >= 0 ? e[l] : 0);
        const uint64_t offset = uint64_t(1) << 62;
        const uint64_t half = (uint64_t(1) << down) >> 1;
        y[l] = int64_t((((uint64_t(y[l]) << up) + half + offset) >> down) - (offset >> down));
    }
    for (int l = 0; l < WORD_BYTES; ++l)
        z[l] = clamp<18>(y[l]);
}

// The same in loops that vectorise: 64-bit lanes only hold products, shifts are logical.
template <class P>
inline void transform_fast(const PreEntry& entry, const ApplyMemory<P>& memory, const Pair& stored,
                           const WordPlace& place, const ScaleWord& rows, Word& operands) {
    const Word& constants = memory.constants[place.slot];
    const int norm = place.plain ? int(NORM_NONE) : entry.norm;
    int16_t gamma[GROUP];
    int32_t beta[GROUP];
    std::memcpy(gamma, constants.b, sizeof gamma);
    std::memcpy(beta, constants.b + PP_BETA, sizeof beta);
    int32_t q[WORD_BYTES], z[WORD_BYTES];
    if (place.wide) {
        for (int l = 0; l < WORD_BYTES; ++l)
            q[l] = int32_t(stored.b[1].b[l]) * 256 + uint8_t(stored.b[0].b[l]);
    } else {
        for (int l = 0; l < WORD_BYTES; ++l)
            q[l] = stored.b[0].b[l];
    }
    int32_t mu[WORD_BYTES], r[WORD_BYTES], e[WORD_BYTES];
    if (norm == NORM_GROUP) {
        for (int c = 0; c < GROUP; ++c) {
            const int norm_group = uint8_t(constants.b[PP_GROUP + c]);
            const Scale scale = scale_at<P>(memory, c, place.scales, norm_group);
            mu[c] = scale.mu;
            r[c] = scale.r;
            e[c] = scale.e;
        }
        for (int l = GROUP; l < WORD_BYTES; ++l) {
            mu[l] = mu[l - GROUP];
            r[l] = r[l - GROUP];
            e[l] = e[l - GROUP];
        }
        normalise_lanes(q, 1 << (place.align + FRACTION), mu, r, e, z);
    } else if (norm == NORM_LAYER) {
        for (int l = 0; l < WORD_BYTES; ++l) {
            mu[l] = rows.s[l / GROUP].mu;
            r[l] = rows.s[l / GROUP].r;
            e[l] = rows.s[l / GROUP].e;
        }
        normalise_lanes(q, 1 << FRACTION, mu, r, e, z);
    } else if (norm == NORM_SOFTMAX) {
        for (int l = 0; l < WORD_BYTES; ++l)
            z[l] = q[l] - rows.s[l / GROUP].mu;
    } else {
        std::memcpy(z, q, sizeof z);
    }
    int64_t t[WORD_BYTES];
    for (int l = 0; l < WORD_BYTES; ++l)
        t[l] = int64_t(z[l]) * int32_t(gamma[l % GROUP]) + beta[l % GROUP];
    for (int l = 0; l < WORD_BYTES; ++l)
        t[l] = rshr_by_offset(t[l], place.shift);
    if (entry.table && !place.plain) {
        int32_t index[WORD_BYTES];
        for (int l = 0; l < WORD_BYTES; ++l)
            index[l] = clamp<11>(t[l]) + TABLE_SIZE / 2;
        for (int l = 0; l < WORD_BYTES; ++l)
            operands.b[l] = memory.table[index[l]];
    } else {
        for (int l = 0; l < WORD_BYTES; ++l)
            operands.b[l] = int8_t(clamp<8>(t[l]));
    }
    const unsigned mask = uint8_t(constants.b[PP_MASK]);
    if (mask != 255) {
        for (int l = 0; l < WORD_BYTES; ++l)
            operands.b[l] = mask >> l % GROUP & 1 ? operands.b[l] : int8_t(0);
    }
}

#endif

template <class P>
inline void keep_parameter(const Word& word, int index, int table_words, ApplyMemory<P>& memory) {
#pragma HLS inline
    if (index < table_words) {
#ifdef LDA_FAST
        std::memcpy(memory.table + index * WORD_BYTES, word.b, WORD_BYTES);
#else
        for (int l = 0; l < WORD_BYTES; ++l) {
#pragma HLS unroll
            memory.table[l][index] = word;
        }
#endif
    } else {
        memory.constants[index - table_words] = word;
    }
}

template <class P>
inline void keep_scales(const ScaleSet<P::NORMALISERS>& scales, int set, ApplyMemory<P>& memory) {
#pragma HLS inline
SCALES:
    for (int k = 0; k < P::NORMALISERS; ++k) {
#pragma HLS unroll
#ifdef LDA_FAST
        memory.scales[set * P::NORMALISERS + k] = scales.s[k];
#else
        for (int c = 0; c < GROUP; ++c) {
#pragma HLS unroll
            memory.scales[c][k][set] = scales.s[k];
        }
#endif
    }
}

// `first`: of the segment.
template <class P>
void pre_apply_entry(const PreEntry& entry, bool first, ApplyMemory<P>& memory,
                     hls::stream<Word>& pp_s, hls::stream<Pair>& xs_s,
                     hls::stream<ScaleSet<P::NORMALISERS>>& sc_s, hls::stream<ScaleWord>& rw_s,
                     hls::stream<Word>& px_s) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory.scales complete dim = 1
#pragma HLS array_partition variable = memory.scales complete dim = 2
#pragma HLS array_partition variable = memory.table complete dim = 1
    const Shape& shape = entry.shape;
    const bool group = entry.norm == NORM_GROUP;
    const bool rows = entry.norm == NORM_LAYER || entry.norm == NORM_SOFTMAX;
    const bool joined = shape.pv_units > 0;
    int groups = 0;
SOURCES:
    for (int s = 0; s < MAX_SOURCES; ++s) {
        if (s < entry.sources) groups += entry.groups[s];
    }
    const int table_words = entry.table ? TABLE_WORDS : 0;
    const bool keeps = entry.pp_once == 2 || (entry.pp_once == 1 && !first);
    // constants of source 1 lie behind those of source 0
    const int first_slots = entry.uniform ? 2 : entry.groups[0];
    const int slots = groups - entry.groups[0] + first_slots;
    const int parameters = keeps ? 0 : table_words + slots;
    LDA_CHECK(slots <= P::ROW_GROUPS, "pre: a pixel of more channel groups than ROW_GROUPS");
    const int sets = group ? ceil_div(entry.norm_groups, P::NORMALISERS) : 0;  // of an item
    // the fill goes item by item where the scales do
    const int items = group ? entry.items : 1;
    const int item_words = (items > 1 ? entry.item_octets : shape.fill) * groups;
    LDA_CHECK(items == 1 || items * entry.item_octets == shape.fill,
              "pre: a fill of several items is not all of them");
    LDA_CHECK(least(items, 2) * sets * P::NORMALISERS <= P::SCALES,
              "pre: more norm groups in two items than SCALES");
    const int first_words = ring_words_of(shape, least(shape.per_round, shape.units));
    const int other_words = ring_words_of(shape, shape.units) - first_words;

    int parameter = 0;
    const bool fill_first = parameters + first_words + sets == 0;
    // item -1: ring weights of round 0; item == items: the other ring weights
    int item = fill_first ? 0 : -1;
    int words_left = fill_first ? item_words : first_words;  // of this item
    int sets_left = sets;                                    // of the next item
    int scale_to = 0, scale_from = 0;                        // next one to keep; this item's first
    int source = 0, block = 0;
    ScaleWord row = ScaleWord();
    bool done = false;
WORDS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (parameter < parameters) {
            keep_parameter<P>(pp_s.read(), parameter, table_words, memory);
            ++parameter;
        } else {
            if (sets_left > 0 && words_left <= sets_left) {
                keep_scales<P>(sc_s.read(), scale_to, memory);
                ++scale_to;
                --sets_left;
            }
            if (words_left > 0) {
                --words_left;
                const Pair stored = xs_s.read();
                Word operands = stored.b[0];
                if (item >= 0 && item < items) {
                    if (rows && source == 0 && block == 0) row = rw_s.read();
                    const bool last_block = block == entry.groups[source] - 1;
                    WordPlace place;
                    place.wide = entry.wide[source] != 0;
                    place.align = entry.align[source];
                    place.plain = joined && source == 1;
                    place.shift = place.plain ? entry.plain_shift : entry.shift;
                    const bool uniform = entry.uniform && source == 0;
                    place.slot = uniform       ? (last_block ? 1 : 0)
                                 : source == 0 ? block
                                               : first_slots + block;
                    place.scales = scale_from;
#ifdef LDA_FAST
                    transform_fast<P>(entry, memory, stored, place, row, operands);
#else
                    transform_plain<P>(entry, memory, stored, place, row, operands);
#endif
                    ++block;
                    if (last_block) {
                        block = 0;
                        if (++source == entry.sources) source = 0;
                    }
                }
                px_s.write(operands);
            }
        }
        if (parameter == parameters && words_left == 0 && sets_left == 0) {
            ++item;
            // scales of even items come first in the memory, then those of odd ones
            scale_from = item & 1 ? sets : 0;
            scale_to = item & 1 ? 0 : sets;
            sets_left = item < items - 1 ? sets : 0;
            words_left = item < items ? item_words : other_words;
            done = item > items || (item == items && other_words == 0);
        }
    }
    LOOP_EXIT();
}

template <class P>
void pre_apply(const Segment* segments, int segment_count, const PreEntry* entries,
               ApplyMemory<P>& memory, hls::stream<Word>& pp_s, hls::stream<Pair>& xs_s,
               hls::stream<ScaleSet<P::NORMALISERS>>& sc_s, hls::stream<ScaleWord>& rw_s,
               hls::stream<Word>& px_s) {
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PreEntry entry = entries[segment.first + k];
                pre_apply_entry<P>(entry, i == 0, memory, pp_s, xs_s, sc_s, rw_s, px_s);
            }
        }
    }
}

}  // namespace lda

#endif
