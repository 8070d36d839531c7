// post: from accumulators to stored values: bias, softmax division, scale, residual, GEGLU gate,
// saturation; and the sums that a later norm needs.
//
// One flattened loop per execution, in the order of docs/engine.md: per round the parameters (qp)
// of its units, one a cycle; then per tile, unit, octet one accumulator word a cycle. Sums of a
// group norm leave beside the words. Parameters of joined products come in the order of
// Turns::place.
#ifndef LDA_POST_HPP
#define LDA_POST_HPP

#include "arithmetic.hpp"
#include "params.hpp"
#include "post_row_sums.hpp"
#include "post_stats.hpp"
#include "post_word.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"
#include "words.hpp"

namespace lda {

template <class P>
struct PostMemory {
    // of a round of UNITS units, or of joined products, which have one item
    static const int ROUND_BIAS = P::UNITS * ((P::ITEMS + 1) / 2);
    static const int SCALE_WORDS = P::UNITS > P::JOINED_UNITS ? P::UNITS : P::JOINED_UNITS;
    static const int BIAS_WORDS = ROUND_BIAS > P::JOINED_UNITS ? ROUND_BIAS : P::JOINED_UNITS;
    GateTable gate_table;
    Word table[2 * TABLE_SIZE / WORD_BYTES];  // that is being copied
    KeptScale scale[SCALE_WORDS];
    Word bias[BIAS_WORDS];  // those of a unit one behind the other
    RowSums row_sums[P::SUMS / GROUP];
    StatWord row_stats[P::ROW_OCTETS];
    GroupSums<P> group_sums;
};

// Where an octet lies in the output: its item, and its number within the item.
struct ItemOctet {
    int32_t item;
    int32_t octet;

