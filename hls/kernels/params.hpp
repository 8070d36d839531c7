// Engine parameters: the template argument of every kernel.
//
// A build derives its own struct from EngineDefaults and hides what it changes:
//     struct Engine : lda::EngineDefaults { static const int RANKS = 4; };
#ifndef LDA_PARAMS_HPP
#define LDA_PARAMS_HPP

#include "types.hpp"

namespace lda {

struct EngineDefaults {
    static const int RANKS = 1;
    // of every rank: PP pixels x PI inputs x PO outputs multiply-accumulates per cycle
    static const int PP = 32;
    static const int PI = 16;
    static const int PO = 8;
    static const int WEIGHT_BITS = 8;     // of a weight row of the array: 8 or 4
    static const int STORED_BITS = 8;     // of a weight row in DDR and on the card, at least
    static const int FABRIC_OUTPUTS = 0;  // of PO, whose products are made of LUTs
    static const int WINDOW_ROWS = 4096;  // 16-byte words per window bank
    static const int WEIGHT_ROWS = 2048;  // weight rows per buffer half
    static const int UNITS = 64;          // units of a round
    static const int JOINED_UNITS = 160;  // units of joined products, which are one round
    static const int CACHE_ROWS = 0;      // weight rows that stay on the card
    static const int STORE_ROWS = 16384;  // 128-byte rows of the activation store
    static const int STATS_WORDS = 1024;  // sums of 8 channels of an item
    static const int ROW_OCTETS = 1024;   // octets with row statistics
    static const int ROW_GROUPS = 320;    // local groups of one pixel, all sources
    static const int SUMS = 1024;         // pixel slots of a softmax layer's fill
    static const int NORMALISERS = 4;     // norm groups or rows whose scales a cycle makes
    static const int ITEMS = 8;           // batch items
    static const int SCALES = 256;        // items x norm groups
    static const int LAG = 32;            // micro-slots between the store's reads and its writes
    static const int GUARD = 4;           // cycles from a write to the window or weight buffer
                                          // to the first read of the same word
    // of the latent that the sampler updates between steps: pixel slots (0: no sampler), channels
    static const int SAMPLER_PIXELS = 0;
    static const int SAMPLER_CHANNELS = 4;
    // FIFO depths in elements: between kernels
    static const int DEPTH_XS = 64;
    static const int DEPTH_PX = 16;
    static const int DEPTH_GS = 64;
    static const int DEPTH_KS = 16;
    static const int DEPTH_WS = 64;
    static const int DEPTH_AS = 32;
    static const int DEPTH_BS = 32;
    static const int DEPTH_RS = 192;
    static const int DEPTH_YS = 192;
    static const int DEPTH_ST = 16;
    static const int DEPTH_SG = 64;
    static const int DEPTH_SS = 256;
    static const int DEPTH_HD = 4;
    static const int DEPTH_PP = 384;
    static const int DEPTH_QP = 320;
    static const int DEPTH_LINK = 16;  // gather and reduce, from rank to rank
    // inside pre, gather and reduce
    static const int DEPTH_SM = 16;
    static const int DEPTH_SC = 64;
    static const int DEPTH_RK = 16;
    static const int DEPTH_MK = 16;
    static const int DEPTH_RW = 128;
    static const int DEPTH_COPY = 16;
    // cycles that only the simulation needs to know (hls/sim/timing.hpp)
    static const int STAGES_STORE = 8;  // pipeline depths
    static const int STAGES_WLOAD = 8;
    static const int STAGES_PRE = 8;     // its processes sums and apply
    static const int STAGES_SCALE = 24;  // dividers and a square root
    static const int STAGES_ROWS = 4;
    static const int STAGES_LINK = 2;  // gather and reduce
    static const int STAGES_MAC = 8;
    static const int STAGES_POST = 8;
    static const int LOOP_ENTRY = 1;
    static const int LOOP_EXIT_CYCLES = 1;
    static const int FIFO_LATENCY = 1;
    static const int KERNEL_START = 20;
};

// Weight rows of a step whose weights have 8 bits: where a row holds 4, their halves one by one.
template <class P>
constexpr int byte_rows() {
    return 8 / P::WEIGHT_BITS;
}

// Instantiated by every kernel.
template <class P>
struct CheckEngine {
    static_assert(P::RANKS == 1 || P::RANKS == 2 || P::RANKS == 4, "1, 2 or 4 ranks");
    static_assert(P::PI == SUB && P::PO == GROUP,
                  "streams carry 16 inputs and 8 outputs per weight row");
    static_assert(P::WEIGHT_BITS == 8 || P::WEIGHT_BITS == 4, "weight rows of 8 or 4 bits");
    static_assert(P::STORED_BITS == P::WEIGHT_BITS || P::STORED_BITS == 4,
                  "stored rows of as many bits as the array's, or of 4");
    static_assert(P::PP % 16 == 0 && P::PP >= 32 && (P::PP & (P::PP - 1)) == 0,
                  "a tile is a power of two of octet pairs that a Beat fits into");
    static_assert(P::FABRIC_OUTPUTS >= 0 && P::FABRIC_OUTPUTS <= P::PO, "of PO outputs");
    static_assert(P::WINDOW_ROWS > 0 && P::WEIGHT_ROWS > 0 && P::STORE_ROWS > 0 && P::UNITS > 1 &&
                      P::JOINED_UNITS > 1 && P::JOINED_UNITS <= 255 && P::CACHE_ROWS >= 0 &&
                      P::STATS_WORDS > 0 && P::ROW_OCTETS > 0 && P::ROW_GROUPS > 0 &&
                      P::SUMS % GROUP == 0 && P::ITEMS > 0 && P::SCALES > 0 &&
                      P::SAMPLER_PIXELS >= 0,
                  "memory sizes");
    static_assert(P::SAMPLER_CHANNELS > 0 && P::SAMPLER_CHANNELS <= GROUP,
                  "a latent is one group of the result");
    static_assert(P::NORMALISERS > 0 && GROUP % P::NORMALISERS == 0, "1, 2, 4 or 8 rows at a time");
    static_assert(P::GUARD >= 1, "a word is read after it was written");
    // what waits between the array and the store while the store runs LAG micro-slots ahead
    static_assert(P::DEPTH_YS >= (P::LAG + 1) * (P::PP / GROUP),
                  "ys holds the micro-slots that the store lags behind");
    static_assert(P::DEPTH_RS >= (P::LAG + 1) * (P::PP / GROUP),
                  "rs holds the residuals that the store runs ahead");
    static_assert(P::DEPTH_QP >= P::UNITS * (1 + (P::ITEMS + 1) / 2),
                  "qp holds the parameters of a round");
    static_assert(P::DEPTH_QP >= P::JOINED_UNITS * 2, "qp holds the parameters of joined products");
    static_assert(P::LAG >= 2, "post takes residuals of a micro-slot while mac is at the next one");
    static const bool ok = true;
};

}  // namespace lda

#endif
