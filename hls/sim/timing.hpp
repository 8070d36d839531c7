// Clock cycles that the C++ source does not show. Assumptions until they are calibrated against a
// co-simulation: cycles of a run are to be labelled "model".
#ifndef SIM_TIMING_HPP
#define SIM_TIMING_HPP

namespace sim {

// What a pipelined loop does in a cycle in which it lacks input.
enum class Style {
    stp,  // stands still: results inside stay inside
    flp,  // inserts a bubble and goes on delivering
};

// One direction of an m_axi port, in words of the port's width.
struct MemoryTiming {
    int latency;               // cycles from a request to the first word of a read that jumps, and
                               // from the last word of a write in memory to the answer
    int millicycles_per_word;  // sustained: 1000 * word bytes * clock / bandwidth, >= 1
    int burst_words;           // words of a burst; bursts start at multiples of this, >= 1
    int burst_gap;             // cycles lost between two bursts
    int buffered_words;        // read ahead of the kernel, or written and not in memory yet
};

struct Timing {
    int fifo_latency = 1;     // from the write of a token to the first cycle that can read it, >= 1
    int slot_latency = 1;     // from a read to the first cycle that can write into the slot, >= 1
    int kernel_start = 0;     // from the start of the run to the first cycle of a process
    int kernel_restart = 1;   // between two runs of a free-running kernel
    int loop_entry = 1;       // extra cycles before the first iteration of a pipelined loop
    int loop_exit = 1;        // extra cycles after its pipeline has drained
    int pipeline_depth = 12;  // from the reads of an iteration to its writes, where not given
    // Words of 64 bytes at 222 MHz: one DDR4 bank of a U250 at 13 GB/s read and 11.5 GB/s written.
    // 256 words are 16 bursts of 16 under way, the tool's default.
    MemoryTiming memory_read = {64, 1093, 64, 0, 256};
    MemoryTiming memory_write = {64, 1236, 64, 0, 256};
    int max_calls =
        1 << 24;  // of one free-running kernel in one run, before it counts as a livelock
};

}  // namespace sim

#endif
