// The results inside a pipeline: writes that the code has done and that leave `depth` ticks later.
//
// In a flushable pipeline writes may leave before the clock of the process has come to their
// tick, while it waits for input. What the clock needs to know of these is kept in `early`.
#ifndef SIM_IN_FLIGHT_HPP
#define SIM_IN_FLIGHT_HPP

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "mode.hpp"

namespace sim {
inline namespace SIM_MODE {

class Fifo;

class InFlight {
  public:
    static const int64_t NEVER = INT64_C(1) << 62;

    struct Write {
        Fifo* fifo;
        int64_t due;  // tick
    };
    // A tick whose writes have left: how far real time was ahead of virtual time then.
    struct Early {
        int64_t due, stall;
    };

    InFlight() : ring_(64), mask_(63) {}

    void clear() {
        head_ = tail_ = 0;
        early_.clear();
        next_ = NEVER;
    }

    bool empty() const { return head_ == tail_; }
    std::size_t head() const { return head_; }
    std::size_t tail() const { return tail_; }
    const Write& operator[](std::size_t k) const { return ring_[k & mask_]; }

    // Tick of the first write that the clock has still to pass, left or not.
    int64_t next() const { return next_; }

    SIM_INLINE void push(Fifo& fifo, int64_t due) {
        if (SIM_UNLIKELY(tail_ - head_ > mask_)) grow();
        Write& write = ring_[tail_++ & mask_];
        write.fifo = &fifo;
        write.due = due;
        if (next_ == NEVER) next_ = due;
    }

    // Takes out the oldest write, which leaves in its tick, or early: then `push_early` follows.
    SIM_INLINE Fifo& pop() {
        Fifo& fifo = *ring_[head_++ & mask_].fifo;
        next_ = due_in_ring();
        return fifo;
    }

    // Delays the writes from index `from` on, which are the youngest.
    void delay(std::size_t from, int64_t ticks) {
        for (std::size_t k = from; k != tail_; ++k)
            ring_[k & mask_].due += ticks;
        if (early_.empty()) next_ = due_in_ring();
    }

    bool has_early() const { return !early_.empty(); }
    const Early& first_early() const { return early_.front(); }
    const Early& last_early() const { return early_.back(); }
    void push_early(int64_t due, int64_t stall) {
        early_.push_back(Early{due, stall});
        next_ = early_.front().due;
    }
    void pop_early() {
        early_.pop_front();
        next_ = early_.empty() ? due_in_ring() : early_.front().due;
    }

  private:
    int64_t due_in_ring() const { return head_ == tail_ ? NEVER : ring_[head_ & mask_].due; }

    void grow() {
        std::vector<Write> larger(ring_.size() * 2);
        for (std::size_t k = head_; k != tail_; ++k)
            larger[k & (larger.size() - 1)] = ring_[k & mask_];
        ring_.swap(larger);
        mask_ = ring_.size() - 1;
    }

    std::vector<Write> ring_;
    std::size_t mask_, head_ = 0, tail_ = 0;
    std::deque<Early> early_;
    int64_t next_ = NEVER;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
