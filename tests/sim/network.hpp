// Random process networks: which process touches which FIFO, and which word of which memory port,
// in which iteration of which loop.
#ifndef TESTS_SIM_NETWORK_HPP
#define TESTS_SIM_NETWORK_HPP

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "timing.hpp"

struct Access {
    int fifo;  // -1: a word of a memory port
    bool write;
    int port = -1;
    int64_t word = 0;
    bool ahead = false;  // the word is not read yet, but asked for

    Access(int fifo, bool write) : fifo(fifo), write(write) {}
    Access(int port, bool write, int64_t word) : fifo(-1), write(write), port(port), word(word) {}
    bool same_place(const Access& other) const {
        return !ahead && !other.ahead && fifo == other.fifo && port == other.port &&
               write == other.write;
    }
};
using Body = std::vector<Access>;

// A pipelined loop (one Body per iteration), or accesses outside of any loop.
struct Segment {
    bool loop;
    bool exit;  // LOOP_EXIT behind the loop
    int interval;
    std::vector<Body> bodies;
};

struct ProcessSpec {
    bool main;
    int pipeline_depth;
    sim::Style style;
    int rounds;  // of the segments in one call
    std::vector<Segment> segments;
};

struct FifoSpec {
    int producer, consumer, depth;
};

struct Network {
    sim::Timing timing;
    std::vector<FifoSpec> fifos;
    std::vector<ProcessSpec> processes;
};

class Generator {
  public:
    explicit Generator(uint64_t seed) : random_(seed) {}

    // Every process moves the same number of tokens over a FIFO per round, so that many networks
    // run to their end; in some, one main process forgets or adds an access.
    Network network() {
        Network net;
        net.timing.fifo_latency = range(1, 3);
        net.timing.slot_latency = range(1, 3);
        net.timing.kernel_start = range(0, 5);
        net.timing.kernel_restart = range(0, 3);
        net.timing.loop_entry = range(0, 2);
        net.timing.loop_exit = range(0, 3);
        net.timing.memory_read = memory();
        net.timing.memory_write = memory();
        const int processes = range(2, 6);
        const int rounds = range(1, 6);
        const bool roomy = chance(50);
        for (int k = 0; k < processes; ++k) {
            ProcessSpec process;
            process.main = k == 0 || chance(40);
            process.pipeline_depth = chance(15) ? range(13, 90) : range(0, 12);
            process.style = chance(40) ? sim::Style::flp : sim::Style::stp;
            process.rounds = process.main ? rounds : 1;
            net.processes.push_back(process);
        }
        const int fifos = processes - 1 + range(0, 4);
        std::vector<int> rate;
        for (int k = 0; k < fifos; ++k) {
            FifoSpec fifo;
            // The first FIFOs connect everything; a minority of the others points backwards.
            fifo.consumer = k < processes - 1 ? k + 1 : range(0, processes - 1);
            do {
                fifo.producer = k < processes - 1 ? range(0, k) : range(0, processes - 1);
            } while (fifo.producer == fifo.consumer);
            if (k >= processes - 1 && fifo.producer > fifo.consumer && chance(60)) {
                std::swap(fifo.producer, fifo.consumer);
            }
            fifo.depth = roomy ? range(4, 40) : range(1, 8);
            net.fifos.push_back(fifo);
            rate.push_back(range(1, 12));
        }
        for (int k = 0; k < processes; ++k)
            fill(net, k, rate);
        return net;
    }

