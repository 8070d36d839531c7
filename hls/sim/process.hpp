// One simulated process: its coroutine and its clock.
//
// A pipelined loop of a kernel is a rigid pipeline of `pipeline_depth` stages (style=stp): in tick
// v iteration v reads its input and iteration v - depth writes its output, both or neither. A
// process counts ticks (its virtual time) and keeps how far real time has run ahead of them,
// `stall_`:
//     time of tick v = v + stall_;  stall_ grows when a token comes late or a slot is freed late.
// Reads and writes of a tick are published together when it closes, so deadlocks that come from
// results stuck in a stalled pipeline show as in hardware.
#ifndef SIM_PROCESS_HPP
#define SIM_PROCESS_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "coroutine.hpp"
#include "fifo.hpp"
#include "ready.hpp"
#include "timing.hpp"

namespace sim {
inline namespace SIM_MODE {

class Process {
  public:
    enum class Wait { none, read, write };

    Process(const std::string& name, std::function<void()> function, bool main, int pipeline_depth)
        : name(name), main(main), pipeline_depth(pipeline_depth), function_(std::move(function)) {
        reads_.resize(16);
        writes_.resize(64);
        write_mask_ = 63;
    }

    const std::string name;
    const bool main;
    const int pipeline_depth;

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
        while (SIM_UNLIKELY(fifo.taken == fifo.published)) {
            if (!block(Wait::read, fifo)) break;
        }
        const int64_t time = fifo.write_time[fifo.taken & fifo.mask] + fifo_latency_;
        if (time > required_) {
            required_ = time;
            required_by_ = &fifo;
        }
#endif
    }

    SIM_INLINE void end_read(Fifo& fifo) {
#ifdef SIM_UNTIMED
        touched_ = true;
        free_slot(fifo, 0);
#else
        if (SIM_UNLIKELY(read_count_ == reads_.size())) reads_.resize(2 * reads_.size());
        reads_[read_count_++] = &fifo;
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
        queue_write(fifo, in_body ? tick_ + pipeline_depth : tick_);
        if (SIM_UNLIKELY(!in_body)) close_tick();
#endif
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
        if (next_write_ == last) close_tick();
        if (next_ <= tick_) next_ = tick_ + 1;
        next_ += timing_->loop_exit;
        draining_ += next_ - before;
    }

    // --- called by the scheduler ----------------------------------------------------------------

    void start(ReadyQueue& ready, const Timing& timing, std::size_t stack_bytes, bool peaks) {
        ready_ = &ready;
        timing_ = &timing;
        fifo_latency_ = timing.fifo_latency;
        slot_latency_ = timing.slot_latency;
        peaks_ = peaks;
        in_body_ = nullptr;
        finished_ = touched_ = false;
        wait_ = Wait::none;
        waits_for_ = nullptr;
        loop_ = nullptr;
        error_ = nullptr;
        read_count_ = 0;
        write_head_ = write_tail_ = 0;
        next_write_ = NEVER;
        next_ = timing.kernel_start;
        tick_ = next_ - 1;
        stall_ = working_ = starved_ = blocked_ = 0;
        draining_ = next_;
        required_ = BEFORE;
        returned_ = Snapshot();
        context_.prepare(stack_bytes, &Process::enter, this);
        ready.push(this);
    }

    struct Snapshot {
        int64_t time = 0, working = 0, starved = 0, blocked = 0, draining = 0;
        bool ever = false;
    };
    Snapshot snapshot() const {
        Snapshot now;
        now.time = next_ + stall_;
        now.working = working_;
        now.starved = starved_;
        now.blocked = blocked_;
        now.draining = draining_;
        return now;
    }

    bool finished() const { return finished_; }
    // A free-running process that waits for the first input of its program.
    bool idle() const {
        const bool fresh = !touched_ && read_count_ == 0 && write_tail_ == write_head_;
        return finished_ || (!main && fresh && wait_ == Wait::read);
    }
    const Snapshot& returned() const { return returned_; }
    Wait wait() const { return wait_; }
    Fifo* waits_for() const { return waits_for_; }
    int64_t tick() const { return tick_; }
    int64_t time() const { return tick_ + stall_; }
    std::exception_ptr error() const { return error_; }
    Context& context() { return context_; }

  private:
    static const int64_t NEVER = INT64_C(1) << 62;
    struct Write {
        Fifo* fifo;
        int64_t due;
    };

    __attribute__((noinline)) void enter_loop(const char* loop) {
        if (in_body_) throw std::logic_error(name + ": TICK inside the body of another");
        leave_loop();
        loop_ = loop;
        next_ += timing_->loop_entry;
        draining_ += timing_->loop_entry;
    }

    // A stream access outside of a pipelined loop takes a tick of its own.
    __attribute__((noinline)) void open_single() {
        leave_loop();
        tick_ = next_++;
        ++working_;
    }

    // The second access of a stream in one body comes a tick later than the first.
    __attribute__((noinline)) void next_tick_in_body() {
        close_tick();
        advance_to(tick_ + 1);
    }

    // Closes the ticks before `tick` in which older iterations write, and opens `tick`.
    SIM_INLINE void advance_to(int64_t tick) {
        while (next_write_ < tick) {
            tick_ = next_write_;
            close_tick();
        }
        tick_ = tick;
    }

    SIM_INLINE void queue_write(Fifo& fifo, int64_t due) {
        if (SIM_UNLIKELY(write_tail_ - write_head_ > write_mask_)) grow_writes();
        Write& write = writes_[write_tail_++ & write_mask_];
        write.fifo = &fifo;
        write.due = due;
        if (next_write_ == NEVER) next_write_ = due;
    }

    __attribute__((noinline)) void grow_writes() {
        std::vector<Write> larger(writes_.size() * 2);
        for (std::size_t k = write_head_; k != write_tail_; ++k) {
            larger[k & (larger.size() - 1)] = writes_[k & write_mask_];
        }
        writes_.swap(larger);
        write_mask_ = writes_.size() - 1;
    }

    // Waits until all writes of the open tick have a slot, then publishes its reads and writes.
    void close_tick() {
        const bool writes = next_write_ == tick_;
        if (writes) require_slots();
        int64_t time = tick_ + stall_;
        if (SIM_UNLIKELY(required_ > time)) {
            account_stall(required_ - time);
            time = required_;
        }
        required_ = BEFORE;
        touched_ |= read_count_ != 0 || write_tail_ != write_head_;
        for (std::size_t k = 0; k < read_count_; ++k)
            free_slot(*reads_[k], time);
        read_count_ = 0;
        if (writes) {
            do {
                publish(*writes_[write_head_++ & write_mask_].fifo, time);
                next_write_ =
                    write_head_ == write_tail_ ? NEVER : writes_[write_head_ & write_mask_].due;
            } while (next_write_ == tick_);
        }
    }

    SIM_INLINE void require_slots() {
        for (std::size_t k = write_head_; k != write_tail_; ++k) {
            const Write& write = writes_[k & write_mask_];
            if (write.due != tick_) break;
            Fifo& fifo = *write.fifo;
            while (SIM_UNLIKELY(fifo.fill() >= fifo.depth)) {
                if (!block(Wait::write, fifo)) break;
            }
            const int64_t slot = fifo.published - fifo.depth;
            if (slot < 0) continue;
            const int64_t time = fifo.read_time[slot & fifo.mask] + slot_latency_;
            if (time > required_) {
                required_ = time;
                required_by_ = &fifo;
            }
        }
    }

    void account_stall(int64_t cycles) {
        stall_ += cycles;
        if (required_by_->consumer == this) {
            starved_ += cycles;
            required_by_->starved += cycles;
        } else {
            blocked_ += cycles;
            required_by_->blocked += cycles;
        }
    }

    SIM_INLINE void free_slot(Fifo& fifo, int64_t time) {
        fifo.free_slot(time);
        if (SIM_UNLIKELY(peaks_)) fifo.update_peak(slot_latency_);
        if (fifo.waiting_producer) wake(fifo.waiting_producer);
    }

    SIM_INLINE void publish(Fifo& fifo, int64_t time) {
        fifo.publish(time);
        if (SIM_UNLIKELY(peaks_)) fifo.update_peak(slot_latency_);
        if (fifo.waiting_consumer) wake(fifo.waiting_consumer);
    }

    void wake(Process*& waiting) {
        ready_->push(waiting);
        waiting = nullptr;
    }

    // Suspends the process until the other side of the FIFO has moved. False if the code is being
    // left by an exception, when nothing may wait any more.
    __attribute__((noinline)) bool block(Wait wait, Fifo& fifo) {
        if (unwinding()) return false;
        wait_ = wait;
        waits_for_ = &fifo;
        (wait == Wait::read ? fifo.waiting_consumer : fifo.waiting_producer) = this;
        yield();
        wait_ = Wait::none;
        waits_for_ = nullptr;
        return true;
    }

    static bool unwinding() {
#ifdef __cpp_lib_uncaught_exceptions
        return std::uncaught_exceptions() > 0;
#else
        return std::uncaught_exception();
#endif
    }

    void yield() {
        Process* next = ready_->pop();
        set_current(next);
        Context::switch_to(context_, next ? next->context_ : ready_->outside);
    }

    __attribute__((noinline)) void wrong_endpoint(const Fifo& fifo, const char* done) const {
        throw std::logic_error("stream " + fifo.name + " is " + done + " by process " + name +
                               ", which is not its registered endpoint");
    }

    static void enter(void* self) { static_cast<Process*>(self)->body(); }

    void body() {
        try {
            for (int64_t call = 0;; ++call) {
                if (call == timing_->max_calls) {
                    throw std::runtime_error("process " + name + " never comes to rest");
                }
                touched_ = false;
                function_();
                leave_loop();
                returned_ = snapshot();
                returned_.ever = true;
                if (main || !touched_) break;
                next_ += timing_->kernel_restart;
                draining_ += timing_->kernel_restart;
            }
        } catch (...) {
            error_ = std::current_exception();
        }
        finished_ = true;
        if (error_) {
            set_current(nullptr);  // nothing else runs after an error
            Context::switch_to(context_, ready_->outside);
        }
        yield();
    }

    int64_t tick_ = 0;           // the open tick, or the last one
    int64_t stall_ = 0;          // real time minus virtual time
    int64_t next_ = 0;           // tick of the next iteration
    int64_t required_ = BEFORE;  // earliest time at which the open tick may close
    Fifo* required_by_ = nullptr;
    Process* in_body_ = nullptr;  // this process while in the body of a pipelined loop
    const char* loop_ = nullptr;
    int64_t fifo_latency_ = 1, slot_latency_ = 1;

    std::size_t read_count_ = 0;  // reads of the open tick
    std::vector<Fifo*> reads_;
    std::vector<Write> writes_;  // ring, in order of due tick
    std::size_t write_mask_ = 0, write_head_ = 0, write_tail_ = 0;
    int64_t next_write_ = NEVER;
    bool touched_ = false, peaks_ = false, finished_ = false;

    const std::function<void()> function_;
    Context context_;
    ReadyQueue* ready_ = nullptr;
    const Timing* timing_ = nullptr;

    int64_t working_ = 0, starved_ = 0, blocked_ = 0, draining_ = 0;
    Snapshot returned_;
    Wait wait_ = Wait::none;
    Fifo* waits_for_ = nullptr;
    std::exception_ptr error_;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
