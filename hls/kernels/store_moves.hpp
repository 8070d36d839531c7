// Rows that move between the activation store and the rank's DDR bank, in bursts that are asked for
// SPILL_AHEAD bursts before their words come, or whose answers come that much later.
#ifndef LDA_STORE_MOVES_HPP
#define LDA_STORE_MOVES_HPP

#include "port.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "types.hpp"

namespace lda {

static const int SPILL_BURST = 64;  // words of memory, at most, in one burst
static const int SPILL_AHEAD = 8;   // bursts under way

// In place of the port of a program without moves.
struct NoSpill {};

// A position in the words of a move, piece by piece.
struct MoveWalk {
    int row, ddr;  // of the piece, in rows
    int word;      // of its words

    void start(const Move& move, int i0, int i1) {
#pragma HLS inline
        row = at(move.store, i0, i1);
        ddr = at(move.ddr, i0, i1);
        word = 0;
    }

    // Words of the next burst, which does not go beyond the piece.
    int burst(const Move& move) const {
#pragma HLS inline
        return least(SPILL_BURST, 2 * move.rows - word);
    }

    // Whether a burst ends with these words.
    bool next(const Move& move, int words) {
#pragma HLS inline
        word += words;
        if (word < 2 * move.rows) return word % SPILL_BURST == 0;
        word = 0;
        row += move.store_stride;
        ddr += move.ddr_stride;
        return true;
    }
};

// From DDR into the store.
template <class P, class Port>
void store_fetch(Port spill, const Move& move, int i0, int i1,
                 typename StoreTypes<P>::Memory& memory) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
    MoveWalk asking, coming;
    asking.start(move, i0, i1);
    coming.start(move, i0, i1);
    int to_ask = 2 * move.rows * move.repeat, to_come = to_ask;
    int ahead = 0;  // bursts that were asked for and have not come
FETCH:
    while (to_come > 0) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (to_ask > 0 && ahead < SPILL_AHEAD) {
            const int words = asking.burst(move);
            spill.read_request(2 * asking.ddr + asking.word, words);
            asking.next(move, words);
            to_ask -= words;
            ++ahead;
        } else {
            write_half<P>(memory, coming.row + (coming.word >> 1), coming.word & 1,
                          word_of(spill.read()));
            if (coming.next(move, 1)) --ahead;
            --to_come;
        }
    }
    LOOP_EXIT();
}

// From the store into DDR; all is there when it ends.
template <class P, class Port>
void store_put(Port spill, const Move& move, int i0, int i1,
               typename StoreTypes<P>::Memory& memory) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
    MoveWalk going;
    going.start(move, i0, i1);
    int to_go = 2 * move.rows * move.repeat;
    int burst = 0;    // words of the burst that are still to go
    int answers = 0;  // bursts without an answer
PUT:
    while (to_go > 0 || answers > 0) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 64 max = 65536
        TICK(1);
        if (burst > 0) {
            spill.write(
                port_word(read_half<P>(memory, going.row + (going.word >> 1), going.word & 1)));
            going.next(move, 1);
            --burst;
            --to_go;
        } else if (to_go > 0 && answers < SPILL_AHEAD) {
            burst = going.burst(move);
            spill.write_request(2 * going.ddr + going.word, burst);
            ++answers;
        } else {
            spill.write_response();
            --answers;
        }
    }
    LOOP_EXIT();
}

// Whether a store has the port.
template <class Port>
struct Spills {
    static const bool yes = true;
};
template <>
struct Spills<NoSpill> {
    static const bool yes = false;
};

template <class P, bool SPILLS>
struct Moving {
    // Moves from .. end - 1 behind `first`, one after the other.
    template <class Port>
    static void run(Port spill, const Move* moves, int first, int from, int end, int i0, int i1,
                    typename StoreTypes<P>::Memory& memory) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
    MOVES:
        for (int m = first + from; m < first + end; ++m) {
#pragma HLS loop_tripcount min = 1 max = 8
            const Move move = moves[m];
            if (move.put) {
                store_put<P>(spill, move, i0, i1, memory);
            } else {
                store_fetch<P>(spill, move, i0, i1, memory);
            }
        }
    }
};

template <class P>
struct Moving<P, false> {
    static void run(NoSpill, const Move*, int, int, int, int, int,
                    typename StoreTypes<P>::Memory&) {
#pragma HLS inline
    }
};

template <class P, class Port>
void store_moves(Port spill, const Move* moves, int first, int from, int end, int i0, int i1,
                 typename StoreTypes<P>::Memory& memory) {
#pragma HLS inline
    Moving<P, Spills<Port>::yes>::run(spill, moves, first, from, end, i0, i1, memory);
}

}  // namespace lda

#endif