  private:
    int range(int low, int high) {
        return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1));
    }
    bool chance(int percent) { return range(0, 99) < percent; }

    // Slower and faster than a word per cycle, bursts and buffers of few words.
    sim::MemoryTiming memory() {
        sim::MemoryTiming timing;
        timing.latency = range(0, 40);
        timing.millicycles_per_word = chance(50) ? range(200, 1500) : range(1000, 6000);
        timing.burst_words = range(1, 8);
        timing.burst_gap = range(0, 3) * range(0, 3);
        timing.buffered_words = range(0, 8);
        return timing;
    }

    // Words of up to two ports among the accesses behind the first: mostly one after the other.
    void add_memory(std::vector<Access>& accesses) {
        const int ports = range(1, 2);
        int64_t next[2][2] = {{0, 0}, {0, 0}};
        std::vector<Access> merged(accesses.begin(), accesses.begin() + 1);
        for (std::size_t k = 1; k <= accesses.size(); ++k) {
            for (int count = chance(40) ? range(1, 4) : 0; count > 0; --count) {
                const int port = range(0, ports - 1);
                const bool write = chance(40);
                int64_t& word = next[port][write];
                if (chance(20)) word = range(0, 100);
                merged.push_back(Access(port, write, word++));
            }
            if (k > 1 && chance(40)) ask_ahead(merged);
            if (k < accesses.size()) merged.push_back(accesses[k]);
        }
        accesses = merged;
    }

    // One of the last accesses, if it reads memory, is asked for somewhat earlier.
    void ask_ahead(std::vector<Access>& accesses) {
        const int last = static_cast<int>(accesses.size()) - 1;
        const int at = last - range(0, last < 3 ? last : 3);
        Access access = accesses[static_cast<std::size_t>(at)];
        if (access.fifo >= 0 || access.write || access.ahead) return;
        access.ahead = true;
        accesses.insert(accesses.begin() + range(1, at), access);
    }

    void fill(Network& net, int index, const std::vector<int>& rate) {
        ProcessSpec& process = net.processes[static_cast<std::size_t>(index)];
        std::vector<Access> accesses;
        for (std::size_t f = 0; f < net.fifos.size(); ++f) {
            const bool reads = net.fifos[f].consumer == index;
            if (!reads && net.fifos[f].producer != index) continue;
            for (int k = 0; k < rate[f]; ++k) {
                accesses.push_back(Access(static_cast<int>(f), !reads));
            }
        }
        order(accesses);
        if (process.main && chance(8)) {
            const std::size_t at = random_() % accesses.size();
            const Access access = accesses[at];
            if (chance(50)) {
                accesses.insert(accesses.begin() + static_cast<std::ptrdiff_t>(at), access);
            } else if (accesses.size() > 1) {
                accesses.erase(accesses.begin() + static_cast<std::ptrdiff_t>(at));
            }
        }
        // A free-running process starts with a read if it has one: otherwise it never comes to
        // rest.
        if (!process.main) {
            for (std::size_t k = 0; k < accesses.size(); ++k) {
                if (accesses[k].write) continue;
                std::swap(accesses[0], accesses[k]);
                break;
            }
        }
        if (chance(35)) add_memory(accesses);
        std::size_t done = 0;
        while (done < accesses.size()) {
            Segment segment;
            segment.loop = chance(85);
            segment.exit = chance(50);
            segment.interval = chance(60) ? 1 : range(2, 4);
            const std::size_t part = chance(50) ? accesses.size() : done + 1 + random_() % 12;
            const int width = range(0, 3);
            while (done < accesses.size() && done < part) {
                Body body;
                for (int k = range(0, 1 + width); k > 0 && done < accesses.size(); --k) {
                    body.push_back(accesses[done++]);
                }
                segment.bodies.push_back(body);
            }
            process.segments.push_back(segment);
        }
    }

    // Reads first, interleaved, or in any order.
    void order(std::vector<Access>& accesses) {
        const int style = range(0, 2);
        for (std::size_t k = accesses.size(); k > 1; --k) {
            std::swap(accesses[k - 1], accesses[random_() % k]);
        }
        if (style == 2) return;
        std::vector<Access> reads, writes, merged;
        for (const Access& access : accesses)
            (access.write ? writes : reads).push_back(access);
        const std::size_t ahead = style == 0 ? reads.size() : 1;
        for (std::size_t k = 0; k < reads.size() + writes.size(); ++k) {
            if (k < reads.size()) merged.push_back(reads[k]);
            if (k >= ahead && k - ahead < writes.size()) merged.push_back(writes[k - ahead]);
        }
        for (std::size_t k = merged.size() - reads.size(); k < writes.size(); ++k) {
            merged.push_back(writes[k]);
        }
        accesses = merged;
    }

    std::mt19937_64 random_;
};

#endif
