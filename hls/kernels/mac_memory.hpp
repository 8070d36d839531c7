// The memories of mac: window buffer and weight buffer.
//
// Plain form: PP window banks of 16 bytes, window pixel i, sub j in bank (i + PP/4 * j) mod PP at
// row (i div PP) * subs + j. A fill word (up to 4 subs of one pixel) then writes banks PP/4 apart,
// and PP consecutive pixels of one sub lie in PP different banks. Fast form: the same words pixel
// by pixel, widened to int16 for the leaf.
#ifndef LDA_MAC_MEMORY_HPP
#define LDA_MAC_MEMORY_HPP

#include "leaf.hpp"
#include "params.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// 16 operands of one pixel.
struct Operands {
    int8_t x[SUB];
};

#ifdef LDA_FAST

template <class P>
struct MacMemory {
    int16_t window[P::WINDOW_ROWS * P::PP * SUB];
    int16_t weights[2][P::WEIGHT_ROWS * STEP_WEIGHTS];
};

// Subs first .. first+count-1 of the word become subs `sub`.. of window pixel i.
template <class P>
inline void write_window(MacMemory<P>& memory, int i, int subs, int sub, int first, int count,
                         const Word& word) {
    const int row = (i / P::PP) * subs + sub + count - 1;
    LDA_CHECK(i >= 0 && row < P::WINDOW_ROWS, "mac: a window pixel outside of the window buffer");
    int16_t* to = memory.window + (i * subs + sub) * SUB;
    const int8_t* from = word.b + first * SUB;
    for (int k = 0; k < count * SUB; ++k)
        to[k] = from[k];
}

template <class P>
inline void write_weights(MacMemory<P>& memory, int half, int row, int side, bool transposed,
                          const Word& word) {
    LDA_CHECK(row < P::WEIGHT_ROWS, "mac: a weight row outside of the weight buffer");
    pack_weights(word.b, transposed,
                 memory.weights[half] + row * STEP_WEIGHTS + side * (STEP_WEIGHTS / 2));
}

#else

template <class P>
struct MacMemory {
    Operands window[P::PP][P::WINDOW_ROWS];
    Word weights[2][2][P::WEIGHT_ROWS];  // buffer half, inputs 0-7 or 8-15, step
};

template <class P>
inline void write_window(MacMemory<P>& memory, int i, int subs, int sub, int first, int count,
                         const Word& word) {
#pragma HLS inline
    const int spread = P::PP / 4;
    const int base = (i / P::PP) * subs;
    LDA_CHECK(i >= 0 && base + sub + count - 1 < P::WINDOW_ROWS,
              "mac: a window pixel outside of the window buffer");
BANKS:
    for (int bank = 0; bank < P::PP; ++bank) {
#pragma HLS unroll
        // this bank holds the subs j of pixel i with j mod 4 == turn, if turn is a whole number
        const int distance = (bank - i) & (P::PP - 1);
        const int turn = distance / spread;
        const int k = (turn - sub) & 3;
        Operands operands;
        for (int b = 0; b < SUB; ++b) {
#pragma HLS unroll
            operands.x[b] = word.b[((first + k) & 3) * SUB + b];
        }
        if (distance % spread == 0 && k < count) memory.window[bank][base + sub + k] = operands;
    }
}

// Operands of sub j of window pixels start .. start+PP-1, lane by lane.
template <class P>
inline void read_window(const MacMemory<P>& memory, int start, int subs, int sub,
                        Operands (&lane)[P::PP]) {
#pragma HLS inline
    Operands bank[P::PP];
#pragma HLS array_partition variable = bank complete
BANKS:
    for (int b = 0; b < P::PP; ++b) {
#pragma HLS unroll
        const int offset = (b - (P::PP / 4) * sub - start) & (P::PP - 1);
        const int i = start + offset;
        const int row = (i >= 0 ? i / P::PP : 0) * subs + sub;
        // lanes outside of the buffer are masked: any row will do
        bank[b] = memory.window[b][row < P::WINDOW_ROWS ? row : 0];
    }
LANES:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        lane[l] = bank[(start + l + (P::PP / 4) * sub) & (P::PP - 1)];
    }
}

template <class P>
inline void write_weights(MacMemory<P>& memory, int half, int row, int side, bool transposed,
                          const Word& word) {
#pragma HLS inline
    LDA_CHECK(row < P::WEIGHT_ROWS, "mac: a weight row outside of the weight buffer");
    Word turned;
OUTPUTS:
    for (int o = 0; o < GROUP; ++o) {
#pragma HLS unroll
        for (int i = 0; i < GROUP; ++i) {
#pragma HLS unroll
            turned.b[o * GROUP + i] = word.b[transposed ? i * GROUP + o : o * GROUP + i];
        }
    }
SIDES:
    for (int k = 0; k < 2; ++k) {
#pragma HLS unroll
        if (k == side) memory.weights[half][k][row] = turned;
    }
}

#endif

}  // namespace lda

#endif
