// The sampler's update between two steps of one start (docs/numerics.md, "Sampler on the card"):
//
//     u = clamp(rshr(a*u + c0*q0 + c1*q1, COEFFICIENT_BITS), STATE_BITS)     per latent value
//     x = clamp((u + offset) >> FRACTION_BITS, 8)                            per input channel
//
// u is what the U-Net reads, in steps of its input; q0 and q1 are the results for the two items of
// a guided pair (for one item and the same one again, where there is no pair). All ranks keep the
// state and update it alike, for all of them hold the result; each writes the input channels that
// lie on it.
//
// latent holds behind the rows of the first step, in 64-byte words: one of lanes per local group
// of the input, the state, one of coefficients per update. result holds the state behind the rows.
//   lanes          int32 offset[8] at byte 0, uint8 latent channel[8] at byte 32
//   state          two pixel slots a word, int32[8] each, of channels 0..7
//   coefficients   int32 a at byte 0, int64 c0 at 8, int64 c1 at 16
#ifndef LDA_SAMPLER_HPP
#define LDA_SAMPLER_HPP

#include "arithmetic.hpp"
#include "params.hpp"
#include "port.hpp"
#include "program.hpp"
#include "sequence.hpp"
#include "store_memory.hpp"
#include "types.hpp"

namespace lda {

static const int FRACTION_BITS = 20;     // of a state value
static const int STATE_BITS = 31;        // of it in all
static const int COEFFICIENT_BITS = 26;  // fraction of a coefficient
static const int SLOTS_PER_WORD = 2;     // pixel slots of the state in a word of memory

// State of all pixel slots of the samples, channel by channel, and where each lane of the input
// comes from.
template <class P>
struct SamplerMemory {
    // local groups of an input of 16 channels at most
    static const int GROUPS = P::RANKS == 1 ? 2 : 1;
    int32_t state[P::SAMPLER_PIXELS > 0 ? P::SAMPLER_PIXELS * P::SAMPLER_CHANNELS : 1];
    int32_t offset[GROUPS * GROUP];
    uint8_t channel[GROUPS * GROUP];
};

struct Coefficients {
    int32_t a;
    int64_t c0, c1;
};

// `bytes` little-endian bytes of a word.
inline int64_t number_in(const Word& word, int first, int bytes) {
#pragma HLS inline
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) {
#pragma HLS unroll
        value |= uint64_t(uint8_t(word.b[first + i])) << (8 * i);
    }
    const int unused = 64 - 8 * bytes;
    return int64_t(value << unused) >> unused;
}

inline void put_number(Word& word, int first, int32_t value) {
#pragma HLS inline
    for (int i = 0; i < 4; ++i) {
#pragma HLS unroll
        word.b[first + i] = int8_t(uint8_t(uint32_t(value) >> (8 * i)));
    }
}

inline Coefficients coefficients_of(const Word& word) {
#pragma HLS inline
    Coefficients found;
    found.a = int32_t(number_in(word, 0, 4));
    found.c0 = number_in(word, 8, 8);
    found.c1 = number_in(word, 16, 8);
    return found;
}

inline int32_t updated(const Coefficients& by, int32_t u, int16_t q0, int16_t q1) {
#pragma HLS inline
    const int64_t sum = int64_t(by.a) * u + by.c0 * q0 + by.c1 * q1;
    return clamp<STATE_BITS>(rshr(sum, COEFFICIENT_BITS));
}

inline int8_t input_of(int32_t u, int32_t offset) {
#pragma HLS inline
    return int8_t(clamp<8>((u + offset) >> FRACTION_BITS));
}

// A wide value of an octet.
inline int16_t wide_value(const Pair& octet, int byte) {
#pragma HLS inline
    return int16_t(uint16_t(uint8_t(octet.b[0].b[byte])) |
                   uint16_t(uint16_t(uint8_t(octet.b[1].b[byte])) << 8));
}

