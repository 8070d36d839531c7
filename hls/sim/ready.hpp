// Which process runs in this thread, and which ones of a device can go on.
#ifndef SIM_READY_HPP
#define SIM_READY_HPP

#include <cstddef>
#include <vector>

#include "coroutine.hpp"

namespace sim {
inline namespace SIM_MODE {

class Process;

template <typename Unused>
struct CurrentProcess {
    // Plain data with a static TLS slot: one instruction to read, also in a shared object.
    static __thread Process* process __attribute__((tls_model("initial-exec")));
};
template <typename Unused>
__thread Process* CurrentProcess<Unused>::process = nullptr;

// The process whose code runs in this thread; null outside of a run.
inline Process* current() {
    return CurrentProcess<void>::process;
}
inline void set_current(Process* process) {
    CurrentProcess<void>::process = process;
}

// The processes of a device that can go on, and the context that started them.
struct ReadyQueue {
    std::vector<Process*> ring;  // at least as many slots as processes
    std::size_t head = 0, count = 0;
    Context outside;

    void push(Process* process) { ring[(head + count++) % ring.size()] = process; }
    Process* pop() {
        if (count == 0) return nullptr;
        Process* process = ring[head];
        head = (head + 1) % ring.size();
        --count;
        return process;
    }
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
