// The interface of hls::burst_maxi, for a syntax check.
#ifndef TEST_STANDIN_HLS_BURST_MAXI_H
#define TEST_STANDIN_HLS_BURST_MAXI_H

#include <cstddef>

namespace hls {

template <typename T>
class burst_maxi {
  public:
    burst_maxi(T*) {}
    void read_request(std::size_t offset, unsigned words);
    T read();
};

}  // namespace hls

#endif