// Words of `latent` behind the rows: lanes and state.
template <class P, class Source>
void sampler_load(Source latent, const StoreIo& io, const Updates& plan,
                  SamplerMemory<P>& sampler) {
#pragma HLS inline off
    const int slots = plan.octets * GROUP;
    LDA_CHECK(slots <= P::SAMPLER_PIXELS && plan.groups <= SamplerMemory<P>::GROUPS,
              "sampler: a latent that the engine does not hold");
    int word_at = 2 * io.input_rows;
LANES:
    for (int g = 0; g < plan.groups; ++g) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 1 max = 2
        TICK(1);
        const Word word = word_of(latent[word_at]);
        ++word_at;
        for (int k = 0; k < GROUP; ++k) {
#pragma HLS unroll
            sampler.offset[g * GROUP + k] = int32_t(number_in(word, 4 * k, 4));
            sampler.channel[g * GROUP + k] = uint8_t(word.b[4 * GROUP + k]);
            LDA_CHECK(sampler.channel[g * GROUP + k] < P::SAMPLER_CHANNELS,
                      "sampler: a lane of a channel that does not exist");
        }
    }
    LOOP_EXIT();
    Word word;
    int slot = 0, channel = 0;
STATE:
    for (int i = 0; i < slots * P::SAMPLER_CHANNELS; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 256 max = 16384
        TICK(1);
        const int half = slot % SLOTS_PER_WORD;
        if (half == 0 && channel == 0) {
            word = word_of(latent[word_at]);
            ++word_at;
        }
        sampler.state[i] = int32_t(number_in(word, 4 * (GROUP * half + channel), 4));
        if (++channel == P::SAMPLER_CHANNELS) {
            channel = 0;
            ++slot;
        }
    }
    LOOP_EXIT();
}

// Words of `result` behind the rows: the state.
template <class P, class Sink>
void sampler_save(Sink result, const StoreIo& io, const Updates& plan,
                  const SamplerMemory<P>& sampler) {
#pragma HLS inline off
    Word word;
    for (int i = 0; i < WORD_BYTES; ++i) {
#pragma HLS unroll
        word.b[i] = 0;
    }
    int slot = 0, channel = 0, word_at = 2 * io.output_rows;
STATE:
    for (int i = 0; i < plan.octets * GROUP * P::SAMPLER_CHANNELS; ++i) {
#pragma HLS pipeline II = 1 style = flp
#pragma HLS loop_tripcount min = 256 max = 16384
        TICK(1);
        const int half = slot % SLOTS_PER_WORD;
        put_number(word, 4 * (GROUP * half + channel), sampler.state[i]);
        if (++channel == P::SAMPLER_CHANNELS) {
            channel = 0;
            ++slot;
            if (half + 1 == SLOTS_PER_WORD) {
                result[word_at] = port_word(word);
                ++word_at;
            }
        }
    }
    LOOP_EXIT();
}

