// Runs the processes of one device until nothing can go on, and says what it found.
//
//     sim::Scheduler device;
//     hls::stream<word, 32> px("px");
//     device.register_fifo(px, "pre", "mac");
//     device.spawn("store", [&] { store(...); });           // the run ends when these return
//     device.spawn_free("mac", [&] { mac(px, ...); });      // starts over whenever it returns
//     sim::Report report = device.run();
#ifndef SIM_SCHEDULER_HPP
#define SIM_SCHEDULER_HPP

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "hls_stream.h"
#include "process.hpp"
#include "report.hpp"

namespace sim {
inline namespace SIM_MODE {

class Scheduler {
  public:
    Timing timing;
    // Address space of each coroutine's stack; kernels keep their buffers there. Memory is only
    // used for the pages that are touched, and kept from run to run.
    std::size_t stack_bytes = std::size_t(64) << 20;

    Scheduler() = default;
    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;

    // A process that is started once per run. Processes have names of their own.
    // pipeline_depth: cycles from the reads of an iteration to its writes; -1:
    // timing.pipeline_depth. style: that of its pipelined loops.
    void spawn(const std::string& name, std::function<void()> function, int pipeline_depth = -1,
               Style style = Style::stp) {
        add(name, std::move(function), true, pipeline_depth, style);
    }

    // A process that starts over whenever it returns (ap_ctrl_none). At the end of a run it has to
    // wait for the first input of its program; the next run starts it anew from there.
    void spawn_free(const std::string& name, std::function<void()> function,
                    int pipeline_depth = -1, Style style = Style::stp) {
        add(name, std::move(function), false, pipeline_depth, style);
    }

    // Memory ports of one process in later runs, instead of those of `timing`.
    void set_memory(const std::string& process, const MemoryTiming& read,
                    const MemoryTiming& write) {
        if (!find(process)) throw std::invalid_argument("there is no process named " + process);
        memories_[process] = Memory{read, write};
    }

    // Every stream that a process touches. An empty name stands for the test bench, which writes
    // before the run or reads after it (such a FIFO then has no bound). The processes may be
    // spawned later; the stream must outlive the scheduler's last run.
    void register_fifo(Fifo& fifo, const std::string& producer, const std::string& consumer) {
        for (const Link& link : links_) {
            if (link.fifo->name == fifo.name) {
                throw std::logic_error("two FIFOs are named " + fifo.name);
            }
        }
        links_.push_back(Link{&fifo, producer, consumer, fifo.declared_depth});
    }

    // Replaces the declared depth of one FIFO (>= 1) in later runs.
    void set_depth(const std::string& fifo, int64_t depth) {
        if (depth < 1) throw std::invalid_argument("a FIFO has at least one slot");
        for (Link& link : links_) {
            if (link.fifo->name == fifo) {
                link.depth = depth;
                return;
            }
        }
        throw std::invalid_argument("there is no FIFO named " + fifo);
    }

    // Without bounds no FIFO ever blocks its producer. Peaks need clocks: 0 in functional mode.
    void set_unbounded(bool unbounded) { unbounded_ = unbounded; }
    void measure_peaks(bool peaks) {
#ifdef SIM_UNTIMED
        static_cast<void>(peaks);
#else
        peaks_ = peaks;
#endif
    }

    // One start of every main process. After a failed run the FIFOs are cleared, as loading the
    // device anew does. An exception from a process is passed on.
    Report run() {
        connect();
        ReadyQueue ready;
        ready.ring.resize(processes_.size());
        for (auto& process : processes_) {
            const auto own = memories_.find(process->name);
            const Memory memory = own != memories_.end()
                                      ? own->second
                                      : Memory{timing.memory_read, timing.memory_write};
            process->start(ready, timing, memory.read, memory.write, stack_bytes, peaks_);
        }
        Fiber* const outer = current_fiber();
        if (Fiber* first = ready.pop()) {
            set_current(first);
            Context::switch_to(ready.outside, first->context());
        }
        set_current(outer);
        Report report;
        std::exception_ptr error;
        for (auto& process : processes_) {
            if (process->error()) error = process->error();
        }
        if (!error) fill_report(report);
        for (Link& link : links_) {
            link.fifo->producer = link.fifo->consumer = nullptr;
            if (error || !report.ok()) link.fifo->clear();
        }
        if (error) std::rethrow_exception(error);
        return report;
    }

  private:
    struct Link {
        Fifo* fifo;
        std::string producer, consumer;
        int64_t depth;
    };
    struct Memory {
        MemoryTiming read, write;
    };

    void add(const std::string& name, std::function<void()> function, bool main, int depth,
             Style style) {
        if (name.empty() || find(name))
            throw std::logic_error("no or double process name: " + name);
        processes_.emplace_back(new Process(name, std::move(function), main,
                                            depth < 0 ? timing.pipeline_depth : depth, style));
    }

    Process* find(const std::string& name) const {
        for (auto& process : processes_) {
            if (process->name == name) return process.get();
        }
        return nullptr;
    }

    Process* endpoint(const Link& link, const std::string& name) const {
        if (name.empty()) return nullptr;
        Process* process = find(name);
        if (process) return process;
        throw std::logic_error("FIFO " + link.fifo->name + " ends at unknown process " + name);
    }

    void connect() {
        for (Link& link : links_) {
            Fifo& fifo = *link.fifo;
            fifo.producer = endpoint(link, link.producer);
            fifo.consumer = endpoint(link, link.consumer);
            fifo.depth = unbounded_ || !fifo.consumer ? Fifo::UNBOUNDED : link.depth;
            fifo.reserve(fifo.depth == Fifo::UNBOUNDED ? 64 : fifo.depth);
            fifo.rewind();
        }
    }

    // --- the report -----------------------------------------------------------------------------

    void fill_report(Report& report) {
        bool mains = true, leftover = false;
        std::string rest, tokens;
        for (auto& process : processes_) {
            const bool fine = process->main ? process->finished() : process->idle();
            if (process->main) mains = mains && fine;
            if (!fine) rest += "\n  " + describe(*process) + where(*process);
            leftover = leftover || !fine;
#ifdef SIM_UNTIMED
            const Process::Snapshot state;
#else
            const Process::Snapshot state =
                fine && process->returned().ever ? process->returned() : process->snapshot();
#endif
            if (process->main) report.cycles = std::max(report.cycles, state.time);
            report.processes.push_back(ProcessReport{process->name, process->main, fine, state.time,
                                                     process->tick(), state.working, state.starved,
                                                     state.blocked, state.memory, state.draining});
            for (const auto& port : process->ports().all()) {
                report.ports.push_back(PortReport{process->name, port->name, port->write,
                                                  port->words, port->bursts, port->stalled});
            }
        }
        for (Link& link : links_) {
            Fifo& fifo = *link.fifo;
            if (peaks_) fifo.finish_peak(timing.slot_latency);
            if (fifo.fill() > 0 && fifo.consumer) {
                leftover = true;
                tokens += "\n  FIFO " + fifo.name + ": " + std::to_string(fifo.fill()) +
                          " tokens left over (" + name_of(link.producer) + " -> " +
                          name_of(link.consumer) + ")";
            }
            report.fifos.push_back(FifoReport{fifo.name, link.producer, link.consumer,
                                              fifo.depth == Fifo::UNBOUNDED ? 0 : fifo.depth,
                                              fifo.put - fifo.first, fifo.fill(), fifo.peak,
                                              fifo.starved, fifo.blocked});
        }
        if (!mains) {
            report.status = Status::deadlock;
            report.text = "deadlock: " + wait_chain() + rest;
        } else if (leftover) {
            report.status = Status::leftover;
            report.text = "leftover: the main processes have returned, but" + rest + tokens;
        } else {
#ifdef SIM_UNTIMED
            report.text = "done";
#else
            report.text = "done: " + std::to_string(report.cycles) + " cycles (model)";
#endif
        }
    }

    static std::string name_of(const std::string& name) { return name.empty() ? "outside" : name; }

    std::string describe(const Fiber& process) const {
        std::string text = process.name;
        if (process.finished()) return text + " has returned";
        const Fifo& fifo = *process.waits_for();
        text += process.wait() == Fiber::Wait::read ? " waits to read " : " waits to write ";
        text += fifo.name + " (" + std::to_string(fifo.fill()) + "/" +
                (fifo.depth == Fifo::UNBOUNDED ? "unbounded" : std::to_string(fifo.depth)) + ")";
        return text;
    }

    std::string where(const Process& process) const {
        std::string text;
        if (process.finished()) return text;
#ifndef SIM_UNTIMED
        text += " at cycle " + std::to_string(process.time()) + ", tick " +
                std::to_string(process.tick());
#endif
        const Fifo& fifo = *process.waits_for();
        if (process.wait() == Fiber::Wait::read && fifo.put > fifo.published) {
            text += ", " + std::to_string(fifo.put - fifo.published) + " more in the pipeline of " +
                    fifo.producer->name;
        }
        return text;
    }

    // From the first main process that hangs, whom each one waits for, up to the one that closes
    // the cycle or cannot be waited for; what only leads to the cycle is left out.
    std::string wait_chain() const {
        std::vector<const Fiber*> chain;
        for (auto& process : processes_) {
            if (process->main && !process->finished()) {
                chain.push_back(process.get());
                break;
            }
        }
        std::string end;
        std::size_t from = 0;
        for (;;) {
            const Fiber* last = chain.back();
            const Fifo& fifo = *last->waits_for();
            const bool reads = last->wait() == Fiber::Wait::read;
            const Fiber* next = reads ? fifo.producer : fifo.consumer;
            if (!next || next->finished()) {
                end = next ? ", but " + next->name + " has returned"
                           : ", which nobody in the device serves";
                break;
            }
            const auto seen = std::find(chain.begin(), chain.end(), next);
            if (seen != chain.end()) {
                from = static_cast<std::size_t>(seen - chain.begin());
                break;
            }
            chain.push_back(next);
        }
        std::string text;
        for (std::size_t k = from; k < chain.size(); ++k) {
            text += (k == from ? "" : ", ") + describe(*chain[k]);
        }
        return text + end;
    }

    std::vector<std::unique_ptr<Process>> processes_;
    std::vector<Link> links_;
    std::map<std::string, Memory> memories_;
    bool unbounded_ = false, peaks_ = false;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
