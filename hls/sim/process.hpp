// One simulated process: what the stream accesses, ticks and memory words of a kernel mean.
#ifndef SIM_PROCESS_HPP
#define SIM_PROCESS_HPP

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "clock.hpp"

namespace sim {
inline namespace SIM_MODE {

class Process : public Clock {
  public:
    Process(const std::string& name, std::function<void()> function, bool main, int pipeline_depth,
            Style style)
        : Clock(name, std::move(function), pipeline_depth, style), main(main) {}

    const bool main;

    // --- called by streams and ticks ------------------------------------------------------------

    SIM_INLINE void begin_read(Fifo& fifo) {
#ifdef SIM_UNTIMED
        if (SIM_UNLIKELY(fifo.consumer != this)) wrong_endpoint(fifo, "read");
        while (SIM_UNLIKELY(fifo.taken == fifo.published)) {
            if (!block(Wait::read, fifo)) break;
        }
#else
        if (SIM_UNLIKELY(fifo.consumer != in_body_)) {
            if (fifo.consumer != this) wrong_endpoint(fifo, "read");
            open_single();
        } else if (SIM_UNLIKELY(fifo.read_tick == tick_)) {
            next_tick_in_body();
        }
        fifo.read_tick = tick_;
        await_token(fifo);
#endif
    }

    SIM_INLINE void end_read(Fifo& fifo) {
#ifdef SIM_UNTIMED
        touched_ = true;
        free_slot(fifo, 0);
#else
        add_read(fifo);
        if (SIM_UNLIKELY(!in_body_)) close_tick();
#endif
    }

    SIM_INLINE void begin_write(Fifo& fifo) {
#ifdef SIM_UNTIMED
        if (SIM_UNLIKELY(fifo.producer != this)) wrong_endpoint(fifo, "written");
        touched_ = true;
        while (SIM_UNLIKELY(fifo.fill() >= fifo.depth)) {
            if (!block(Wait::write, fifo)) break;
        }
#else
        if (SIM_UNLIKELY(fifo.producer != in_body_)) {
            if (fifo.producer != this) wrong_endpoint(fifo, "written");
            open_single();
        } else if (SIM_UNLIKELY(fifo.write_tick == tick_)) {
            next_tick_in_body();
        }
        fifo.write_tick = tick_;
#endif
    }

    SIM_INLINE void end_write(Fifo& fifo) {
#ifdef SIM_UNTIMED
        publish(fifo, 0);
#else
        const bool in_body = in_body_ != nullptr;
        add_write(fifo, in_body ? tick_ + pipeline_depth : tick_);
        if (SIM_UNLIKELY(!in_body)) close_tick();
#endif
    }

    // One word of a memory port.
    void memory_beat(const char* port_name, bool write, int64_t word) {
        const MemoryTiming& timing = write ? memory_write_ : memory_read_;
        MemoryPort& port = ports_.find(port_name, write, timing);
        if (!in_body_) {
            open_single();
        } else if (port.tick == tick_) {
            next_tick_in_body();
        }
        add_beat(port, word);
        if (!in_body_) close_tick();
    }

    // Words of a memory port are asked for before they are read, beside the other accesses.
    void memory_request(const char* port_name, int64_t word) {
        if (!in_body_) open_single();
        add_request(ports_.find(port_name, false, memory_read_), word);
        if (!in_body_) close_tick();
    }

    // Words that are written next, and are answered together.
    void memory_burst(const char* port_name, int64_t words) {
        ports_.find(port_name, true, memory_write_).announce(words);
    }

    // Waits until the oldest burst is in memory.
    void memory_answer(const char* port_name) {
        if (!in_body_) open_single();
        add_answer(ports_.find(port_name, true, memory_write_));
        if (!in_body_) close_tick();
    }

    // Opens the tick of an iteration of `loop` (any address that is the same for all of them).
    SIM_INLINE void open_tick(const char* loop, int interval) {
        if (SIM_UNLIKELY(loop != loop_ || in_body_)) enter_loop(loop);
        advance_to(next_);
        next_ += interval;
        working_ += interval;
        in_body_ = this;
    }

    SIM_INLINE void end_tick() {
        close_tick();
        in_body_ = nullptr;
        if (SIM_UNLIKELY(next_ <= tick_)) {  // more accesses than the interval allows
            working_ += tick_ + 1 - next_;
            next_ = tick_ + 1;
        }
    }

    // Lets the pipeline run empty.
    void leave_loop() {
        if (!loop_) return;
        loop_ = nullptr;
        const int64_t before = next_;
        const int64_t last = tick_ + pipeline_depth;
        advance_to(last);
        if (flight_.next() == last) close_tick();
        if (next_ <= tick_) next_ = tick_ + 1;
        next_ += timing_->loop_exit;
        draining_ += next_ - before;
    }

    // --- called by the scheduler ----------------------------------------------------------------

    void start(ReadyQueue& ready, const Timing& timing, const MemoryTiming& memory_read,
               const MemoryTiming& memory_write, std::size_t stack_bytes, bool peaks) {
        timing_ = &timing;
        memory_read_ = memory_read;
        memory_write_ = memory_write;
        in_body_ = nullptr;
        loop_ = nullptr;
        ports_.clear();
        returned_ = Snapshot();
        reset(timing, peaks);
        launch(ready, stack_bytes, timing.max_calls);
    }

    // A free-running process that waits for the first input of its program.
    bool idle() const { return finished() || (!main && fresh() && wait() == Wait::read); }
    const Snapshot& returned() const { return returned_; }
    const MemoryPorts& ports() const { return ports_; }

  private:
    void call_begins() override { touched_ = false; }

    bool call_ended() override {
        leave_loop();
        returned_ = snapshot();
        returned_.ever = true;
        if (main || !touched_) return false;
        next_ += timing_->kernel_restart;
        draining_ += timing_->kernel_restart;
        return true;
    }

    __attribute__((noinline)) void enter_loop(const char* loop) {
        if (in_body_) throw std::logic_error(name + ": TICK inside the body of another");
        leave_loop();
        loop_ = loop;
        next_ += timing_->loop_entry;
        draining_ += timing_->loop_entry;
    }

    // An access outside of a pipelined loop takes a tick of its own.
    __attribute__((noinline)) void open_single() {
        leave_loop();
        advance_to(next_++);
        ++working_;
    }

    // The second access of a stream in one body comes a tick later than the first.
    __attribute__((noinline)) void next_tick_in_body() {
        close_tick();
        advance_to(tick_ + 1);
    }

    __attribute__((noinline)) void wrong_endpoint(const Fifo& fifo, const char* done) const {
        throw std::logic_error("stream " + fifo.name + " is " + done + " by process " + name +
                               ", which is not its registered endpoint");
    }

    Process* in_body_ = nullptr;  // this process while in the body of a pipelined loop
    const char* loop_ = nullptr;
    MemoryPorts ports_;
    MemoryTiming memory_read_, memory_write_;
    const Timing* timing_ = nullptr;
    Snapshot returned_;
};

// The process whose code runs in this thread; null outside of a run.
inline Process* current() {
    return static_cast<Process*>(current_fiber());
}

}  // namespace SIM_MODE
}  // namespace sim

#endif
