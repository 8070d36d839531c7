// hls::burst_maxi as the tool's C simulation has it: made from a pointer; requests are answered in
// their order; a read that nobody asked for, a write that nobody announced and an answer to what is
// not written end the simulation.
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
        if (asked_.empty()) fail("a word is read that nobody asked for");
        const std::size_t word = asked_.front();
        asked_.pop_front();
        return data_[word];
    }
    void write_request(std::size_t offset, unsigned words) {
        for (unsigned i = 0; i < words; ++i)
            announced_.push_back(offset + i);
        ++answers_;
    }
    void write(const T& value) {
        if (announced_.empty()) fail("a word is written that nobody announced");
        data_[announced_.front()] = value;
        announced_.pop_front();
    }
    void write_response() {
        if (answers_-- == 0) fail("an answer to words that nobody announced");
    }

  private:
    static void fail(const char* what) {
        std::printf("ERROR: burst_maxi: %s\n", what);
        std::exit(1);
    }

    T* data_;
    std::deque<std::size_t> asked_, announced_;
    int answers_ = 0;
};

}  // namespace hls

#endif
