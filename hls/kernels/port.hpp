// Words of the kernels' memory ports. Vitis gets ap_uint<512>: wide pointers and hls::burst_maxi
// are documented for it, whereas a struct as their element is not. Elsewhere a word is a Word.
#ifndef LDA_PORT_HPP
#define LDA_PORT_HPP

#include "types.hpp"

namespace lda {

#ifdef LDA_VITIS
typedef ap_uint<8 * WORD_BYTES> PortWord;

inline Word word_of(const PortWord& bits) {
#pragma HLS inline
    Word word;
BYTES:
    for (int i = 0; i < WORD_BYTES; ++i) {
#pragma HLS unroll
        word.b[i] = int8_t(uint8_t(bits.range(8 * i + 7, 8 * i).to_uint()));
    }
    return word;
}

inline PortWord port_word(const Word& word) {
#pragma HLS inline
    PortWord bits = 0;
BYTES:
    for (int i = 0; i < WORD_BYTES; ++i) {
#pragma HLS unroll
        bits.range(8 * i + 7, 8 * i) = uint8_t(word.b[i]);
    }
    return bits;
}
#else
typedef Word PortWord;

inline const Word& word_of(const Word& word) {
    return word;
}

inline const Word& port_word(const Word& word) {
    return word;
}
#endif

}  // namespace lda

#endif