// Update `number` (0: the first): state and input rows from the result of the step before, a value
// per cycle. Turn t reads octet t of the result and updates octet t - 1; a pixel's input bytes
// are made while the next pixel is updated, and octet t - 2 is written from the second pixel on.
// Each takes both items of the pair.
template <class P, class Source>
void sampler_update(Source latent, int number, const StoreIo& io, const Updates& plan,
                    typename StoreTypes<P>::Memory& memory, SamplerMemory<P>& sampler) {
#pragma HLS inline off
#pragma HLS array_partition variable = memory complete dim = 1
#pragma HLS array_partition variable = sampler.offset complete
#pragma HLS array_partition variable = sampler.channel complete
    const int CHANNELS = P::SAMPLER_CHANNELS, GROUPS = SamplerMemory<P>::GROUPS;
    // bytes of the input that are made per cycle
    const int BYTES = (GROUPS * GROUP + CHANNELS - 1) / CHANNELS;
    const int state_words = plan.octets * GROUP / SLOTS_PER_WORD;
    const Coefficients by =
        coefficients_of(word_of(latent[2 * io.input_rows + plan.groups + state_words + number]));
    Pair ahead[2], now[2];  // of the result: both items
    Word made[GROUPS], done[GROUPS];
    int32_t pixel_before[CHANNELS], pixel_now[CHANNELS];
#pragma HLS array_partition variable = ahead complete
#pragma HLS array_partition variable = now complete
#pragma HLS array_partition variable = made complete
#pragma HLS array_partition variable = done complete
#pragma HLS array_partition variable = pixel_before complete
#pragma HLS array_partition variable = pixel_now complete
    for (int i = 0; i < WORD_BYTES; ++i) {
#pragma HLS unroll
        for (int k = 0; k < 2; ++k) {
#pragma HLS unroll
            ahead[k].b[0].b[i] = ahead[k].b[1].b[i] = 0;
            now[k].b[0].b[i] = now[k].b[1].b[i] = 0;
        }
        for (int g = 0; g < GROUPS; ++g) {
#pragma HLS unroll
            made[g].b[i] = done[g].b[i] = 0;
        }
    }
    for (int c = 0; c < CHANNELS; ++c) {
#pragma HLS unroll
        pixel_before[c] = pixel_now[c] = 0;
    }
    int turn = 0, place = 0, pixel = 0, channel = 0;
    int value = 0;  // of the state
UPDATE:
    for (int i = 0; i < (plan.octets + 2) * GROUP * CHANNELS; ++i) {
#pragma HLS pipeline II = 1 style = flp
// Rows of result and input are different ones; every value of the state is read and written once.
#pragma HLS dependence variable = memory type = inter false
#pragma HLS dependence variable = sampler.state type = inter false
#pragma HLS loop_tripcount min = 1024 max = 16384
        TICK(1);
        if (place == 0) {
            now[0] = ahead[0];
            now[1] = ahead[1];
        }
        if (place == CHANNELS) {
            for (int g = 0; g < GROUPS; ++g) {
#pragma HLS unroll
                done[g] = made[g];
            }
        }
        if (channel == 0) {
            for (int c = 0; c < CHANNELS; ++c) {
#pragma HLS unroll
                pixel_before[c] = pixel_now[c];
            }
        }
        if (place < 2 && turn < plan.octets) {
            const int row = io.output_row + turn + (place == 1 ? plan.pair_octets : 0);
            ahead[place] = read_row<P>(memory, row);
        }
        if (turn >= 1 && turn <= plan.octets) {
            const int byte = pixel * GROUP + channel;
            const int32_t next = updated(by, sampler.state[value], wide_value(now[0], byte),
                                         wide_value(now[1], byte));
            sampler.state[value] = next;
            pixel_now[channel] = next;
            ++value;
        }
        for (int n = 0; n < BYTES; ++n) {
#pragma HLS unroll
            const int lane = channel * BYTES + n;
            if (lane < GROUPS * GROUP) {
                const int byte = (pixel + GROUP - 1) % GROUP * GROUP + lane % GROUP;
                made[lane / GROUP].b[byte] =
                    input_of(pixel_before[sampler.channel[lane]], sampler.offset[lane]);
            }
        }
        if (turn >= 2 && place >= CHANNELS && place < CHANNELS + 2 * plan.groups) {
            const int g = (place - CHANNELS) >> 1;
            const bool partner = ((place - CHANNELS) & 1) != 0;
            const int octet = turn - 2 + (partner ? plan.pair_octets : 0);
            const int row = io.input_row + g * plan.group_rows + (octet >> 1);
            write_half<P>(memory, row, octet & 1, done[g]);
        }
        if (++channel == CHANNELS) {
            channel = 0;
            ++pixel;
        }
        if (++place == GROUP * CHANNELS) {
            place = pixel = 0;
            ++turn;
        }
    }
    LOOP_EXIT();
}

}  // namespace lda

#endif
