// hls::stream as the tool's C simulation has it: unbounded; reading an empty one warns and gives a
// default value, and what is left at the end is told, with exit status 0.
#ifndef TEST_STANDIN_HLS_STREAM_H
#define TEST_STANDIN_HLS_STREAM_H

#include <cstddef>
#include <cstdio>
#include <deque>
#include <string>

namespace hls {

template <typename T, int DEPTH = 0>
class stream;

template <typename T>
class stream<T, 0> {
  public:
    explicit stream(const char* name = "unnamed") : name_(name) {}
    stream(const stream&) = delete;
    ~stream() {
        if (!elements_.empty()) tell("contains leftover data, which may result in RTL simulation");
    }

    T read() {
        T value = T();
        if (elements_.empty()) {
            tell("is read while empty, which may result in RTL simulation hanging.");
        } else {
            value = elements_.front();
            elements_.pop_front();
        }
        return value;
    }
    void write(const T& value) { elements_.push_back(value); }
    bool empty() const { return elements_.empty(); }
    std::size_t size() const { return elements_.size(); }

  private:
    void tell(const char* what) const {
        std::printf("WARNING: Hls::stream '%s' %s\n", name_.c_str(), what);
    }

    std::string name_;
    std::deque<T> elements_;
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
  public:
    explicit stream(const char* name = "unnamed") : stream<T, 0>(name) {}
};

}  // namespace hls

#endif
