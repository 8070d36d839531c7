// hls::burst_maxi as the tool's C simulation has it: made from a pointer; requests are answered in
// their order, and a read that nobody asked for ends the simulation.
#ifndef TEST_STANDIN_HLS_BURST_MAXI_H
#define TEST_STANDIN_HLS_BURST_MAXI_H

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>

namespace hls {

template <typename T>
class burst_maxi {
  public:
    burst_maxi(T* data) : data_(data) {}

    void read_request(std::size_t offset, unsigned words) {
        for (unsigned i = 0; i < words; ++i)
            asked_.push_back(offset + i);
    }
    T read() {
        if (asked_.empty()) {
            std::printf("ERROR: burst_maxi: a word is read that nobody asked for\n");
            std::exit(1);
        }
        const std::size_t word = asked_.front();
        asked_.pop_front();
        return data_[word];
    }

  private:
    T* data_;
    std::deque<std::size_t> asked_;
};

}  // namespace hls

#endif
