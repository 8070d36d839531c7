// The marks that kernels carry for the timed simulation. Under Vitis they are empty: a kernel
// header includes "hls_stream.h" and then defines TICK and LOOP_EXIT as nothing if they are not
// macros yet.
//
//     for (int i = 0; i < n; ++i) {
//     #pragma HLS pipeline II=1
//         TICK(1);                 // first statement of the body of a pipelined loop
//         ...
//     }
//     LOOP_EXIT();                 // behind a pipelined loop that does not flatten into its nest
#ifndef SIM_TICKS_HPP
#define SIM_TICKS_HPP

#include "process.hpp"

#if defined(__SYNTHESIS__) || defined(SIM_UNTIMED)
#define TICK(II) static_cast<void>(0)
#define LOOP_EXIT() static_cast<void>(0)
#else

namespace sim {
inline namespace SIM_MODE {

// Opens the tick of one iteration, and closes it where the body ends.
class Tick {
  public:
    Tick(const char* loop, int interval) : process_(current()) {
        if (process_) process_->open_tick(loop, interval);
    }
    Tick(const Tick&) = delete;
    Tick& operator=(const Tick&) = delete;
    ~Tick() {
        if (process_) process_->end_tick();
    }

  private:
    Process* process_;
};

}  // namespace SIM_MODE
}  // namespace sim

// The address of the string tells loops apart.
#define TICK(II)                          \
    static const char sim_loop_[1] = {0}; \
    ::sim::Tick sim_tick_(sim_loop_, (II))
#define LOOP_EXIT()                                           \
    do {                                                      \
        if (::sim::current()) ::sim::current()->leave_loop(); \
    } while (0)
#endif

#endif
