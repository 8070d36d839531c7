// What a run of the scheduler found: status, cycles, FIFO fills, and text that names the culprits.
#ifndef SIM_REPORT_HPP
#define SIM_REPORT_HPP

#include <cstdint>
#include <string>
#include <vector>

namespace sim {

enum class Status {
    done,      // every main process returned, free-running ones wait for input, FIFOs are empty
    deadlock,  // a main process can never go on
    leftover,  // all main processes returned, but tokens or half-done programs are left
};

inline const char* to_string(Status status) {
    return status == Status::done ? "done" : status == Status::deadlock ? "deadlock" : "leftover";
}

// Cycles of one process, from the start of the run to its last return.
struct ProcessReport {
    std::string name;
    bool main;
    bool finished;     // returned (main), or waits at the start of its program (free-running)
    int64_t cycles;    // from the start of the run to the last return; so far, if it hangs
    int64_t tick;      // where it stopped, in its own count without stalls
    int64_t working;   // of these: iterations issued, times their initiation interval
    int64_t starved;   // waited for input, by the first token missing
    int64_t blocked;   // waited for room in a FIFO
    int64_t draining;  // start of the kernel, loop entries, pipelines running empty
};

struct FifoReport {
    std::string name, producer, consumer;
    int64_t depth;
    int64_t tokens;   // written in this run
    int64_t fill;     // left at the end
    int64_t peak;     // highest fill in order of time; 0 unless Scheduler::measure_peaks
    int64_t starved;  // cycles the consumer waited for it
    int64_t blocked;  // cycles the producer waited for it
};

struct Report {
    Status status = Status::done;
    std::string text;    // one line per finding
    int64_t cycles = 0;  // until the last main process returned
    std::vector<ProcessReport> processes;
    std::vector<FifoReport> fifos;

    bool ok() const { return status == Status::done; }
};

}  // namespace sim

#endif
