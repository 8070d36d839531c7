// The interface of hls::stream, for a syntax check.
#ifndef TEST_STANDIN_HLS_STREAM_H
#define TEST_STANDIN_HLS_STREAM_H

namespace hls {

template <typename T, int DEPTH = 0>
class stream;

template <typename T>
class stream<T, 0> {
  public:
    explicit stream(const char* = "") {}
    T read();
    void write(const T&);
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
  public:
    explicit stream(const char* name = "") : stream<T, 0>(name) {}
};

}  // namespace hls

#endif
