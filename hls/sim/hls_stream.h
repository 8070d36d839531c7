// Stand-in for the hls_stream.h of Vitis HLS: same names and call syntax, but a stream has a depth
// and blocks. Works under sim::Scheduler; outside of a run (test benches) streams are unbounded
// and reading an empty one throws.
#ifndef SIM_HLS_STREAM_H
#define SIM_HLS_STREAM_H

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "process.hpp"
#include "ticks.hpp"

// Called with every element that is written to a stream; for recorders.
#ifndef SIM_WRITTEN
#define SIM_WRITTEN(fifo, element, bytes) static_cast<void>(0)
#endif

namespace hls {
inline namespace SIM_MODE {

// Elements are plain data. The depth is 2 as in hardware unless the object is a stream<T, DEPTH>.
template <typename T, int DEPTH = 0>
class stream;

template <typename T>
class stream<T, 0> : public sim::Fifo {
    static_assert(std::is_trivially_copyable<T>::value, "stream elements are plain data");

  public:
    stream() : stream(std::string("unnamed")) {}
    explicit stream(const std::string& name) : stream(name, 2) {}
    ~stream() override { std::free(data_); }

    SIM_INLINE T read() {
        sim::Process* process = begin_read();
        T value = data_[taken++ & mask];
        end_read(process);
        return value;
    }
    SIM_INLINE void read(T& value) {
        sim::Process* process = begin_read();
        value = data_[taken++ & mask];
        end_read(process);
    }
    SIM_INLINE void write(const T& value) {
        sim::Process* process = sim::current();
        if (SIM_LIKELY(process != nullptr)) process->begin_write(*this);
        if (SIM_UNLIKELY(put - freed > mask)) reserve(put - freed + 1);
        data_[put++ & mask] = value;
        SIM_WRITTEN(*this, &value, sizeof value);
        if (SIM_LIKELY(process != nullptr)) {
            process->end_write(*this);
        } else {
            publish(sim::BEFORE);
        }
    }
    void operator>>(T& value) { read(value); }
    void operator<<(const T& value) { write(value); }

    // For test benches. Kernels never use these: their answer would depend on the schedule.
    bool empty() const { return taken == published; }
    bool full() const { return put - freed >= depth; }
    std::size_t size() const { return static_cast<std::size_t>(published - taken); }
    bool read_nb(T& value) {
        if (empty()) return false;
        read(value);
        return true;
    }
    bool write_nb(const T& value) {
        if (full()) return false;
        write(value);
        return true;
    }

    void reserve(int64_t count) override {
        if (count <= mask + 1) return;
        int64_t capacity = 4;
        while (capacity < count)
            capacity *= 2;
        const std::size_t align = alignof(T) < 64 ? 64 : alignof(T);
        void* memory = nullptr;
        if (::posix_memalign(&memory, align, static_cast<std::size_t>(capacity) * sizeof(T)) != 0) {
            throw std::bad_alloc();
        }
        T* data = static_cast<T*>(memory);
        const int64_t mask_new = capacity - 1;
        for (int64_t k = taken; k < put; ++k)
            data[k & mask_new] = data_[k & mask];
        std::free(data_);
        data_ = data;
        grow_times(capacity);
        mask = mask_new;
    }

  protected:
    stream(const std::string& name, int64_t depth) : Fifo(name, depth) {}

  private:
    SIM_INLINE sim::Process* begin_read() {
        sim::Process* process = sim::current();
        if (SIM_LIKELY(process != nullptr)) {
            process->begin_read(*this);
        } else if (empty()) {
            throw std::logic_error("stream " + name + " is read while it is empty");
        }
        return process;
    }
    SIM_INLINE void end_read(sim::Process* process) {
        if (SIM_LIKELY(process != nullptr)) {
            process->end_read(*this);
        } else {
            free_slot(sim::BEFORE);
        }
    }

    T* data_ = nullptr;
};

template <typename T, int DEPTH>
class stream : public stream<T, 0> {
    static_assert(DEPTH > 0, "a stream has at least one slot");

  public:
    stream() : stream(std::string("unnamed")) {}
    explicit stream(const std::string& name) : hls::stream<T, 0>(name, DEPTH) {}
};

}  // namespace SIM_MODE
}  // namespace hls

#endif
