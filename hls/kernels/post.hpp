// post: from accumulators to stored values: bias, softmax division, scale, residual, GEGLU gate,
// saturation; and the sums that a later group norm needs.
//
// One flattened loop per entry. An iteration either reads a parameter word (qp), or one row sum
// (ss, only during output group 0, up to 8 before each word), or works on one plane of a word of 8
// pixels x 8 outputs. A finished word leaves plane by plane while the next one is worked on.
#ifndef LDA_POST_HPP
#define LDA_POST_HPP

#include "arithmetic.hpp"
#include "params.hpp"
#include "post_word.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"
#include "words.hpp"

namespace lda {

template <class P>
struct PostMemory {
    GateTable gate_table;
    int32_t bias[2][P::ITEMS][GROUP];
#ifdef LDA_FAST
    Reciprocal reciprocals[P::SUMS];
#else
    int32_t row_sums[P::SUMS];
#endif
};

// A divider in front of the memory would stand between a row sum and the word that needs it in the
// very next iteration: the plain form divides behind the memory, the fast form only once.
template <class P>
inline void keep_row_sum(PostMemory<P>& memory, int index, int32_t row_sum) {
#pragma HLS inline
#ifdef LDA_FAST
    memory.reciprocals[index] = reciprocal(row_sum);
#else
    memory.row_sums[index] = row_sum;
#endif
}

template <class P>
inline Reciprocal reciprocal_at(const PostMemory<P>& memory, int index) {
#pragma HLS inline
#ifdef LDA_FAST
    return memory.reciprocals[index];
#else
    return reciprocal(memory.row_sums[index]);
#endif
}

// Reads the scale word and the bias words of value and gate of one output group.
template <class P>
inline void take_parameter(const Word& word, int gate, int index, WordScale (&scale)[2],
                           int32_t (&bias)[2][P::ITEMS][GROUP]) {
#pragma HLS inline
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        if (index == 0) {
            scale[gate].mult[o] = int32_at(word, o);
            scale[gate].shift[o] = int32_at(word, GROUP + o);
        } else {
            const int item = 2 * (index - 1);
            bias[gate][item][o] = int32_at(word, o);
            if (item + 1 < P::ITEMS) bias[gate][item + 1][o] = int32_at(word, GROUP + o);
        }
    }
}

