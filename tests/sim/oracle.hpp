// Independent model of a process network: every process advances clock by clock. It shares nothing
// with the scheduler but the description of the network, and is as plain and slow as it can be.
//
// A process is a list of pipeline steps. In each clock it looks at what it could see of its FIFOs
// at the beginning of that clock: if the step that enters the pipeline has all its tokens and the
// step that leaves it has all its slots, the whole pipeline moves by one stage; otherwise it
// stands.
#ifndef TESTS_SIM_ORACLE_HPP
#define TESTS_SIM_ORACLE_HPP

#include <algorithm>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <vector>

#include "network.hpp"

class Oracle {
  public:
    struct ProcessResult {
        bool finished;     // returned (main), or waits for the first input of its program
        int64_t returned;  // clocks until its last return; 0 if it never did
        int64_t steps;     // done when everything stood still
    };
    struct FifoResult {
        int64_t fill, peak, written;
    };
    std::vector<ProcessResult> processes;
    std::vector<FifoResult> fifos;
    bool deadlock = false, leftover = false;

    explicit Oracle(const Network& net) : net_(net), fifo_(net.fifos.size()) {
        for (const ProcessSpec& spec : net.processes)
            machines_.push_back(Machine(net.timing, spec));
        int64_t clock = 0;
        for (int64_t last_move = 0; clock <= last_move + 4; ++clock) {
            std::vector<Machine*> moving;
            for (Machine& machine : machines_) {
                if (can_move(machine, clock)) moving.push_back(&machine);
            }
            for (Machine* machine : moving)
                move(*machine, clock);
            if (!moving.empty()) last_move = clock;
        }
        for (Machine& machine : machines_) {
            const bool fine = machine.spec->main ? machine.done() : idle(machine, clock);
            processes.push_back(ProcessResult{fine, machine.returned, machine.steps_done});
            deadlock = deadlock || (machine.spec->main && !fine);
            leftover = leftover || !fine;
        }
        for (const Buffer& fifo : fifo_) {
            const int64_t fill = static_cast<int64_t>(fifo.visible_from.size());
            fifos.push_back(FifoResult{fill, fifo.peak, fifo.written});
            leftover = leftover || fill > 0;
        }
    }

  private:
    struct Step {
        std::vector<int> reads, writes;
        bool pipelined = false;
    };

    struct Machine {
        const ProcessSpec* spec;
        std::vector<Step> program;
        std::size_t restart = 0;  // step to go on with after the last one (free-running)
        std::size_t position = 0;
        std::deque<std::vector<int>> stages;  // writes of the iterations under way, youngest first
        int64_t returned = 0, steps_done = 0;
        std::size_t first_access = 0;

        Machine(const sim::Timing& timing, const ProcessSpec& process) : spec(&process) {
            stages.resize(static_cast<std::size_t>(process.pipeline_depth));
            bubbles(timing.kernel_start);
            const std::size_t begin = program.size();
            const Segment* loop = nullptr;
            for (int round = 0; round < process.rounds; ++round) {
                for (const Segment& segment : process.segments) {
                    if (loop != &segment) leave(loop, timing);
                    if (segment.loop) {
                        if (!loop) bubbles(timing.loop_entry);
                        loop = &segment;
                        for (const Body& body : segment.bodies)
                            iteration(body, segment.interval);
                        if (segment.exit) leave(loop, timing);
                    } else {
                        for (const Body& body : segment.bodies) {
                            for (const Access& access : body) {
                                Step step;
                                (access.write ? step.writes : step.reads).push_back(access.fifo);
                                program.push_back(step);
                            }
                        }
                    }
                }
            }
            leave(loop, timing);
            if (!process.main) {
                // The steps of one call, once more, behind the gap between two calls.
                const std::vector<Step> call(program.begin() + static_cast<std::ptrdiff_t>(begin),
                                             program.end());
                end_of_call = program.size();
                restart = program.size();
                bubbles(timing.kernel_restart);
                program.insert(program.end(), call.begin(), call.end());
            }
            for (std::size_t k = 0; k < program.size(); ++k) {
                if (!program[k].reads.empty() || !program[k].writes.empty()) {
                    first_access = k;
                    break;
                }
            }
            offset_first = first_access - begin;
        }

        std::size_t end_of_call = 0, offset_first = 0;
        std::size_t last_part = 0;

        bool done() const { return position == program.size(); }

