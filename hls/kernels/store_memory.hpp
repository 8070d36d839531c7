// The activation store's memory: rows of 128 bytes in two planes of 64-byte words, and where a
// tensor's octets lie in it (docs/engine.md, "Activation store").
//
// In every cycle one row is read and another one written: each plane is a memory with one read and
// one write port.
#ifndef LDA_STORE_MEMORY_HPP
#define LDA_STORE_MEMORY_HPP

#include "program.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

template <class P>
struct StoreTypes {
    typedef Word Memory[2][P::STORE_ROWS];  // [plane][row]
};

// A region in one iteration of its segment.
struct Location {
    int row;
    int octet;
    int group_rows;
    bool wide;
};

inline Location location_of(const Region& region, int i0, int i1) {
#pragma HLS inline
    Location place;
    place.row = at(region.row, i0, i1);
    place.octet = at(region.octet, i0, i1);
    place.group_rows = region.group_rows;
    place.wide = region.wide != 0;
    return place;
}

// Row of an octet of a local group.
inline int row_of(const Location& place, int group, int octet) {
#pragma HLS inline
    const int in_tensor = place.octet + octet;
    return place.row + group * place.group_rows + (place.wide ? in_tensor : in_tensor >> 1);
}

template <class P>
inline Pair read_row(const Word (&memory)[2][P::STORE_ROWS], int row) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row < P::STORE_ROWS, "store: a row outside of the activation store");
    Pair pair;
    pair.b[0] = memory[0][row];
    pair.b[1] = memory[1][row];
    return pair;
}

template <class P>
inline void write_row(Word (&memory)[2][P::STORE_ROWS], int row, const Pair& pair) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row < P::STORE_ROWS, "store: a row outside of the activation store");
    memory[0][row] = pair.b[0];
    memory[1][row] = pair.b[1];
}

// One plane of a row.
template <class P>
inline Word read_half(const Word (&memory)[2][P::STORE_ROWS], int row, int plane) {
#pragma HLS inline
    const Pair pair = read_row<P>(memory, row);
    return plane ? pair.b[1] : pair.b[0];
}

template <class P>
inline void write_half(Word (&memory)[2][P::STORE_ROWS], int row, int plane, const Word& word) {
#pragma HLS inline
    LDA_CHECK(row >= 0 && row < P::STORE_ROWS, "store: a row outside of the activation store");
    if (plane) {
        memory[1][row] = word;
    } else {
        memory[0][row] = word;
    }
}

// One octet of a local group: both planes, or a narrow one's word in b[0].
template <class P>
inline Pair read_octet(const Word (&memory)[2][P::STORE_ROWS], const Location& place, int group,
                       int octet) {
#pragma HLS inline
    Pair pair = read_row<P>(memory, row_of(place, group, octet));
    if (!place.wide && ((place.octet + octet) & 1)) pair.b[0] = pair.b[1];
    return pair;
}

}  // namespace lda

#endif
