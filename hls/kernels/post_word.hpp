// What post does to one word of 8 pixels x 8 outputs; lane = pixel*8 + output throughout.
#ifndef LDA_POST_WORD_HPP
#define LDA_POST_WORD_HPP

#include "arithmetic.hpp"
#include "types.hpp"
#include "words.hpp"

namespace lda {

static const int LANES = GROUP * GROUP;

struct WordScale {
    int32_t mult[GROUP];
    int32_t shift[GROUP];
    bool counts[GROUP];  // in softmax statistics
    bool written;        // the unit, of output 0
};

// What is kept of a scale word, in as few bits as its values have (docs/numerics.md): mult < 2^17,
// shift <= 46.
struct KeptScale {
    uint16_t mult[GROUP];  // low bits
    bool high[GROUP];
    uint8_t shift[GROUP];
    bool counts[GROUP];
    bool written;
};

inline KeptScale kept_scale(const Word& word) {
#pragma HLS inline
    KeptScale kept;
OUTPUTS:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        const int32_t mult = int32_at(word, o), shift = int32_at(word, GROUP + o);
        kept.mult[o] = uint16_t(mult);
        kept.high[o] = ((mult >> 16) & 1) != 0;
        kept.shift[o] = uint8_t(shift & 255);
        kept.counts[o] = ((shift >> 8) & 1) != 0;
    }
    kept.written = ((int32_at(word, GROUP) >> 9) & 1) == 0;
    return kept;
}

inline WordScale scale_of(const KeptScale& kept) {
#pragma HLS inline
    WordScale scale;
OUTPUTS:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        scale.mult[o] = int32_t(kept.mult[o]) + (kept.high[o] ? 1 << 16 : 0);
        scale.shift[o] = kept.shift[o];
        scale.counts[o] = kept.counts[o];
    }
    scale.written = kept.written;
    return scale;
}

// rshr(v, shift), before saturation.
struct ScaledWord {
    int64_t t[LANES];
};

// Value rows of a gate, 16 bits.
struct ValueWord {
    int16_t value[LANES];
};

// Stored values.
struct ResultWord {
    int16_t y[LANES];
};

// Activation of the gate rows. In hardware every lane has its own copy in one block RAM, rows of
// four entries, so that a table is replaced in TABLE_ROWS cycles and read in all lanes at once.
// Copies in LUTRAM, replaced in 64 cycles, would take 12 % of an SLR's look-up tables. So a table
// is kept as it comes and copied beside the words of the entries before the gated one.
static const int ROW_ENTRIES = 4;
static const int TABLE_ROWS = TABLE_SIZE / ROW_ENTRIES;
static const int ROWS_PER_WORD = WORD_BYTES / (2 * ROW_ENTRIES);

struct TableRow {
    int16_t entry[ROW_ENTRIES];
};

struct GateTable {
#ifdef LDA_FAST
    int16_t value[TABLE_SIZE];
#else
    TableRow lane[LANES][TABLE_ROWS];
#endif
};

// Row `row` of the table, which is in `word`.
inline void load_gate_row(const Word& word, int row, GateTable& table) {
#pragma HLS inline
    TableRow entries;
    for (int k = 0; k < ROW_ENTRIES; ++k) {
#pragma HLS unroll
        entries.entry[k] = int16_at(word, row % ROWS_PER_WORD * ROW_ENTRIES + k);
    }
#ifdef LDA_FAST
    for (int k = 0; k < ROW_ENTRIES; ++k)
        table.value[row * ROW_ENTRIES + k] = entries.entry[k];
#else
    for (int l = 0; l < LANES; ++l) {
#pragma HLS unroll
        table.lane[l][row] = entries;
    }
#endif
}

inline int16_t gate_value(const GateTable& table, int lane, int index) {
#pragma HLS inline
#ifdef LDA_FAST
    static_cast<void>(lane);
    return table.value[index];
#else
    return table.lane[lane][index / ROW_ENTRIES].entry[index % ROW_ENTRIES];
#endif
}

// rshr(a * mult + residual * 2^(shift + residual_shift), shift) with a = acc + bias, divided by the
// row sum of its pixel first if `divide`.
inline void scale_word_plain(const AccWord& acc, const int32_t (&bias)[GROUP],
                             const WordScale& rows, bool divide,
                             const Reciprocal (&reciprocals)[GROUP], bool with_residual,
                             const int16_t (&residual)[LANES], int residual_shift,
                             ScaledWord& scaled) {
#pragma HLS inline
PIXELS:
    for (int p = 0; p < GROUP; ++p) {
#pragma HLS unroll
        for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
            const int l = p * GROUP + o;
            // lanes without a pixel hold anything: wrap, do not overflow
            int32_t a = int32_t(uint32_t(acc.a[l]) + uint32_t(bias[o]));
            if (divide) {
                a = int32_t(rshr(int64_t(a) * reciprocals[p].r, reciprocals[p].shift));
            }
            int64_t v = int64_t(a) * rows.mult[o];
            if (with_residual) v += shift_left(residual[l], rows.shift[o] + residual_shift);
            scaled.t[l] = LDA_FAULT == 1 ? v >> rows.shift[o] : rshr(v, rows.shift[o]);
        }
    }
}

