// Stream elements, faults of the simulation, and the marks that Vitis HLS does not know.
//
// Two forms of the same kernels exist. The plain form is what Vitis synthesises: banked memories,
// one multiply step per iteration. The fast form is an equivalent for simulation on a CPU; it is
// the default of g++, and LDA_PLAIN compiles the plain form there instead. Tests hold both equal.
// Test benches in the tool's C simulation, which does not define __SYNTHESIS__, are compiled with
// LDA_VITIS: the plain form, and the tool's types at the memory ports (port.hpp).
#ifndef LDA_TYPES_HPP
#define LDA_TYPES_HPP

#include <cstdint>

#include "hls_stream.h"

#ifndef TICK
#define TICK(II)
#define LOOP_EXIT()
#endif

#if defined(__SYNTHESIS__) && !defined(LDA_VITIS)
#define LDA_VITIS
#endif
#ifdef LDA_VITIS
#include <ap_int.h>
#elif !defined(LDA_PLAIN)
#define LDA_FAST 1
#endif

#ifdef __SYNTHESIS__
#define LDA_CHECK(condition, text)
#else
#include <stdexcept>
#define LDA_CHECK(condition, text) ((condition) ? static_cast<void>(0) : ::lda::fault(text))
#endif

// Deliberate errors, compiled in by tests alone to show that a comparison would notice: 1 rounding
// in post, 2 an address in store, 3 a lane of the multiplier array.
#ifdef LDA_PLANT_FAULTS
namespace lda {
// of this library alone: an inline function's static would be one for all that are loaded
static inline int& planted_fault() {
    static int fault = 0;
    return fault;
}
}  // namespace lda
#define LDA_FAULT (::lda::planted_fault())
#elif !defined(LDA_FAULT)
#define LDA_FAULT 0
#endif

namespace lda {

static const int WORD_BYTES = 64;
static const int GROUP = 8;  // channels of an output group, pixels of an 8 x 8 word
static const int SUB = 16;   // channels of one reduction step
static const int TABLE_SIZE = 2048;

#ifdef __SYNTHESIS__
typedef ap_int<96> Wide;
#else
__extension__ typedef __int128 Wide;

// A program or a buffer that does not fit the engine; ends the run.
struct Fault : std::runtime_error {
    explicit Fault(const char* text) : std::runtime_error(text) {}
};
__attribute__((noinline, noreturn, cold)) inline void fault(const char* text) {
    throw Fault(text);
}
#endif

// 64 bytes: the width of a memory port; on streams 8 pixels x 8 channels, byte = pixel*8 + channel.
struct Word {
    int8_t b[WORD_BYTES];
};

// A row of the activation store: the planes of a wide octet, or two octets of a narrow tensor.
struct Pair {
    Word b[2];
};

// A row of results. written: 0: of a group that is not the execution's, which the store skips.
struct ResultPair {
    Word b[2];
    int8_t written;
};

// One reduction step of one output group, weights of BITS bits (8 or 4), two's complement.
//   8: byte = output*16 + input
//   4: of byte k of those, k < 64, in the low half of byte k, of byte 64 + k in its high half
template <int BITS>
struct WeightRow {
    int8_t b[BITS * SUB * GROUP / 8];
};

// What N ranks send at once.
template <int N>
struct Beat {
    Word b[N];
};

// Accumulators of 8 pixels x 8 outputs, index pixel*8 + output.
struct AccWord {
    int32_t a[GROUP * GROUP];
};

// Sums over an octet's lanes: 8 channels (group norm) or 8 pixels (layer norm; softmax: maxima).
// Squares have 48 bits, in three 16-bit parts, low first: no padding on the way between SLRs.
struct StatWord {
    int32_t sum[GROUP];
    uint16_t square[GROUP][3];
};

template <int N>
struct StatBeat {
    StatWord b[N];
};

// Sums of the operands of 8 pixels.
struct SumWord {
    int32_t sum[GROUP];
};

// What the kernels call after the last write of an entry; the hardware has nobody to tell.
struct NoHook {
    void operator()(int, int, int) const {}
};

}  // namespace lda

#endif