template <class P>
void post_entry(const PostEntry& entry, PostMemory<P>& memory, hls::stream<AccWord>& as_s,
                hls::stream<Word>& rs_s, hls::stream<Word>& qp_s, hls::stream<int32_t>& ss_s,
                hls::stream<Word>& ys_s, hls::stream<StatWord>& st_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const int TILE_WORDS = P::PP / GROUP;
    const bool gated = shape.gates == 2;
    LDA_CHECK(entry.items <= P::ITEMS, "post: more batch items than ITEMS");
    LDA_CHECK(!entry.row_sums || shape.words * GROUP <= P::SUMS, "post: more row sums than SUMS");

#pragma HLS array_partition variable = memory.bias complete dim = 0
#pragma HLS array_partition variable = memory.row_sums cyclic factor = 8
#pragma HLS array_partition variable = memory.gate_table.lane complete dim = 1
    const int table_words = gated ? 2 * TABLE_SIZE / WORD_BYTES : 0;
TABLE:
    for (int i = 0; i < table_words; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 0 max = 64
        TICK(1);
        load_gate_table(qp_s.read(), i, memory.gate_table);
    }
    LOOP_EXIT();

    const int params = 1 + ceil_div(entry.items, 2);  // words per gate
    const int word_cycles = most(entry.planes, most(entry.residual_planes, 1));
    WordScale scale[2];
    ValueWord values[P::PP / GROUP];  // of a tile, until the gate's words come
    StatWord stats = StatWord();
    AccWord acc = AccWord();
    Word residual = Word(), residual_low = Word();  // the planes that came last
    ResultWord pending = ResultWord();              // finished, leaves during the next word
    bool leaving = false;

    int group = 0, tile = 0, gate = 0, word = 0, phase = 0;
    int item = 0, item_word = 0;            // of the word at hand
    int tile_item = 0, tile_item_word = 0;  // of the tile's first word
    int param = 0, param_gate = 0;
    int sums_left = entry.row_sums ? least(GROUP, entry.pixels) : 0, sum_index = 0;
    bool loading = true, draining = false, done = false;
WORDS:
    while (!done) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (loading) {
            take_parameter<P>(qp_s.read(), param_gate, param, scale, memory.bias);
            if (++param == params) {
                param = 0;
                if (++param_gate == shape.gates) {
                    param_gate = 0;
                    loading = false;
                }
            }
        } else if (sums_left > 0) {
            keep_row_sum<P>(memory, sum_index, ss_s.read());
            ++sum_index;
            --sums_left;
        } else {
            const bool last_phase = phase == word_cycles - 1;
            if (leaving && phase < entry.planes) {
                ys_s.write(plane_of(pending, phase));
                if (phase == entry.planes - 1) leaving = false;
            }
            if (draining) {
                done = last_phase;
                ++phase;
            } else {
                if (phase == 0) acc = as_s.read();
                if (phase < entry.residual_planes) {
                    residual_low = residual;
                    residual = rs_s.read();
                }
                if (last_phase) {
                    const int first_slot = (tile * TILE_WORDS + word) * GROUP;
                    Reciprocal reciprocals[GROUP];
                    for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
                        const Reciprocal none = {0, 0};
                        reciprocals[p] =
                            entry.row_sums ? reciprocal_at<P>(memory, first_slot + p) : none;
                    }
                    int16_t added[LANES];
                    if (entry.residual_planes == 2) {
                        join_planes(residual_low, residual, added);
                    } else {
                        widen(residual, added);
                    }
                    ScaledWord scaled;
                    scale_word(acc, memory.bias[gate][item], scale[gate], entry.row_sums != 0,
                               reciprocals, entry.residual_planes > 0, added, entry.residual_shift,
                               scaled);
                    if (gated && gate == 0) {
                        keep_values(scaled, values[word]);
                    } else {
                        if (gated) {
                            gate_word(values[word], scaled, memory.gate_table, entry.gate_shift,
                                      pending);
                        } else {
                            saturate_word(scaled, entry.planes, pending);
                        }
                        leaving = true;
                        if (entry.stats) {
                            add_statistics(pending, entry.pixels - item_word * GROUP, stats);
                        }
                    }
                }
                ++phase;
                if (last_phase) {
                    phase = 0;
                    const bool writes = gate == shape.gates - 1;
                    const int tile_words = least(TILE_WORDS, shape.words - tile * TILE_WORDS);
                    const bool item_ends = item_word + 1 == entry.words_per_item;
                    if (writes && item_ends) {
                        if (entry.stats) st_s.write(stats);
                        stats = StatWord();
                    }
                    if (++item_word == entry.words_per_item) {
                        item_word = 0;
                        ++item;
                    }
                    if (++word == tile_words) {
                        word = 0;
                        if (!writes) {
                            // back to the tile's first word for the gate
                            ++gate;
                            item = tile_item;
                            item_word = tile_item_word;
                        } else {
                            gate = 0;
                            if (++tile == shape.tiles) {
                                tile = item = item_word = 0;
                                loading = ++group < shape.groups;
                                draining = !loading;
                            }
                            tile_item = item;
                            tile_item_word = item_word;
                        }
                    }
                    if (entry.row_sums && group == 0 && !draining) {
                        sum_index = (tile * TILE_WORDS + word) * GROUP;
                        sums_left = least(GROUP, entry.pixels - item_word * GROUP);
                    }
                }
            }
        }
    }
    LOOP_EXIT();
}

template <class P>
void post(const Segment* segments, int segment_count, const PostEntry* entries,
          PostMemory<P>& memory, hls::stream<AccWord>& as_s, hls::stream<Word>& rs_s,
          hls::stream<Word>& qp_s, hls::stream<int32_t>& ss_s, hls::stream<Word>& ys_s,
          hls::stream<StatWord>& st_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PostEntry entry = entries[segment.first + k];
                post_entry<P>(entry, memory, as_s, rs_s, qp_s, ss_s, ys_s, st_s);
            }
        }
    }
}

}  // namespace lda

#endif
