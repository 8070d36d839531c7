// The activation store's memory: rows of 64 bytes that can be reached as one row (one pixel x 64
// channels) or as a column (8 consecutive rows x 8 channels), each in one cycle.
//
// Plain form: 8 banks of 8-byte words; 8-channel group g of row r lies in bank (g + r) mod 8 at
// address r, so that a row and a column both touch every bank once. Fast form: rows as they are.
#ifndef LDA_STORE_MEMORY_HPP
#define LDA_STORE_MEMORY_HPP

#include "sequence.hpp"
#include "types.hpp"

#ifdef LDA_FAST
#include <cstring>
#endif

namespace lda {

struct Octet {
    int8_t b[GROUP];
};

#ifdef LDA_FAST

template <class P>
struct StoreTypes {
    typedef Word Memory[P::STORE_ROWS];
};

template <class P>
inline Word read_row(const Word (&memory)[P::STORE_ROWS], int row) {
    LDA_CHECK(row >= 0 && row < P::STORE_ROWS, "store: a row outside of the activation store");
    return memory[row];
}

template <class P>
inline void write_row(Word (&memory)[P::STORE_ROWS], int row, const Word& word) {
    LDA_CHECK(row >= 0 && row < P::STORE_ROWS, "store: a row outside of the activation store");
    memory[row] = word;
}

template <class P>
inline Word read_column(const Word (&memory)[P::STORE_ROWS], int row, int group) {
    LDA_CHECK(row >= 0 && row + GROUP <= P::STORE_ROWS,
              "store: a column outside of the activation store");
    Word word;
    for (int k = 0; k < GROUP; ++k)
        std::memcpy(word.b + GROUP * k, memory[row + k].b + GROUP * group, GROUP);
    return word;
}

template <class P>
inline void write_column(Word (&memory)[P::STORE_ROWS], int row, int group, const Word& word) {
    LDA_CHECK(row >= 0 && row + GROUP <= P::STORE_ROWS,
              "store: a column outside of the activation store");
    for (int k = 0; k < GROUP; ++k)
        std::memcpy(memory[row + k].b + GROUP * group, word.b + GROUP * k, GROUP);
}

#else

template <class P>
struct StoreTypes {
    typedef Octet Memory[GROUP][P::STORE_ROWS];
};

// Reads, one word per bank. As a row: bank b holds group b - row. As a column: bank b holds the
// row whose distance from `row` is b - group - row.
template <class P>
inline Word read_store(const Octet (&memory)[GROUP][P::STORE_ROWS], bool column, int row,
                       int group) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row + (column ? GROUP - 1 : 0) < P::STORE_ROWS,
              "store: a read outside of the activation store");
    Octet bank[GROUP];
#pragma HLS array_partition variable = bank complete
BANKS:
    for (int b = 0; b < GROUP; ++b) {
#pragma HLS unroll
        const int offset = column ? (b - group - row) & (GROUP - 1) : 0;
        bank[b] = memory[b][row + offset];
    }
    Word word;
OCTETS:
    for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
        // row: group k of this row; column: row + k, this group. Both are (group + row) mod 8.
        const int b = (k + row + (column ? group : 0)) & (GROUP - 1);
        for (int i = 0; i < GROUP; ++i) {
#pragma HLS unroll
            word.b[GROUP * k + i] = bank[b].b[i];
        }
    }
    return word;
}

template <class P>
inline void write_store(Octet (&memory)[GROUP][P::STORE_ROWS], bool column, int row, int group,
                        const Word& word) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row + (column ? GROUP - 1 : 0) < P::STORE_ROWS,
              "store: a write outside of the activation store");
BANKS:
    for (int b = 0; b < GROUP; ++b) {
#pragma HLS unroll
        const int k = (b - row - (column ? group : 0)) & (GROUP - 1);
        Octet octet;
        for (int i = 0; i < GROUP; ++i) {
#pragma HLS unroll
            octet.b[i] = word.b[GROUP * k + i];
        }
        memory[b][row + (column ? k : 0)] = octet;
    }
}

template <class P>
inline Word read_row(const Octet (&memory)[GROUP][P::STORE_ROWS], int row) {
#pragma HLS inline
    return read_store<P>(memory, false, row, 0);
}
template <class P>
inline void write_row(Octet (&memory)[GROUP][P::STORE_ROWS], int row, const Word& word) {
#pragma HLS inline
    write_store<P>(memory, false, row, 0, word);
}
template <class P>
inline Word read_column(const Octet (&memory)[GROUP][P::STORE_ROWS], int row, int group) {
#pragma HLS inline
    return read_store<P>(memory, true, row, group);
}
template <class P>
inline void write_column(Octet (&memory)[GROUP][P::STORE_ROWS], int row, int group,
                         const Word& word) {
#pragma HLS inline
    write_store<P>(memory, true, row, group, word);
}

#endif

}  // namespace lda

#endif
