// Independent model of a process network: every process advances clock by clock. It shares nothing
// with the scheduler but the description of the network, and is as plain and slow as it can be.
//
// A process is a list of pipeline steps. In each clock it looks at what it could see of its FIFOs
// at the beginning of that clock: if the step that enters the pipeline has all its tokens and the
// step that leaves it has all its slots, the whole pipeline moves by one stage; otherwise it
// stands. A flushable pipeline also moves when only the tokens are missing: nothing enters then.
//
// A memory port is a bucket that fills at the sustained rate, and from which every word takes a
// portion; a step enters when its words are there.
#ifndef TESTS_SIM_ORACLE_HPP
#define TESTS_SIM_ORACLE_HPP

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <stdexcept>
#include <utility>
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
            std::vector<std::pair<Machine*, bool>> moving;  // and whether its next step enters
            for (Machine& machine : machines_) {
                if (!fill_buckets(machine, clock)) last_move = clock;
                const bool enters = can_enter(machine, clock);
                const bool flushes = machine.spec->style == sim::Style::flp && machine.loaded();
                if ((enters || flushes) && can_leave(machine, clock)) {
                    moving.push_back(std::make_pair(&machine, enters));
                }
            }
            for (const auto& each : moving)
                move(*each.first, each.second, clock);
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
        std::vector<Access> words;
        bool pipelined = false;

        void add(const Access& access) {
            if (access.fifo < 0) {
                words.push_back(access);
            } else {
                (access.write ? writes : reads).push_back(access.fifo);
            }
        }
    };

    // One direction of a memory port; levels in thousandths of the portion of one cycle.
    struct Bucket {
        sim::MemoryTiming timing;
        static const int64_t NEVER = -1;
        int64_t level = 0, next = -1;
        std::deque<std::pair<int64_t, int64_t>> ahead;  // words asked for, and when

        int64_t portion() const { return timing.millicycles_per_word; }
        int64_t full() const { return (timing.buffered_words + 1) * portion(); }
        void ask(const Access& access, int64_t clock) {
            int64_t since = access.word == next ? NEVER : clock;
            next = access.word;
            if (!ahead.empty() && ahead.front().first == access.word) {
                since = ahead.front().second;
                ahead.pop_front();
            } else if (access.write && since != NEVER) {
                level -= 1000 * timing.burst_gap;
                return;
            }
            if (since == NEVER) return;
            level = std::min(level, portion() + 1000 * (clock - since - timing.latency));
        }
        void take() {
            level -= portion();
            if (++next % timing.burst_words == 0) level -= 1000 * timing.burst_gap;
        }
    };

    struct Machine {
        const ProcessSpec* spec;
        std::vector<Step> program;
        std::size_t restart = 0;  // step to go on with after the last one (free-running)
        std::size_t position = 0;
        std::deque<std::vector<int>> stages;  // writes of the iterations under way, youngest first
        int64_t returned = 0, steps_done = 0;
        std::size_t first_access = 0;
        std::map<std::pair<int, bool>, Bucket> buckets;  // by port and direction
        bool asked = false;                              // for the words of the step at hand

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
                                step.add(access);
                                program.push_back(step);
                            }
                        }
                    }
                }
            }
            leave(loop, timing);
            for (const Step& step : program) {
                for (const Access& access : step.words) {
                    Bucket bucket;
                    bucket.timing = access.write ? timing.memory_write : timing.memory_read;
                    bucket.level = bucket.full();
                    buckets[std::make_pair(access.port, access.write)] = bucket;
                }
            }
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

        Bucket& bucket(const Access& access) {
            return buckets.at(std::make_pair(access.port, access.write));
        }

        void bubbles(int count) {
            program.resize(program.size() + static_cast<std::size_t>(count));
        }

        void iteration(const Body& body, int interval) {
            const std::size_t end = program.size() + static_cast<std::size_t>(interval);
            Step step;
            step.pipelined = true;
            Body part;
            for (const Access& access : body) {
                for (const Access& other : part) {
                    if (!other.same_place(access)) continue;
                    program.push_back(step);
                    step = Step();
                    step.pipelined = true;
                    part.clear();
                    break;
                }
                part.push_back(access);
                step.add(access);
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

        // Something is on its way through the pipeline.
        bool loaded() const {
            return std::any_of(stages.begin(), stages.end(),
                               [](const std::vector<int>& writes) { return !writes.empty(); });
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

    // The beginning of a clock for the ports of a machine. False if it waits for one of them.
    bool fill_buckets(Machine& machine, int64_t clock) const {
        for (auto& entry : machine.buckets) {
            Bucket& bucket = entry.second;
            bucket.level = std::min(bucket.level + 1000, bucket.full());
        }
        if (machine.done()) return true;
        bool there = true;
        for (const Access& access : machine.program[machine.position].words) {
            Bucket& bucket = machine.bucket(access);
            if (access.ahead) {
                if (!machine.asked) bucket.ahead.push_back(std::make_pair(access.word, clock));
                continue;
            }
            if (!machine.asked) bucket.ask(access, clock);
            there = there && bucket.level >= bucket.portion();
        }
        machine.asked = true;
        return there;
    }

    bool can_enter(Machine& machine, int64_t clock) const {
        if (machine.done()) return false;
        const Step& step = machine.program[machine.position];
        for (int fifo : step.reads) {
            if (!can_read(fifo, clock)) return false;
        }
        for (const Access& access : step.words) {
            const Bucket& bucket = machine.bucket(access);
            if (!access.ahead && bucket.level < bucket.portion()) return false;
        }
        return true;
    }

    bool can_leave(const Machine& machine, int64_t clock) const {
        for (int fifo : machine.leaving()) {
            if (used(fifo, clock) >= net_.fifos[static_cast<std::size_t>(fifo)].depth) return false;
        }
        return true;
    }

    // One stage on; the step at hand enters, or nothing does.
    void move(Machine& machine, bool enters, int64_t clock) {
        const Step step = enters ? machine.program[machine.position] : Step();
        for (const Access& access : step.words) {
            if (!access.ahead) machine.bucket(access).take();
        }
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
        if (!enters) return;
        machine.asked = false;
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
