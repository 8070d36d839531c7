// Stand-in for the hls_burst_maxi.h of Vitis HLS: a memory port whose bursts are asked for before
// their words are read. Requests are answered in their order.
#ifndef SIM_HLS_BURST_MAXI_H
#define SIM_HLS_BURST_MAXI_H

#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>

#include "mode.hpp"
#include "ticks.hpp"

#ifndef MEMORY_READ
#define MEMORY_READ(PORT, WORD) static_cast<void>(0)
#endif
#ifndef MEMORY_REQUEST
#define MEMORY_REQUEST(PORT, WORD, WORDS) static_cast<void>(0)
#endif

namespace hls {
inline namespace SIM_MODE {

template <typename T>
class burst_maxi {
  public:
    // Only this one exists in Vitis.
    burst_maxi(T* data) : burst_maxi("memory", data, UNKNOWN) {}

    // For software cards: reads beyond `words` throw. `name`: a literal that names the port.
    burst_maxi(const char* name, const T* data, uint64_t words)
        : name_(name), data_(data), words_(words) {}

    void read_request(std::size_t offset, unsigned words) {
        if (words_ != UNKNOWN && uint64_t(offset) + words > words_) {
            throw std::out_of_range("buffer " + std::string(name_) + ": word " +
                                    std::to_string(offset + words - 1) + " is read, it has " +
                                    std::to_string(words_));
        }
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

  private:
    static const uint64_t UNKNOWN = ~uint64_t(0);
    struct Request {
        std::size_t next;
        unsigned left;
    };

    const char* name_;
    const T* data_;
    uint64_t words_;
    std::deque<Request> requests_;
};

}  // namespace SIM_MODE
}  // namespace hls

#endif
