// The marks that kernels carry for the timed simulation. Under Vitis they are empty: a kernel
// header includes "hls_stream.h" and then defines them as nothing if they are not macros yet.
//
//     for (int i = 0; i < n; ++i) {
//     #pragma HLS pipeline II=1
//         TICK(1);                 // first statement of the body of a pipelined loop
//         MEMORY_READ("weights", i);   // beside every access of a memory port: its name, the word
//         out.write(weights[i]);
//     }
//     LOOP_EXIT();                 // behind a pipelined loop that does not flatten into its nest
#ifndef SIM_TICKS_HPP
#define SIM_TICKS_HPP

#include "process.hpp"

#if defined(__SYNTHESIS__) || defined(SIM_UNTIMED)
#define TICK(II) static_cast<void>(0)
#define LOOP_EXIT() static_cast<void>(0)
#define MEMORY_READ(PORT, WORD) static_cast<void>(0)
#define MEMORY_WRITE(PORT, WORD) static_cast<void>(0)
#define MEMORY_REQUEST(PORT, WORD, WORDS) static_cast<void>(0)
#define MEMORY_BURST(PORT, WORDS) static_cast<void>(0)
#define MEMORY_ANSWER(PORT) static_cast<void>(0)
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

// One word of a memory port, read or written in the open tick.
inline void memory_beat(const char* port, bool write, int64_t word) {
    if (Process* process = current()) process->memory_beat(port, write, word);
}

// A burst that begins at `word` is asked for; it is read later.
inline void memory_request(const char* port, int64_t word) {
    if (Process* process = current()) process->memory_request(port, word);
}

// The next `words` words that are written form a burst, which is answered.
inline void memory_burst(const char* port, int64_t words) {
    if (Process* process = current()) process->memory_burst(port, words);
}

// Waits for the answer to the oldest such burst, all words of which have been written.
inline void memory_answer(const char* port) {
    if (Process* process = current()) process->memory_answer(port);
}

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
// PORT: a string literal that names the m_axi port; WORD: address in words of the port's width;
// WORDS: length of a burst that is asked for ahead.
#define MEMORY_READ(PORT, WORD) ::sim::memory_beat((PORT), false, (WORD))
#define MEMORY_WRITE(PORT, WORD) ::sim::memory_beat((PORT), true, (WORD))
#define MEMORY_REQUEST(PORT, WORD, WORDS) \
    (static_cast<void>(WORDS), ::sim::memory_request((PORT), (WORD)))
#define MEMORY_BURST(PORT, WORDS) ::sim::memory_burst((PORT), (WORDS))
#define MEMORY_ANSWER(PORT) ::sim::memory_answer((PORT))
#endif

#endif