    void next(int item_octets) {
#pragma HLS inline
        if (++octet == item_octets) {
            octet = 0;
            ++item;
        }
    }
};

// table_row: the next row of the gate table to be copied; from TABLE_READY on it may be used.
static const int TABLE_READY = TABLE_ROWS + POST_DISTANCE;

template <class P>
void post_entry(const PostEntry& entry, PostMemory<P>& memory, int& table_row,
                hls::stream<AccWord>& as_s, hls::stream<AccWord>& bs_s, hls::stream<Pair>& rs_s,
                hls::stream<Word>& qp_s, hls::stream<SumWord>& ss_s, hls::stream<ResultPair>& ys_s,
                hls::stream<StatWord>& st_s) {
#pragma HLS inline off
    const Shape& shape = entry.shape;
    const int TILE_WORDS = P::PP / GROUP;
    const bool joined = shape.pv_units > 0;
    const bool gated = shape.gates == 2;
    const bool group_stats = entry.stats == STATS_GROUP || entry.stats == STATS_GROUP_ADD;
    const bool row_stats = entry.stats == STATS_LAYER || entry.stats == STATS_SOFTMAX;
    const bool one_tile = shape.octets <= TILE_WORDS;
    const int bias_words = ceil_div(entry.items, 2), params = 1 + bias_words;  // words per unit
    LDA_CHECK(entry.items <= P::ITEMS, "post: more batch items than ITEMS");
    LDA_CHECK(joined || least(shape.per_round, shape.units) <= P::UNITS,
              "post: more units in a round than UNITS");
    LDA_CHECK(!joined || shape.units <= P::JOINED_UNITS,
              "post: more units of joined products than JOINED_UNITS");
    LDA_CHECK(!joined || (entry.items == 1 && shape.units <= shape.per_round && row_stats),
              "post: joined products of several items or rounds, or without row statistics");
    LDA_CHECK(
        !joined || (shape.pv_every > 0 && (shape.pv_units - 1) * shape.pv_every < shape.units - 1),
        "post: the last unit of joined products is not one with K");
    LDA_CHECK(shape.units % shape.gates == 0 && (!gated || shape.per_round % 2 == 0),
              "post: a round ends between value and gate");
    LDA_CHECK(shape.octets % 2 == 0, "post: an odd number of octets");
    LDA_CHECK(!entry.table || table_row >= TABLE_ROWS,
              "post: a gate table while another one is being copied");
    LDA_CHECK(entry.out_octet < entry.item_octets, "post: a first octet outside of its item");
    LDA_CHECK(!gated || !entry.residual, "post: a residual of gated values");
    LDA_CHECK(!entry.by_item || entry.item_octets >= TILE_WORDS,
              "post: sums item by item, but a tile of several items");
    LDA_CHECK(!entry.by_item || shape.octets == entry.items * entry.item_octets,
              "post: sums item by item of a part of them");
    // of later rounds
    const bool keeps_sums = !one_tile && shape.units > shape.per_round;
    LDA_CHECK(!entry.row_sums || !keeps_sums || shape.octets * GROUP <= P::SUMS,
              "post: more row sums than SUMS");
    LDA_CHECK(!row_stats || shape.units <= shape.per_round || shape.octets <= P::ROW_OCTETS,
              "post: more octets with row statistics than ROW_OCTETS");

#pragma HLS array_partition variable = memory.gate_table.lane complete dim = 1
#pragma HLS bind_storage variable = memory.gate_table.lane type = ram_s2p impl = bram
#pragma HLS bind_storage variable = memory.table type = ram_s2p impl = lutram
#pragma HLS aggregate variable = memory.scale compact = bit
    RowSums tile_row_sums[TILE_WORDS];
#pragma HLS array_partition variable = tile_row_sums complete
    StatSums tile_stats[TILE_WORDS];
#pragma HLS array_partition variable = tile_stats complete
    ValueWord values[TILE_WORDS];  // of a tile, until the gate's words come
#pragma HLS array_partition variable = values complete
    for (int k = 0; k < TILE_WORDS; ++k) {
#pragma HLS unroll
        tile_row_sums[k] = RowSums();
        tile_stats[k] = StatSums();
    }
    StatSums running = empty_sums(false);
    int running_key = -1;
    Word even = Word();  // the even octet of a narrow pair

    int table_left = entry.table ? 2 * TABLE_SIZE / WORD_BYTES : 0;
    int units_left = shape.units, units_now = least(shape.per_round, shape.units);
    bool first_round = true;
    int param = 0, param_unit = 0, param_bias = 0, settle = 0;
    int unit = 0, word = 0, octet = 0;  // word: octet of the tile, octet: of the execution
    int unit_bias = 0;                  // the unit's first bias word, unless they are joined
    Turns turns;
    turns.start();
    const ItemOctet start = {0, entry.out_octet};
    ItemOctet tile_at = start, at = start;
    StatSender sender;
    sender.start(units_now / shape.gates, entry.items, entry.by_item != 0);
    bool sending = false;  // the sums of the round before are not all sent
    bool loading = true, done = false;
WORDS:
    while (!done) {
#pragma HLS pipeline II = 1 style = flp
// A sum is read again POST_DISTANCE iterations after it was written, or later, and a parameter too.
#pragma HLS dependence variable = memory.group_sums.sums type = inter false
#pragma HLS dependence variable = memory.group_sums.sent type = inter false
#pragma HLS dependence variable = memory.scale type = inter false
#pragma HLS dependence variable = memory.bias type = inter false
// A gated entry begins when the whole table has been copied.
#pragma HLS dependence variable = memory.gate_table.lane type = inter false
#pragma HLS dependence variable = memory.table type = inter false
// What a round writes is read in the next one, behind that one's parameters.
#pragma HLS dependence variable = memory.row_stats type = inter false
#pragma HLS dependence variable = memory.row_sums type = inter false
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        bool closes = false, ends = false;
        StatWord stats = StatWord();
        bool has_stats = sender.ready();
        if (has_stats) {
            stats = memory.group_sums.sent[sender.group * P::ITEMS + sender.item];
            sender.next();
        }
        const int copied = table_row;
        const bool copies = copied < TABLE_ROWS;
        if (table_row < TABLE_READY) ++table_row;
        if (loading) {
            const Word parameter = qp_s.read();
            if (table_left > 0) {
                memory.table[2 * TABLE_SIZE / WORD_BYTES - table_left] = parameter;
                --table_left;
                if (table_left == 0) table_row = 0;
            } else {
                if (param == 0) {
                    memory.scale[param_unit] = kept_scale(parameter);
                } else {
                    memory.bias[param_bias++] = parameter;
                }
                if (++param == params) {
                    param = 0;
                    if (++param_unit == units_now) {
                        param_unit = param_bias = 0;
                        loading = false;
                        // every unit after the first one begins two words later
                        settle = units_now == 1 ? POST_DISTANCE - 1 : 0;
                    }
                }
            }
        } else if (settle > 0) {
            --settle;
        } else if (gated && table_row < TABLE_READY) {
            // until the whole table has been copied
        } else if (units_now > 0 && !sending) {
            const bool value = gated && (unit & 1) == 0;
            const bool last_round = units_left == units_now;
            const bool first_output = unit == shape.gates - 1, last_unit = unit == units_now - 1;
            const int octets_left = shape.octets - octet + word;  // from this tile on
            const bool last_tile = octets_left <= TILE_WORDS;
            const bool last_word = word == least(TILE_WORDS, octets_left) - 1;
            const int pixels = entry.pixels - at.octet * GROUP;

            AccWord acc;
            if (word & 1) {
                acc = bs_s.read();
            } else {
                acc = as_s.read();
            }
            // of a joined product with V: divided, no statistics, a destination of its own
            const bool of_v = turns.of_v(shape, unit);
            const int place = turns.place(shape, unit);
            const bool wide = (of_v ? entry.pv_wide : entry.wide) != 0;
            const bool divided = entry.row_sums && (of_v || !joined);
            Pair residual = Pair();
            if (entry.residual) residual = rs_s.read();
            RowSums row_sums = tile_row_sums[word];
            if (entry.row_sums && unit == 0) {
                if (first_round) {
                    row_sums = row_sums_of(ss_s.read());
                    if (keeps_sums) memory.row_sums[octet] = row_sums;
                } else if (!one_tile) {
                    row_sums = memory.row_sums[octet];
                }
                tile_row_sums[word] = row_sums;
            }
            Reciprocal reciprocals[GROUP];
            reciprocals_of(row_sums, reciprocals);
            const WordScale scale = scale_of(memory.scale[place]);
            const Word bias_word = memory.bias[(joined ? place : unit_bias) + at.item / 2];
            int32_t bias[GROUP];
            for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
                bias[o] = int32_at(bias_word, (at.item & 1) * GROUP + o);
            }
            int16_t added[LANES];
            join_planes(residual.b[0], residual.b[1], added);
            ScaledWord scaled;
            scale_word(acc, bias, scale, divided, reciprocals, entry.residual != 0, added,
                       entry.residual_shift, scaled);
            if (value) {
                keep_values(scaled, values[word]);
            } else {
                ResultWord result;
                if (gated) {
                    gate_word(values[word], scaled, memory.gate_table, entry.gate_shift, result);
                } else {
                    saturate_word(scaled, wide, result);
                }
                const bool odd = (word & 1) != 0;
                ResultPair pair;
                pair.b[0] = wide ? plane_of(result, 0) : even;
                pair.b[1] = plane_of(result, wide ? 1 : 0);
                pair.written = scale.written ? 1 : 0;
                if (wide || odd) ys_s.write(pair);
                even = pair.b[1];

                const int key = (unit / shape.gates) * P::ITEMS + at.item;
                StatSums before = running;
                if (row_stats) {
                    before = tile_stats[word];
                    if (first_output) {
                        before = empty_sums(entry.stats == STATS_SOFTMAX);
                        if (!first_round) before = sums_of(memory.row_stats[octet]);
                    }
                } else if (octet == 0 || at.octet == 0) {
                    before = empty_sums(false);
                } else if (key != running_key) {
                    before = sums_of(memory.group_sums.sums[key]);
                }
                StatSums after = before;
                if (entry.stats != STATS_NONE && !of_v) {
                    after = add_octet(before, result, entry.stats, pixels, scale);
                }
                running = after;
                running_key = key;
                tile_stats[word] = after;
                if (group_stats) {
                    memory.group_sums.sums[key] = stat_word(after);
                    memory.group_sums.sent[key] = stat_word(after);
                    // the tile's first item is the only one that it can finish
                    const bool ends_item = tile_at.octet + word + 1 >= entry.item_octets;
                    closes = last_word && (entry.by_item ? ends_item : last_tile);
                }
                if (row_stats && last_unit) {
                    if (last_round) {
                        stats = stat_word(after);
                        has_stats = true;
                    } else {
                        memory.row_stats[octet] = stat_word(after);
                    }
                }
            }

            ++word;
            ++octet;
            at.next(entry.item_octets);
            if (last_word) {
                octet -= word;
                if (!last_unit) {
                    turns.pass(shape, unit);
                    ++unit;
                    unit_bias += bias_words;
                    at = tile_at;
                } else {
                    turns.start();
                    unit = unit_bias = 0;
                    octet += word;
                    tile_at = at;
                    ends = last_tile;
                }
                word = 0;
            }
        }
        if (has_stats) st_s.write(stats);
        if (copies) load_gate_row(memory.table[copied / ROWS_PER_WORD], copied, memory.gate_table);
        sender.pass(closes);
        if (ends) {
            sending = group_stats;
            units_left -= units_now;
            units_now = least(shape.per_round, units_left);
            loading = units_now > 0;
            first_round = false;
            octet = 0;
            at = tile_at = start;
            running_key = -1;
        }
        if (sending && sender.left == 0) {
            sending = false;
            sender.start(units_now / shape.gates, entry.items, entry.by_item != 0);
        }
        done = !loading && units_now == 0 && !sending;
    }
    LOOP_EXIT();
}

template <class P>
void post(const Segment* segments, int segment_count, const PostEntry* entries,
          PostMemory<P>& memory, hls::stream<AccWord>& as_s, hls::stream<AccWord>& bs_s,
          hls::stream<Pair>& rs_s, hls::stream<Word>& qp_s, hls::stream<SumWord>& ss_s,
          hls::stream<ResultPair>& ys_s, hls::stream<StatWord>& st_s) {
#pragma HLS inline
    static_assert(CheckEngine<P>::ok, "engine parameters");
    int table_row = TABLE_READY;
SEGMENTS:
    for (int s = 0; s < segment_count; ++s) {
        const Segment segment = segments[s];
    LOOPS:
        for (int i = 0; i < segment.n0 * segment.n1; ++i) {
        ENTRIES:
            for (int k = 0; k < segment.count; ++k) {
                const PostEntry entry = entries[segment.first + k];
                post_entry<P>(entry, memory, table_row, as_s, bs_s, rs_s, qp_s, ss_s, ys_s, st_s);
            }
        }
    }
}

}  // namespace lda

#endif
