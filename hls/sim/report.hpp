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
    int64_t memory;    // waited for a memory port
    int64_t draining;  // start of the kernel, loop entries, pipelines running empty
};

struct FifoReport {
    std::string name, producer, consumer;
    int64_t depth;    // 0: unbounded
    int64_t tokens;   // written in this run
    int64_t fill;     // left at the end
    int64_t peak;     // highest fill in order of time; 0 unless Scheduler::measure_peaks
    int64_t starved;  // cycles the consumer waited for it
    int64_t blocked;  // cycles the producer waited for it
};

// One direction of a memory port, as a process used it.
struct PortReport {
    std::string process, name;
    bool write;
    int64_t words, bursts;
    int64_t stalled;  // cycles the process waited for it
};

struct Report {
    Status status = Status::done;
    std::string text;    // one line per finding
    int64_t cycles = 0;  // modelled, until the last main process returned; 0 in functional mode
    std::vector<ProcessReport> processes;
    std::vector<FifoReport> fifos;
    std::vector<PortReport> ports;

    bool ok() const { return status == Status::done; }
};

// Tables for people: where the cycles of every process went, how full the FIFOs were, and what the
// memory ports moved.
inline std::string tables(const Report& report) {
    const auto cell = [](const std::string& text, std::size_t width) {
        return text.size() < width ? std::string(width - text.size(), ' ') + text : " " + text;
    };
    const auto row = [&](const std::string& name, const std::vector<std::string>& cells) {
        std::string line = name + std::string(name.size() < 12 ? 12 - name.size() : 1, ' ');
        for (const std::string& text : cells)
            line += cell(text, 12);
        return line + "\n";
    };
    const auto n = [](int64_t number) { return std::to_string(number); };
    std::string text =
        row("process", {"cycles", "working", "starved", "blocked", "memory", "draining"});
    for (const ProcessReport& p : report.processes) {
        text += row(p.name, {n(p.cycles), n(p.working), n(p.starved), n(p.blocked), n(p.memory),
                             n(p.draining)});
    }
    text += row("fifo", {"depth", "peak", "tokens", "starved", "blocked"});
    for (const FifoReport& f : report.fifos) {
        text += row(f.name, {f.depth == 0 ? "unbounded" : n(f.depth), n(f.peak), n(f.tokens),
                             n(f.starved), n(f.blocked)});
    }
    if (report.ports.empty()) return text;
    text += row("port", {"words", "bursts", "stalled"});
    for (const PortReport& p : report.ports) {
        text += row(p.process + "." + p.name + (p.write ? " write" : " read"),
                    {n(p.words), n(p.bursts), n(p.stalled)});
    }
    return text;
}

}  // namespace sim

#endif
