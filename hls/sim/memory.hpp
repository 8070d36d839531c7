// The clock of a process's memory ports (m_axi).
//
// A read that goes on where the last one ended finds its words coming at the sustained rate, up to
// `buffered_words` ahead of the kernel; one that jumps waits for the latency, counted from where
// the kernel has asked for it ahead, if it has. A write enters a buffer that empties at the
// sustained rate; a burst is answered when the latency has passed since its last word left that
// buffer. The two directions of a port are independent, as the channels of AXI are. Ports
// do not share bandwidth: two that lie in one bank get half each.
#ifndef SIM_MEMORY_HPP
#define SIM_MEMORY_HPP

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "fifo.hpp"
#include "timing.hpp"

namespace sim {
inline namespace SIM_MODE {

// One direction of a port. Times inside are in thousandths of a cycle.
class MemoryPort {
  public:
    MemoryPort(const char* name, bool write, const MemoryTiming& timing)
        : name(name), write(write), timing_(timing) {}

    // The kernel asks in cycle `now` for words of which `word` is the first. Requests are answered
    // in their order.
    void ask_ahead(int64_t word, int64_t now) { asked_.push_back(Asked{word, now}); }

    // The next `words` words to be written are a burst.
    void announce(int64_t words) { announced_.push_back(words); }

    // First cycle in which the process can have the answer to the oldest burst.
    int64_t answer() {
        const int64_t time = answers_.empty() ? BEFORE : answers_.front();
        if (!answers_.empty()) answers_.pop_front();
        return time;
    }

    // First cycle in which the process can have (or get rid of) `word`, asked for in cycle `now`.
    int64_t request(int64_t word, int64_t now) {
        const bool jumps = word != next_;
        if (!asked_.empty() && asked_.front().word == word) {
            raise(1000 * (asked_.front().time + timing_.latency));
            asked_.pop_front();
        } else if (jumps) {
            if (!write) {
                raise(1000 * (now + timing_.latency));
            } else {
                raise(1000 * now - ahead());
                ready_ += 1000 * int64_t(timing_.burst_gap);
            }
        }
        if (jumps || word % timing_.burst_words == 0) ++bursts;
        next_ = word;
        ++words;
        return ready_ <= 0 ? 0 : (ready_ + 999) / 1000;
    }

    // The word asked for last was passed on in cycle `time`.
    void pass(int64_t time) {
        raise(1000 * time - ahead());
        ready_ += timing_.millicycles_per_word;
        if (++next_ % timing_.burst_words == 0) ready_ += 1000 * int64_t(timing_.burst_gap);
        if (!announced_.empty() && --announced_.front() == 0) {
            announced_.pop_front();
            answers_.push_back((ready_ + ahead() + 999) / 1000 + timing_.latency);
        }
    }

    const char* const name;
    const bool write;
    int64_t tick = -1;  // virtual tick of the last word
    int64_t words = 0, bursts = 0;
    int64_t stalled = 0;  // cycles that the process waited for it

  private:
    int64_t ahead() const { return int64_t(timing_.buffered_words) * timing_.millicycles_per_word; }
    void raise(int64_t time) {
        if (time > ready_) ready_ = time;
    }

    struct Asked {
        int64_t word, time;
    };

    const MemoryTiming timing_;
    std::deque<Asked> asked_;        // ahead, and not read yet
    std::deque<int64_t> announced_;  // words left of bursts that are to be written
    std::deque<int64_t> answers_;    // when the bursts that were written are answered
    int64_t next_ = -1;              // the word that would go on
    int64_t ready_ = BEFORE;         // when that word is there, or has room
};

// The ports that a process has used so far, by name and direction.
class MemoryPorts {
  public:
    // A new one with `timing` if there is none yet.
    MemoryPort& find(const char* name, bool write, const MemoryTiming& timing) {
        for (auto& port : ports_) {
            const bool same = port->name == name || std::strcmp(port->name, name) == 0;
            if (same && port->write == write) return *port;
        }
        ports_.emplace_back(new MemoryPort(name, write, timing));
        return *ports_.back();
    }

    void clear() { ports_.clear(); }
    const std::vector<std::unique_ptr<MemoryPort>>& all() const { return ports_; }

  private:
    std::vector<std::unique_ptr<MemoryPort>> ports_;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
