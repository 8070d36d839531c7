// Engine parameters: the template argument of every kernel.
//
// A build derives its own struct from EngineDefaults and hides what it changes:
//     struct Engine : lda::EngineDefaults { static const int STORE_ROWS = 16384; };
#ifndef LDA_PARAMS_HPP
#define LDA_PARAMS_HPP

#include "types.hpp"

namespace lda {

struct EngineDefaults {
    // PP pixels x PI inputs x PO outputs multiply-accumulates per cycle
    static const int PP = 32;
    static const int PI = 16;
    static const int PO = 8;
    static const int WINDOW_ROWS = 512;      // 16-byte words per window bank
    static const int WEIGHT_ROWS = 1024;     // rows of PI x PO weights per buffer half
    static const int STORE_ROWS = 32768;     // 64-byte rows of the activation store
    static const int STATS_CHANNELS = 4096;  // (item, channel) pairs of sums
    static const int ROW_WORDS = 64;         // 64-channel blocks of one pixel, all sources
    static const int SUMS = 1024;            // pixels of a softmax layer, rounded up to 8
    static const int ITEMS = 8;              // batch items
    static const int SCALE_WORDS = 128;      // items x blocks of a group-normalised layer
    static const int LAG = 8;                // tiles between the store's reads and its writes
    static const int GUARD = 4;              // cycles from a write to the window or weight buffer
                                             // to the first read of the same word
    // FIFO depths in elements: between kernels
    static const int DEPTH_XS = 64;
    static const int DEPTH_PX = 64;
    static const int DEPTH_KS = 2048;
    static const int DEPTH_WS = 128;
    static const int DEPTH_AS = 32;
    static const int DEPTH_RS = 128;
    static const int DEPTH_YS = 128;
    static const int DEPTH_ST = 32;
    static const int DEPTH_SS = 256;
    static const int DEPTH_PP = 64;
    static const int DEPTH_QP = 64;
    // and inside pre: rows, parameters, sums of rows, sums of groups, scales, epsilon
    static const int DEPTH_ROWS = 256;
    static const int DEPTH_PARAMS = 64;
    static const int DEPTH_ROW_SUMS = 128;
    static const int DEPTH_GROUP_SUMS = 16;
    static const int DEPTH_SCALES = 128;
    static const int DEPTH_EPS = 4;
    // cycles that only the simulation needs to know (hls/sim/timing.hpp)
    static const int PIPELINE_DEPTH = 8;
    static const int LOOP_ENTRY = 1;
    static const int LOOP_EXIT_CYCLES = 1;
    static const int FIFO_LATENCY = 1;
    static const int KERNEL_START = 20;
};

// Instantiated by every kernel.
template <class P>
struct CheckEngine {
    static_assert(P::PI == SUB && P::PO == GROUP,
                  "streams carry 16 inputs and 8 outputs per weight row");
    static_assert(P::PP % 8 == 0 && P::PP >= 8 && (P::PP & (P::PP - 1)) == 0,
                  "a tile is a power of two of whole 8-pixel words");
    static_assert(P::WINDOW_ROWS > 0 && P::WEIGHT_ROWS > 0 && P::STORE_ROWS > 0,
                  "every memory has a row");
    static_assert(P::STORE_ROWS % GROUP == 0, "8 store banks of equal size");
    static_assert(P::STATS_CHANNELS % GROUP == 0, "statistics come in words of 8 channels");
    static_assert(P::SUMS % GROUP == 0, "row sums are read 8 at a time");
    static_assert(P::ROW_WORDS > 0 && P::ITEMS > 0 && P::SCALE_WORDS > 0, "sizes are positive");
    static_assert(P::GUARD >= 1, "a word is read after it was written");
    static_assert(P::LAG >= 1, "a tile is written after it was computed");
    // what waits between the array and the store while the store runs LAG tiles ahead
    static_assert((P::DEPTH_YS + P::DEPTH_AS) * GROUP >= (P::LAG + 1) * P::PP,
                  "ys and as together hold the tiles that the store lags behind");
    // A tile's words pass through the pipelines of store, mac and post, each of which holds its
    // last PIPELINE_DEPTH iterations back while it waits; mac sends a tile while it computes the
    // next, post a word while it takes the next.
    static_assert((P::LAG - 1) * (P::PP / GROUP) >= 3 * P::PIPELINE_DEPTH + 1,
                  "the lag covers what waiting pipelines hold back");
    // a row's scale comes after its last word, two pipelines later
    static_assert(P::DEPTH_ROWS >= P::ROW_WORDS + 4 * P::PIPELINE_DEPTH,
                  "the row FIFO holds a whole row and what follows until its scale is there");
    static const bool ok = true;
};

}  // namespace lda

#endif
