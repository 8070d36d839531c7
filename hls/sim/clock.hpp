// The clock of a process: when the ticks of its pipeline happen, and what they publish.
//
// A pipelined loop of a kernel is a pipeline of `pipeline_depth` stages: in tick v iteration v
// reads its input and iteration v - depth writes its output. A process counts ticks (its virtual
// time) and keeps how far real time has run ahead of them, `stall_`:
//     time of tick v = v + stall_
// In a rigid pipeline (stp) both or neither happen, and `stall_` grows when a token comes late or a
// slot is freed late. In a flushable one (flp) a late token moves the iteration to a later tick,
// and the older ones go on meanwhile. Reads and writes of a tick are published together when it
// closes, so deadlocks that come from results stuck in a stalled pipeline show as in hardware.
#ifndef SIM_CLOCK_HPP
#define SIM_CLOCK_HPP

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fiber.hpp"
#include "fifo.hpp"
#include "in_flight.hpp"
#include "memory.hpp"
#include "timing.hpp"

namespace sim {
inline namespace SIM_MODE {

class Clock : public Fiber {
  public:
    Clock(const std::string& name, std::function<void()> function, int pipeline_depth, Style style)
        : Fiber(name, std::move(function)),
          pipeline_depth(pipeline_depth),
          flushes_(style == Style::flp) {
        reads_.resize(16);
    }

    const int pipeline_depth;

    struct Snapshot {
        int64_t time = 0, working = 0, starved = 0, blocked = 0, memory = 0, draining = 0;
        bool ever = false;
    };
    Snapshot snapshot() const {
        Snapshot now;
        now.time = next_ + stall_;
        now.working = working_;
        now.starved = starved_;
        now.blocked = blocked_;
        now.memory = memory_;
        now.draining = draining_;
        return now;
    }

    // The tick it stands at, in its own count: without stalls and bubbles.
    int64_t tick() const { return tick_ - bubbles_; }
    int64_t time() const { return tick_ + stall_; }

  protected:
    ~Clock() = default;

    void reset(const Timing& timing, bool peaks) {
        fifo_latency_ = timing.fifo_latency;
        slot_latency_ = timing.slot_latency;
        peaks_ = peaks;
        touched_ = false;
        read_count_ = 0;
        beats_.clear();
        beats_under_way_ = false;
        flight_.clear();
        next_ = timing.kernel_start;
        tick_ = next_ - 1;
        stall_ = bubbles_ = working_ = starved_ = blocked_ = memory_ = 0;
        draining_ = next_;
        required_ = BEFORE;
    }

    // --- called by the accesses of the kernel ---------------------------------------------------

    // Closes the ticks before `tick` in which older iterations write, and opens `tick`.
    SIM_INLINE void advance_to(int64_t tick) {
        while (flight_.next() < tick) {
            tick_ = flight_.next();
            close_tick();
        }
        tick_ = tick;
        own_ = flight_.tail();
    }

    // Waits until there is a token.
    SIM_INLINE void await_token(Fifo& fifo) {
        while (SIM_UNLIKELY(fifo.taken == fifo.published)) {
            if (!block(Wait::read, fifo, flushes_ ? flush() : nullptr)) break;
        }
        require(fifo.write_time[fifo.taken & fifo.mask] + fifo_latency_, &fifo, nullptr);
    }

    SIM_INLINE void add_read(Fifo& fifo) {
        if (SIM_UNLIKELY(read_count_ == reads_.size())) reads_.resize(2 * reads_.size());
        reads_[read_count_++] = &fifo;
    }

    // `due`: the tick in which the token leaves the pipeline.
    SIM_INLINE void add_write(Fifo& fifo, int64_t due) { flight_.push(fifo, due); }

    void add_beat(MemoryPort& port, int64_t word) {
        port.tick = tick_;
        require(port.request(word, time()), nullptr, &port);
        beats_.push_back(&port);
        beats_under_way_ = true;
    }

    void add_request(MemoryPort& port, int64_t word) { port.ask_ahead(word, time()); }

    void add_answer(MemoryPort& port) { require(port.answer(), nullptr, &port); }

    // Waits until all writes of the open tick have a slot, then publishes its reads and writes.
    void close_tick() {
        if (SIM_UNLIKELY(flushes_) && required_ > tick_ + stall_) insert_bubbles();
        const bool writes = flight_.next() == tick_;
        const bool early = SIM_UNLIKELY(flushes_) && writes && flight_.has_early();
        if (early) {
            pass_early();
        } else if (writes) {
            require_slots();
        }
        int64_t time = tick_ + stall_;
        if (SIM_UNLIKELY(required_ > time)) {
            account_stall(required_ - time);
            time = required_;
        }
        required_ = BEFORE;
        touched_ |= read_count_ != 0 || !flight_.empty();
        for (std::size_t k = 0; k < read_count_; ++k)
            free_slot(*reads_[k], time);
        read_count_ = 0;
        if (SIM_UNLIKELY(beats_under_way_)) pass_beats(time);
        if (writes && !early) {
            do {
                publish(flight_.pop(), time);
            } while (flight_.next() == tick_);
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

    // Nothing was read or written since the kernel was called.
    bool fresh() const { return !touched_ && read_count_ == 0 && flight_.empty(); }

    int64_t tick_ = 0;  // the open tick, or the last one
    int64_t next_ = 0;  // tick of the next iteration
    InFlight flight_;
    bool touched_ = false;
    int64_t working_ = 0, draining_ = 0;

  private:
    // The open tick cannot close before `time`, because of a FIFO or a port.
    SIM_INLINE void require(int64_t time, Fifo* fifo, MemoryPort* port) {
        if (time > required_) {
            required_ = time;
            required_by_ = fifo;
            required_port_ = port;
        }
    }

    __attribute__((noinline)) void pass_beats(int64_t time) {
        for (MemoryPort* port : beats_)
            port->pass(time);
        beats_.clear();
        beats_under_way_ = false;
    }

    // Waits for a slot for every write that is due in the open tick.
    SIM_INLINE void require_slots() {
        for (std::size_t k = flight_.head(); k != flight_.tail(); ++k) {
            if (flight_[k].due != tick_) break;
            Fifo& fifo = *flight_[k].fifo;
            while (SIM_UNLIKELY(fifo.fill() >= fifo.depth)) {
                if (!block(Wait::write, fifo)) break;
            }
            require(slot_time(fifo), &fifo, nullptr);
        }
    }

    // First cycle in which a token may go into the FIFO, which has a free slot.
    SIM_INLINE int64_t slot_time(const Fifo& fifo) const {
        const int64_t slot = fifo.published - fifo.depth;
        return slot < 0 ? BEFORE : fifo.read_time[slot & fifo.mask] + slot_latency_;
    }

    void account_stall(int64_t cycles) {
        stall_ += cycles;
        if (required_by_ && required_by_->consumer != this) {
            blocked_ += cycles;
            required_by_->blocked += cycles;
        } else {
            account_input(cycles);
        }
    }

    void account_input(int64_t cycles) {
        if (required_by_) {
            starved_ += cycles;
            required_by_->starved += cycles;
        } else {
            memory_ += cycles;
            required_port_->stalled += cycles;
        }
    }

    // --- flushable pipelines --------------------------------------------------------------------

    // The iteration of the open tick lacks input until `required_`: moves it to the first tick
    // that is not earlier, and closes the ticks before it, in which older iterations write.
    __attribute__((noinline)) void insert_bubbles() {
        const int64_t first = tick_;
        for (;;) {
            const bool leaves = flight_.has_early() || flight_.head() != own_;
            const int64_t due = leaves ? flight_.next() : InFlight::NEVER;
            if (due == tick_ && !flight_.has_early()) leave_early(true);
            const int64_t stall = due == tick_ ? flight_.first_early().stall : stall_;
            const int64_t late = required_ - (tick_ + stall);
            if (late <= 0) break;
            int64_t ticks = 1;
            if (due == tick_) {
                pass_early();
            } else {
                ticks = late < due - tick_ ? late : due - tick_;
            }
            tick_ += ticks;
            next_ += ticks;
            bubbles_ += ticks;
            account_input(ticks);
        }
        flight_.delay(own_, tick_ - first);
    }

    // Publishes the writes of older iterations as far as there are slots, while the input of the
    // open tick is not known yet. Returns a FIFO that is full, or null.
    __attribute__((noinline)) Fifo* flush() {
        while (flight_.head() != own_) {
            if (Fifo* full = leave_early(false)) return full;
        }
        return nullptr;
    }

    // Publishes the writes of the next tick in which older iterations write, at the time at which
    // that tick will have been. Returns a FIFO that is full, or null; with `wait` always null.
    Fifo* leave_early(bool wait) {
        const int64_t due = flight_[flight_.head()].due;
        const int64_t stall = flight_.has_early() ? flight_.last_early().stall : stall_;
        int64_t time = due + stall;
        Fifo* blocker = nullptr;
        for (std::size_t k = flight_.head(); k != own_ && flight_[k].due == due; ++k) {
            Fifo& fifo = *flight_[k].fifo;
            while (fifo.fill() >= fifo.depth) {
                if (!wait) return &fifo;
                if (!block(Wait::write, fifo)) break;
            }
            const int64_t slot = slot_time(fifo);
            if (slot > time) {
                time = slot;
                blocker = &fifo;
            }
        }
        if (blocker) blocker->blocked += time - due - stall;
        while (flight_.head() != own_ && flight_[flight_.head()].due == due)
            publish(flight_.pop(), time);
        flight_.push_early(due, time - due);
        return nullptr;
    }

    // The clock comes to a tick whose writes have left already.
    void pass_early() {
        const int64_t stall = flight_.first_early().stall;
        blocked_ += stall - stall_;
        stall_ = stall;
        flight_.pop_early();
    }

    int64_t stall_ = 0;          // real time minus virtual time
    int64_t bubbles_ = 0;        // ticks that no iteration entered for want of input
    int64_t required_ = BEFORE;  // earliest time at which the open tick may close
    Fifo* required_by_ = nullptr;
    MemoryPort* required_port_ = nullptr;

    std::size_t read_count_ = 0;  // reads of the open tick
    std::vector<Fifo*> reads_;
    std::vector<MemoryPort*> beats_;  // memory words of the open tick
    std::size_t own_ = 0;             // index of the first write of the open tick
    const bool flushes_;
    bool beats_under_way_ = false, peaks_ = false;
    int64_t fifo_latency_ = 1, slot_latency_ = 1;
    int64_t starved_ = 0, blocked_ = 0, memory_ = 0;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
