// Which process runs in this thread, and which ones of a device can go on.
#ifndef SIM_READY_HPP
#define SIM_READY_HPP

#include <cstddef>
#include <vector>

#include "coroutine.hpp"

namespace sim {
inline namespace SIM_MODE {

class Fiber;

template <typename Unused>
struct CurrentFiber {
    // Plain data with a static TLS slot: one instruction to read, also in a shared object.
    static __thread Fiber* fiber __attribute__((tls_model("initial-exec")));
};
template <typename Unused>
__thread Fiber* CurrentFiber<Unused>::fiber = nullptr;

// What runs in this thread; null outside of a run.
inline Fiber* current_fiber() {
    return CurrentFiber<void>::fiber;
}
inline void set_current(Fiber* fiber) {
    CurrentFiber<void>::fiber = fiber;
}

// The processes of a device that can go on, and the context that started them.
struct ReadyQueue {
    std::vector<Fiber*> ring;  // at least as many slots as processes
    std::size_t head = 0, count = 0;
    Context outside;

    void push(Fiber* fiber) { ring[(head + count++) % ring.size()] = fiber; }
    Fiber* pop() {
        if (count == 0) return nullptr;
        Fiber* fiber = ring[head];
        head = (head + 1) % ring.size();
        --count;
        return fiber;
    }
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
