// The window buffer: operands of all window pixels of an execution.
//
// Plain form: PP banks x 2 halves of 8 bytes; window pixel i, sub j in bank (i + 8*j) mod PP, row
// (i div PP)*subs + j. A Beat's R words of 8 neighbouring pixels touch no half bank twice, and PP
// consecutive pixels of one sub lie in PP different banks. Fast form: pixel by pixel, as the leaf
// wants operands.
#ifndef LDA_WINDOW_HPP
#define LDA_WINDOW_HPP

#include "fill_walk.hpp"
#include "leaf.hpp"
#include "params.hpp"
#include "sequence.hpp"
#include "types.hpp"

namespace lda {

// Which words of a Beat are kept, and where: word r is group `first` + r of a source of `groups`
// groups whose first sub is `sub`; what lies in front of sub 0 is not kept.
struct BeatPlace {
    int32_t first;
    int32_t groups;
    int32_t sub;
};

// 8 operands of one pixel: half of a sub.
struct HalfOperands {
    int8_t x[GROUP];
};

// 16 operands of one pixel: a sub.
struct Operands {
    int8_t x[SUB];
};

#ifdef LDA_FAST

template <class P>
struct Window {
    uint8_t operand[P::WINDOW_ROWS * P::PP * SUB];
};

template <class P>
inline void write_window(Window<P>& window, int subs, const BeatPlace& place,
                         const FillLanes& lanes, const Beat<P::RANKS>& beat) {
    const int words = least(P::RANKS, place.groups - place.first);
    const int size = P::WINDOW_ROWS * P::PP;
    const bool clears = words > 0 && place.first + words == place.groups && (place.groups & 1);
    for (int l = 0; l < GROUP; ++l) {
        const int i = lanes.index[l];
        if (i < 0) continue;
        const int at = (i * subs + place.sub) * SUB + place.first * GROUP;
        LDA_CHECK((i / P::PP + 1) * P::PP * subs <= size,
                  "mac: a window pixel outside of the window buffer");
        // words in front of sub 0 are not kept
        for (int r = most(0, -2 * place.sub - place.first); r < words; ++r)
            store_operands(beat.b[r].b + l * GROUP, window.operand + (at + r * GROUP));
        if (clears) clear_operands(window.operand + at + words * GROUP);
    }
}

#else

template <class P>
struct Window {
    HalfOperands bank[P::PP][2][P::WINDOW_ROWS];
};

template <class P>
inline void write_window(Window<P>& window, int subs, const BeatPlace& place,
                         const FillLanes& lanes, const Beat<P::RANKS>& beat) {
#pragma HLS inline
    int row[GROUP];
#pragma HLS array_partition variable = row complete
ROWS:
    for (int l = 0; l < GROUP; ++l) {
#pragma HLS unroll
        row[l] = lanes.index[l] / P::PP * subs + place.sub;
        LDA_CHECK(lanes.index[l] < 0 || row[l] - place.sub + subs <= P::WINDOW_ROWS,
                  "mac: a window pixel outside of the window buffer");
    }
BANKS:
    for (int bank = 0; bank < P::PP; ++bank) {
#pragma HLS unroll
        for (int half = 0; half < 2; ++half) {
#pragma HLS unroll
            HalfOperands operands = HalfOperands();
            int to = -1;
            for (int r = 0; r < P::RANKS; ++r) {
#pragma HLS unroll
                const int k = place.first + r;
                // with several ranks `first` is even
                const int own_half = (P::RANKS > 1 ? r : k) & 1;
                const int sub = k >> 1;
                const bool kept = place.sub + sub >= 0;
                const bool data = kept && k < place.groups && own_half == half;
                const bool zero = kept && k == place.groups - 1 && own_half == 0 && half == 1;
                for (int l = 0; l < GROUP; ++l) {
#pragma HLS unroll
                    const int i = lanes.index[l];
                    const int own_bank = (i + GROUP * (place.sub + sub)) & (P::PP - 1);
                    if (i >= 0 && own_bank == bank && (data || zero)) {
                        LDA_CHECK(to < 0, "mac: two lanes of a Beat meet in a window bank");
                        to = row[l] + sub;
                        for (int b = 0; b < GROUP; ++b) {
#pragma HLS unroll
                            operands.x[b] = data ? beat.b[r].b[l * GROUP + b] : int8_t(0);
                        }
                    }
                }
            }
            if (to >= 0) window.bank[bank][half][to] = operands;
        }
    }
}

// Operands of sub `sub` of window pixels start .. start+PP-1, lane by lane.
template <class P>
inline void read_window(const Window<P>& window, int start, int subs, int sub,
                        Operands (&lane)[P::PP]) {
#pragma HLS inline
    Operands bank[P::PP];
#pragma HLS array_partition variable = bank complete
    // start .. start+PP-1 lie in two rows; lanes outside of the buffer are masked: any row will do
    const int low = start >= 0 ? start / P::PP : 0, high = (start + P::PP - 1) / P::PP;
    const int low_row = low * subs + sub, high_row = high * subs + sub;
    const int crossing = start & (P::PP - 1);
BANKS:
    for (int b = 0; b < P::PP; ++b) {
#pragma HLS unroll
        const int pixel = (b - GROUP * sub) & (P::PP - 1);  // mod PP
        const int row = pixel >= crossing ? low_row : high_row;
        const int safe = row >= 0 && row < P::WINDOW_ROWS ? row : 0;
        for (int k = 0; k < SUB; ++k) {
#pragma HLS unroll
            bank[b].x[k] = window.bank[b][k / GROUP][safe].x[k % GROUP];
        }
    }
LANES:
    for (int l = 0; l < P::PP; ++l) {
#pragma HLS unroll
        lane[l] = bank[(start + l + GROUP * sub) & (P::PP - 1)];
    }
}

#endif

}  // namespace lda

#endif