#ifdef LDA_FAST

// The same in loops that vectorise (see rshr_by_offset).
inline void scale_word_fast(const AccWord& acc, const int32_t (&bias)[GROUP], const WordScale& rows,
                            bool divide, const Reciprocal (&reciprocals)[GROUP], bool with_residual,
                            const int16_t (&residual)[LANES], int residual_shift,
                            ScaledWord& scaled) {
    int32_t a[LANES];
    for (int p = 0; p < GROUP; ++p)
        for (int o = 0; o < GROUP; ++o)
            a[p * GROUP + o] = int32_t(uint32_t(acc.a[p * GROUP + o]) + uint32_t(bias[o]));
    if (divide) {
        for (int p = 0; p < GROUP; ++p) {
            const int32_t r = reciprocals[p].r;
            const int shift = reciprocals[p].shift;
            for (int o = 0; o < GROUP; ++o)
                a[p * GROUP + o] = int32_t(rshr_by_offset(int64_t(a[p * GROUP + o]) * r, shift));
        }
    }
    int64_t half[GROUP], base[GROUP], residual_unit[GROUP];
    uint64_t shift[GROUP];
    const uint64_t offset = uint64_t(1) << 62;
    for (int o = 0; o < GROUP; ++o) {
        shift[o] = uint64_t(rows.shift[o]);
        half[o] = int64_t(((LDA_FAULT == 1 ? 0 : (uint64_t(1) << shift[o]) >> 1)) + offset);
        base[o] = int64_t(offset >> shift[o]);
        residual_unit[o] = with_residual ? int64_t(1) << (rows.shift[o] + residual_shift) : 0;
    }
    for (int p = 0; p < GROUP; ++p) {
        int64_t v[GROUP];
        for (int o = 0; o < GROUP; ++o)
            v[o] = int64_t(a[p * GROUP + o]) * rows.mult[o];
        if (with_residual) {
            for (int o = 0; o < GROUP; ++o)
                v[o] += residual[p * GROUP + o] * residual_unit[o];
        }
        for (int o = 0; o < GROUP; ++o)
            scaled.t[p * GROUP + o] =
                int64_t((uint64_t(v[o]) + uint64_t(half[o])) >> shift[o]) - base[o];
    }
}

#endif

inline void scale_word(const AccWord& acc, const int32_t (&bias)[GROUP], const WordScale& rows,
                       bool divide, const Reciprocal (&reciprocals)[GROUP], bool with_residual,
                       const int16_t (&residual)[LANES], int residual_shift, ScaledWord& scaled) {
#pragma HLS inline
#ifdef LDA_FAST
    scale_word_fast(acc, bias, rows, divide, reciprocals, with_residual, residual, residual_shift,
                    scaled);
#else
    scale_word_plain(acc, bias, rows, divide, reciprocals, with_residual, residual, residual_shift,
                     scaled);
#endif
}

inline void saturate_word(const ScaledWord& scaled, bool wide, ResultWord& result) {
#pragma HLS inline
    const int64_t high = wide ? 32767 : 127, low = -high - 1;
LANES:
    for (int l = 0; l < LANES; ++l) {
#pragma HLS unroll
        const int64_t t = scaled.t[l];
        result.y[l] = int16_t(t < low ? low : t > high ? high : t);
    }
}

inline void keep_values(const ScaledWord& scaled, ValueWord& values) {
#pragma HLS inline
LANES:
    for (int l = 0; l < LANES; ++l) {
#pragma HLS unroll
        values.value[l] = int16_t(clamp<16>(scaled.t[l]));
    }
}

// GEGLU: values times the activation of the gate rows.
inline void gate_word(const ValueWord& values, const ScaledWord& gates, const GateTable& table,
                      int shift, ResultWord& result) {
#pragma HLS inline
LANES:
    for (int l = 0; l < LANES; ++l) {
#pragma HLS unroll
        const int index = clamp<11>(gates.t[l]) + TABLE_SIZE / 2;
        const int64_t product = int64_t(values.value[l]) * gate_value(table, l, index);
        result.y[l] = int16_t(clamp<8>(rshr(product, shift)));
    }
}

inline Word plane_of(const ResultWord& result, int plane) {
#pragma HLS inline
    Word word;
LANES:
    for (int l = 0; l < LANES; ++l) {
#pragma HLS unroll
        word.b[l] = int8_t(uint16_t(result.y[l]) >> (plane == 0 ? 0 : 8));
    }
    return word;
}

}  // namespace lda

#endif