        void bubbles(int count) {
            program.resize(program.size() + static_cast<std::size_t>(count));
        }

        void iteration(const Body& body, int interval) {
            const std::size_t end = program.size() + static_cast<std::size_t>(interval);
            Step step;
            step.pipelined = true;
            for (const Access& access : body) {
                std::vector<int>& list = access.write ? step.writes : step.reads;
                if (std::find(list.begin(), list.end(), access.fifo) != list.end()) {
                    program.push_back(step);
                    step.reads.clear();
                    step.writes.clear();
                }
                (access.write ? step.writes : step.reads).push_back(access.fifo);
            }
            last_part = program.size();
            program.push_back(step);
            if (program.size() < end) program.resize(end);
        }

        void leave(const Segment*& loop, const sim::Timing& timing) {
            if (!loop) return;
            loop = nullptr;
            const std::size_t end = last_part + 1 + static_cast<std::size_t>(spec->pipeline_depth);
            if (program.size() < end) program.resize(end);
            bubbles(timing.loop_exit);
        }

        // The writes of the step that leaves the pipeline when the machine moves.
        const std::vector<int>& leaving() const {
            const Step& entering = program[position];
            if (stages.empty() || (!entering.pipelined && !entering.writes.empty())) {
                return entering.writes;
            }
            return stages.back();
        }
    };

    struct Buffer {
        std::deque<int64_t> visible_from;  // of the tokens inside
        std::deque<int64_t> free_from;     // of the slots that are not back yet
        int64_t peak = 0, written = 0;
    };

    bool can_read(int fifo, int64_t clock) const {
        const Buffer& buffer = fifo_[static_cast<std::size_t>(fifo)];
        return !buffer.visible_from.empty() && buffer.visible_from.front() <= clock;
    }

    int64_t used(int fifo, int64_t clock) const {
        const Buffer& buffer = fifo_[static_cast<std::size_t>(fifo)];
        int64_t count = static_cast<int64_t>(buffer.visible_from.size());
        for (int64_t time : buffer.free_from)
            count += time > clock;
        return count;
    }

    bool can_move(const Machine& machine, int64_t clock) const {
        if (machine.done()) return false;
        for (int fifo : machine.program[machine.position].reads) {
            if (!can_read(fifo, clock)) return false;
        }
        for (int fifo : machine.leaving()) {
            if (used(fifo, clock) >= net_.fifos[static_cast<std::size_t>(fifo)].depth) return false;
        }
        return true;
    }

    void move(Machine& machine, int64_t clock) {
        const Step& step = machine.program[machine.position];
        for (int fifo : step.reads) {
            Buffer& buffer = fifo_[static_cast<std::size_t>(fifo)];
            buffer.visible_from.pop_front();
            buffer.free_from.push_back(clock + net_.timing.slot_latency);
        }
        const std::vector<int> leaving = machine.leaving();
        if (!machine.stages.empty()) {
            machine.stages.pop_back();
            machine.stages.push_front(step.pipelined ? step.writes : std::vector<int>());
        }
        for (int fifo : leaving) {
            Buffer& buffer = fifo_[static_cast<std::size_t>(fifo)];
            while (!buffer.free_from.empty() && buffer.free_from.front() <= clock) {
                buffer.free_from.pop_front();
            }
            // A slot whose read falls into this very clock is not back yet: its side may have moved
            // before or after this one.
            buffer.visible_from.push_back(clock + net_.timing.fifo_latency);
            buffer.peak = std::max(buffer.peak, used(fifo, clock));
            ++buffer.written;
        }
        ++machine.steps_done;
        ++machine.position;
        const bool wraps = !machine.spec->main && machine.done();
        if (machine.done() || machine.position == machine.end_of_call) machine.returned = clock + 1;
        if (wraps) machine.position = machine.restart;
    }

    bool idle(const Machine& machine, int64_t clock) const {
        std::size_t first = machine.first_access;
        if (machine.position >= machine.restart) {
            first = machine.restart + static_cast<std::size_t>(net_.timing.kernel_restart) +
                    machine.offset_first;
        }
        if (machine.position > first) return false;
        const Step& step = machine.program[first];
        // An access that has been tried counts as a start if it is a write or could be read.
        return !step.reads.empty() && !can_read(step.reads.front(), clock);
    }

    const Network& net_;
    std::vector<Buffer> fifo_;
    std::vector<Machine> machines_;
};

#endif
