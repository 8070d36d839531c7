// Memory of the software card, and who is told when an execution has been written.
#ifndef LDA_BUFFERS_HPP
#define LDA_BUFFERS_HPP

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "hls_burst_maxi.h"
#include "hls_stream.h"

#include "../kernels/types.hpp"

namespace lda {

// What one step reads and writes, of one rank.
struct CardBuffers {
    const uint8_t* weights;
    uint64_t weights_bytes;
    const uint8_t* dynamic;
    uint64_t dynamic_bytes;
    const uint8_t* latent;
    uint64_t latent_bytes;
    uint8_t* result;
    uint64_t result_bytes;
    uint8_t* spill;
    uint64_t spill_bytes;
};

// A buffer that is read, or read and written, in bursts.
inline hls::burst_maxi<Word> port_of(const char* name, const uint8_t* data, uint64_t bytes) {
    return hls::burst_maxi<Word>(name, reinterpret_cast<const Word*>(data), bytes / WORD_BYTES);
}

inline hls::burst_maxi<Word> port_of(const char* name, uint8_t* data, uint64_t bytes) {
    return hls::burst_maxi<Word>(name, reinterpret_cast<Word*>(data), bytes / WORD_BYTES);
}

inline void check_access(const char* name, int64_t index, uint64_t words, const char* done) {
    if (index >= 0 && uint64_t(index) < words) return;
    throw std::out_of_range("buffer " + std::string(name) + ": word " + std::to_string(index) +
                            " is " + done + ", it has " + std::to_string(words));
}

struct LatentBuffer {
    const uint8_t* data;
    uint64_t words;

    Word operator[](int64_t index) const {
        check_access("latent", index, words, "read");
        MEMORY_READ("latent", index);
        Word word;
        std::memcpy(word.b, data + index * WORD_BYTES, WORD_BYTES);
        return word;
    }
};

struct ResultBuffer {
    uint8_t* data;
    uint64_t words;

    Word& operator[](int64_t index) const {
        check_access("result", index, words, "written");
        MEMORY_WRITE("result", index);
        return reinterpret_cast<Word*>(data)[index];
    }
};

typedef void (*EntryCallback)(void* context, int rank, int entry, int i0, int i1);

// Who is told when a rank has written an execution.
struct Observer {
    EntryCallback function;
    void* context;
};

// The hook of a rank's store.
struct RankHook {
    const Observer* observer;
    int rank;
    void operator()(int entry, int i0, int i1) const {
        if (observer->function) observer->function(observer->context, rank, entry, i0, i1);
    }
};

}  // namespace lda

#endif
