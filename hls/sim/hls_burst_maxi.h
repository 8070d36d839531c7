// Stand-in for the hls_burst_maxi.h of Vitis HLS: a memory port whose bursts are asked for before
// their words are read or written. Requests are answered in their order; what is written can be
// read when it was answered.
#ifndef SIM_HLS_BURST_MAXI_H
#define SIM_HLS_BURST_MAXI_H

#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

#include "mode.hpp"
#include "ticks.hpp"

#ifndef MEMORY_READ
#define MEMORY_READ(PORT, WORD) static_cast<void>(0)
#endif
#ifndef MEMORY_REQUEST
#define MEMORY_REQUEST(PORT, WORD, WORDS) static_cast<void>(0)
#endif
#ifndef MEMORY_WRITE
#define MEMORY_WRITE(PORT, WORD) static_cast<void>(0)
#endif
#ifndef MEMORY_BURST
#define MEMORY_BURST(PORT, WORDS) static_cast<void>(0)
#define MEMORY_ANSWER(PORT) static_cast<void>(0)
#endif

namespace hls {
inline namespace SIM_MODE {

template <typename T>
class burst_maxi {
  public:
    // Only this one exists in Vitis.
    burst_maxi(T* data) : burst_maxi("memory", data, UNKNOWN) {}

    // For software cards: accesses beyond `words` throw. `name`: a literal that names the port.
    // Nothing is written through a port of constant data.
    burst_maxi(const char* name, const T* data, uint64_t words)
        : name_(name), data_(data), target_(nullptr), words_(words) {}
    burst_maxi(const char* name, T* data, uint64_t words)
        : name_(name), data_(data), target_(data), words_(words) {}

    void read_request(std::size_t offset, unsigned words) {
        check(offset, words, "read");
        MEMORY_REQUEST(name_, int64_t(offset), int64_t(words));
        requests_.push_back(Request{offset, words});
    }

    T read() {
        if (requests_.empty()) {
            throw std::logic_error(std::string(name_) + ": a word is read that nobody asked for");
        }
        Request& request = requests_.front();
        const std::size_t word = request.next++;
        if (--request.left == 0) requests_.pop_front();
        MEMORY_READ(name_, int64_t(word));
        return data_[word];
    }

    void write_request(std::size_t offset, unsigned words) {
        check(offset, words, "written");
        if (!target_) throw std::logic_error(std::string(name_) + ": it is read only");
        MEMORY_BURST(name_, int64_t(words));
        bursts_.push_back(Burst{offset, words, {}});
    }

    void write(const T& value) {
        for (Burst& burst : bursts_) {
            if (burst.values.size() == burst.words) continue;
            MEMORY_WRITE(name_, int64_t(burst.first + burst.values.size()));
            burst.values.push_back(value);
            return;
        }
        throw std::logic_error(std::string(name_) + ": a word is written that nobody announced");
    }

    void write_response() {
        if (bursts_.empty() || bursts_.front().values.size() < bursts_.front().words) {
            throw std::logic_error(std::string(name_) + ": an answer to words still to be written");
        }
        MEMORY_ANSWER(name_);
        const Burst& burst = bursts_.front();
        for (std::size_t k = 0; k < burst.words; ++k)
            target_[burst.first + k] = burst.values[k];
        bursts_.pop_front();
    }

  private:
    static const uint64_t UNKNOWN = ~uint64_t(0);

    void check(std::size_t offset, unsigned words, const char* done) const {
        if (words_ == UNKNOWN || uint64_t(offset) + words <= words_) return;
        throw std::out_of_range("buffer " + std::string(name_) + ": word " +
                                std::to_string(offset + words - 1) + " is " + done + ", it has " +
                                std::to_string(words_));
    }

    // Written and not answered: not in memory.
    struct Burst {
        std::size_t first;
        unsigned words;
        std::vector<T> values;
    };
    struct Request {
        std::size_t next;
        unsigned left;
    };

    const char* name_;
    const T* data_;
    T* target_;
    uint64_t words_;
    std::deque<Request> requests_;
    std::deque<Burst> bursts_;
};

}  // namespace SIM_MODE
}  // namespace hls

#endif
