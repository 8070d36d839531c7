// Clock cycles that the C++ source does not show. Assumptions until they are calibrated against a
// co-simulation: cycles of a run are to be labelled "model".
#ifndef SIM_TIMING_HPP
#define SIM_TIMING_HPP

namespace sim {

struct Timing {
    int fifo_latency = 1;     // from the write of a token to the first cycle that can read it, >= 1
    int slot_latency = 1;     // from a read to the first cycle that can write into the slot, >= 1
    int kernel_start = 0;     // from the start of the run to the first cycle of a process
    int kernel_restart = 1;   // between two runs of a free-running kernel
    int loop_entry = 1;       // extra cycles before the first iteration of a pipelined loop
    int loop_exit = 1;        // extra cycles after its pipeline has drained
    int pipeline_depth = 12;  // from the reads of an iteration to its writes, where not given
    int max_calls =
        1 << 24;  // of one free-running kernel in one run, before it counts as a livelock
};

}  // namespace sim

#endif
