// The state of one FIFO without its element type: counters, times, endpoints.
//
// Tokens and slots are counted from the start of the program and kept in rings of a power of two.
// A process takes and puts tokens as its code runs (`taken`, `put`), but the other side sees them
// only when the tick they belong to closes (`freed`, `published`). So always
//     freed <= taken <= published <= put.
#ifndef SIM_FIFO_HPP
#define SIM_FIFO_HPP

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "mode.hpp"

namespace sim {
inline namespace SIM_MODE {

class Fiber;

// Time of tokens and slots that exist before a run begins.
static const int64_t BEFORE = -(INT64_C(1) << 60);

class Fifo {
  public:
    static const int64_t UNBOUNDED = INT64_C(1) << 60;

    Fifo(const std::string& name, int64_t depth)
        : name(name), declared_depth(depth), depth(depth) {}
    Fifo(const Fifo&) = delete;
    Fifo& operator=(const Fifo&) = delete;
    virtual ~Fifo() = default;

    int64_t fill() const { return published - freed; }

    void publish(int64_t time) {
#ifndef SIM_UNTIMED
        write_time[published & mask] = time;
#else
        static_cast<void>(time);
#endif
        ++published;
    }
    void free_slot(int64_t time) {
#ifndef SIM_UNTIMED
        read_time[freed & mask] = time;
#else
        static_cast<void>(time);
#endif
        ++freed;
    }

    // Starts a run: what is in the FIFO has always been there.
    void rewind() {
        for (int64_t k = 0; k <= mask; ++k)
            write_time[k] = read_time[k] = BEFORE;
        waiting_producer = waiting_consumer = nullptr;
        read_tick = write_tick = -1;
        starved = blocked = peak = 0;
        first = put;
        peak_write = published;
        peak_read = freed;
    }

    // Throws away every token, as loading the device anew does.
    void clear() { put = published = taken = freed = 0; }

    // Enlarges the rings so that `count` tokens fit.
    virtual void reserve(int64_t count) = 0;

    // Highest fill in order of time: for write k, k + 1 minus the reads whose slot is free by then.
    // Reads and writes are merged by time, as one side may be published long before the other.
    void update_peak(int64_t slot_latency) {
        while (peak_write < published) {
            const int64_t time = write_time[peak_write & mask];
            while (peak_read < freed && read_time[peak_read & mask] + slot_latency <= time) {
                ++peak_read;
            }
            if (peak_read == freed) return;
            raise_peak(peak_write - peak_read + 1);
            ++peak_write;
        }
    }

    // At the end of a run no read can come any more.
    void finish_peak(int64_t slot_latency) {
        update_peak(slot_latency);
        if (peak_write < published) raise_peak(published - peak_read);
        peak_write = published;
    }

    std::string name;
    int64_t declared_depth;
    int64_t depth;

    int64_t put = 0, published = 0, taken = 0, freed = 0;
    int64_t mask = -1;
    std::unique_ptr<int64_t[]> write_time, read_time;

    Fiber* producer = nullptr;  // null while no run is on, or outside the device
    Fiber* consumer = nullptr;
    Fiber* waiting_producer = nullptr;
    Fiber* waiting_consumer = nullptr;
    int64_t read_tick = -1, write_tick = -1;  // virtual tick of the last access of either side

    int64_t starved = 0, blocked = 0;
    int64_t first = 0;  // value of `put` when the run began
    int64_t peak = 0, peak_read = 0, peak_write = 0;

  protected:
    void grow_times(int64_t capacity) {
        std::unique_ptr<int64_t[]> writes(new int64_t[capacity]), reads(new int64_t[capacity]);
        for (int64_t k = 0; k < capacity; ++k)
            writes[k] = reads[k] = BEFORE;
        for (int64_t back = 1; back <= mask + 1; ++back) {
            const int64_t w = published - back, r = freed - back;
            if (w >= 0) writes[w & (capacity - 1)] = write_time[w & mask];
            if (r >= 0) reads[r & (capacity - 1)] = read_time[r & mask];
        }
        write_time = std::move(writes);
        read_time = std::move(reads);
    }

  private:
    void raise_peak(int64_t fill) {
        if (fill > peak) peak = fill;
    }
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
