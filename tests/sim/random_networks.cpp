// random_networks FIRST_SEED COUNT: the scheduler against the clock-by-clock model on random
// networks. Prints one line of totals, or the first network in which any figure differs (exit
// status 1).
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "network.hpp"
#include "oracle.hpp"
#include "scheduler.hpp"

namespace {

struct Token {
    int64_t number;
};

// Runs the segments of a process over real streams; checks that tokens arrive in order.
struct Player {
    const ProcessSpec* spec;
    std::vector<std::unique_ptr<hls::stream<Token>>>* streams;
    std::vector<int64_t>* read_count;
    std::vector<int64_t>* write_count;

    void play(const Access& access) const {
        if (access.fifo < 0) {
            if (access.ahead) {
                MEMORY_REQUEST(access.port ? "right" : "left", access.word, 1);
            } else if (access.write) {
                MEMORY_WRITE(access.port ? "right" : "left", access.word);
            } else {
                MEMORY_READ(access.port ? "right" : "left", access.word);
            }
            return;
        }
        const std::size_t f = static_cast<std::size_t>(access.fifo);
        if (access.write) {
            (*streams)[f]->write(Token{(*write_count)[f]++});
        } else if ((*streams)[f]->read().number != (*read_count)[f]++) {
            throw std::logic_error("token out of order");
        }
    }

    void operator()() const {
        for (int round = 0; round < spec->rounds; ++round) {
            for (const Segment& segment : spec->segments) {
                for (const Body& body : segment.bodies) {
                    if (segment.loop) {
                        sim::Tick tick(reinterpret_cast<const char*>(&segment), segment.interval);
                        for (const Access& access : body)
                            play(access);
                    } else {
                        for (const Access& access : body)
                            play(access);
                    }
                }
                if (segment.loop && segment.exit) LOOP_EXIT();
            }
        }
    }
};

class Bench {
  public:
    explicit Bench(const Network& net) : read_(net.fifos.size()), written_(net.fifos.size()) {
        device.timing = net.timing;
        device.stack_bytes = 128 * 1024;
        for (std::size_t p = 0; p < net.processes.size(); ++p) {
            const ProcessSpec& spec = net.processes[p];
            Player player{&spec, &streams_, &read_, &written_};
            if (spec.main) {
                device.spawn(process(p), player, spec.pipeline_depth, spec.style);
            } else {
                device.spawn_free(process(p), player, spec.pipeline_depth, spec.style);
            }
        }
        for (std::size_t f = 0; f < net.fifos.size(); ++f) {
            const std::string name = "f" + std::to_string(f);
            streams_.emplace_back(new hls::stream<Token>(name));
            device.register_fifo(*streams_.back(),
                                 process(static_cast<std::size_t>(net.fifos[f].producer)),
                                 process(static_cast<std::size_t>(net.fifos[f].consumer)));
            device.set_depth(name, net.fifos[f].depth);
        }
        device.measure_peaks(true);
    }
    sim::Scheduler device;

  private:
    static std::string process(std::size_t p) { return "p" + std::to_string(p); }
    std::vector<std::unique_ptr<hls::stream<Token>>> streams_;
    std::vector<int64_t> read_, written_;
};

bool differs(const char* what, std::size_t index, int64_t scheduler, int64_t oracle) {
    if (scheduler == oracle) return false;
    std::printf("%s %zu: scheduler %lld, clock by clock %lld\n", what, index,
                static_cast<long long>(scheduler), static_cast<long long>(oracle));
    return true;
}

bool compare(const sim::Report& report, const Oracle& oracle) {
    bool bad = differs("deadlock", 0, report.status == sim::Status::deadlock, oracle.deadlock);
    bad |= differs("done", 0, report.ok(), !oracle.deadlock && !oracle.leftover);
    for (std::size_t p = 0; p < oracle.processes.size(); ++p) {
        const sim::ProcessReport& mine = report.processes[p];
        const Oracle::ProcessResult& truth = oracle.processes[p];
        bad |= differs("finished: process", p, mine.finished, truth.finished);
        const bool returned = mine.finished && truth.returned > 0;
        if (returned) bad |= differs("cycles: process", p, mine.cycles, truth.returned);
        if (!(mine.main && mine.finished)) {
            bad |= differs("steps: process", p, mine.tick, truth.steps);
        }
        if (returned) {
            bad |= differs("sum of cycles: process", p,
                           mine.working + mine.starved + mine.blocked + mine.memory + mine.draining,
                           mine.cycles);
        }
    }
    for (std::size_t f = 0; f < oracle.fifos.size(); ++f) {
        bad |= differs("fill: fifo", f, report.fifos[f].fill, oracle.fifos[f].fill);
        bad |= differs("peak: fifo", f, report.fifos[f].peak, oracle.fifos[f].peak);
    }
    return !bad;
}

// FIFOs as deep as their peak in an unbounded run must not cost a cycle.
bool peaks_suffice(const Network& net, int64_t& checked) {
    Bench unbounded(net);
    unbounded.device.set_unbounded(true);
    const sim::Report free = unbounded.device.run();
    if (!free.ok()) return true;
    Bench sized(net);
    for (const sim::FifoReport& fifo : free.fifos) {
        sized.device.set_depth(fifo.name, fifo.peak > 0 ? fifo.peak : 1);
    }
    const sim::Report tight = sized.device.run();
    ++checked;
    return tight.ok() && tight.cycles == free.cycles;
}

}  // namespace

int main(int argc, char** argv) {
    const uint64_t first = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 0;
    const uint64_t count = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1000;
    int64_t done = 0, deadlocks = 0, leftovers = 0, sized = 0;
    for (uint64_t seed = first; seed < first + count; ++seed) {
        const Network net = Generator(seed).network();
        Bench bench(net);
        const sim::Report report = bench.device.run();
        const Oracle oracle(net);
        if (!compare(report, oracle) || !peaks_suffice(net, sized)) {
            std::printf("seed %llu differs; the scheduler said: %s\n",
                        static_cast<unsigned long long>(seed), report.text.c_str());
            return 1;
        }
        ++(report.ok() ? done : report.status == sim::Status::deadlock ? deadlocks : leftovers);
    }
    std::printf(
        "%llu networks agree: %lld done, %lld deadlocks, %lld leftovers; %lld sized by peaks\n",
        static_cast<unsigned long long>(count), static_cast<long long>(done),
        static_cast<long long>(deadlocks), static_cast<long long>(leftovers),
        static_cast<long long>(sized));
    return 0;
}
