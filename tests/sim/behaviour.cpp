// behaviour CASE: one small network each; prints the text of its report (and figures where clocks
// exist).
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "scheduler.hpp"

namespace {

struct Word {
    int8_t byte[64];
};
struct Wide {
    int32_t value[64];
};

void source(hls::stream<int>& out, int n) {
    for (int i = 0; i < n; ++i) {
        TICK(1);
        out.write(i);
    }
}

void pass(hls::stream<int>& in, hls::stream<int>& out, int n) {
    for (int i = 0; i < n; ++i) {
        TICK(1);
        out.write(in.read() + 1);
    }
}

void sink(hls::stream<int>& in, int n, int64_t& sum) {
    for (int i = 0; i < n; ++i) {
        TICK(1);
        sum += in.read();
    }
}

std::string figure(const char* name, int64_t value) {
    return std::string(name) + "=" + std::to_string(value) + "\n";
}

// source -> pass -> sink, started three times.
std::string chain() {
    hls::stream<int, 4> a("a"), b("b");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "pass");
    device.register_fifo(b, "pass", "sink");
    device.spawn("source", [&] { source(a, 100); }, 5);
    device.spawn_free("pass", [&] { pass(a, b, 50); }, 7);
    device.spawn("sink", [&] { sink(b, 100, sum); }, 3);
    std::string text;
    for (int run = 0; run < 3; ++run)
        text += device.run().text + "\n";
    return text + figure("sum", sum);
}

// `fork` sends half of a round to each side; `join` wants all of one side before the other.
sim::Report fork_join(int depth) {
    hls::stream<int, 2> left("left");
    hls::stream<int, 16> right("right");
    sim::Scheduler device;
    device.register_fifo(left, "fork", "join");
    device.register_fifo(right, "fork", "join");
    device.set_depth("right", depth);
    device.spawn("fork", [&] {
        for (int i = 0; i < 16; ++i) {
            right.write(i);
        }
        for (int i = 0; i < 16; ++i)
            left.write(i);
    });
    device.spawn("join", [&] {
        for (int i = 0; i < 16; ++i) {
            if (left.read() != i) throw std::logic_error("order");
        }
        for (int i = 0; i < 16; ++i) {
            if (right.read() != i) throw std::logic_error("order");
        }
    });
    return device.run();
}
std::string deep_enough() {
    return fork_join(16).text;
}
std::string one_too_small() {
    return fork_join(15).text;
}

// What `pass` has taken stays in its stalled pipeline, so `source`, which waits for an answer,
// hangs.
std::string one_at_a_time(sim::Style style) {
    hls::stream<int, 8> a("a"), b("b");
    sim::Scheduler device;
    device.register_fifo(a, "source", "pass");
    device.register_fifo(b, "pass", "source");
    device.spawn("source", [&] {
        for (int i = 0; i < 4; ++i) {
            a.write(i);
            b.read();
        }
    });
    device.spawn_free("pass", [&] { pass(a, b, 4); }, -1, style);
    return device.run().text;
}
std::string stalled_pipeline() {
    return one_at_a_time(sim::Style::stp);
}
std::string flushed_pipeline() {
    return one_at_a_time(sim::Style::flp);
}

// The same, but `pass` leaves its loop after every token and so lets it out.
std::string drained_pipeline() {
    hls::stream<int, 8> a("a"), b("b");
    sim::Scheduler device;
    device.register_fifo(a, "source", "pass");
    device.register_fifo(b, "pass", "source");
    device.spawn("source", [&] {
        for (int i = 0; i < 4; ++i) {
            a.write(i);
            b.read();
        }
    });
    device.spawn_free("pass", [&] {
        for (int i = 0; i < 4; ++i) {
            pass(a, b, 1);
            LOOP_EXIT();
        }
    });
    return device.run().text;
}

std::string leftover() {
    hls::stream<int, 8> a("a");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "sink");
    device.spawn("source", [&] { source(a, 10); });
    device.spawn("sink", [&] { sink(a, 7, sum); });
    std::string text = device.run().text;
    return text + "\n" + device.run().text;  // the FIFO was cleared
}

// A free-running kernel that is in the middle of its program when the others are done.
std::string unfinished() {
    hls::stream<int, 8> a("a"), b("b");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "pass");
    device.register_fifo(b, "pass", "sink");
    device.spawn("source", [&] { source(a, 10); }, 0);
    device.spawn_free("pass", [&] { pass(a, b, 4); }, 0);
    device.spawn("sink", [&] { sink(b, 10, sum); }, 0);
    return device.run().text;
}

std::string recovers() {
    hls::stream<int, 4> a("a"), b("b");
    sim::Scheduler device;
    int64_t sum = 0;
    int n = 101;
    device.register_fifo(a, "source", "pass");
    device.register_fifo(b, "pass", "sink");
    device.spawn("source", [&] { source(a, n); });
    device.spawn_free("pass", [&] { pass(a, b, 50); });
    device.spawn("sink", [&] { sink(b, 100, sum); });
    std::string text = sim::to_string(device.run().status);
    n = 100;
    text += std::string(" ") + sim::to_string(device.run().status) + "\n";
    return text + figure("sum", sum);
}

// A reader of another process than registered; then the device is used properly.
std::string wrong_endpoint() {
    hls::stream<int, 4> a("a");
    sim::Scheduler device;
    int64_t sum = 0;
    bool wrong = true;
    device.register_fifo(a, "source", "sink");
    device.spawn("source", [&] { source(a, 3); });
    device.spawn("sink", [&] {
        if (!wrong) sink(a, 3, sum);
    });
    device.spawn("thief", [&] {
        if (wrong) sink(a, 3, sum);
    });
    std::string text;
    try {
        device.run();
    } catch (const std::logic_error& error) {
        text = error.what();
    }
    wrong = false;
    text += std::string("\n") + sim::to_string(device.run().status) + "\n";
    return text + figure("sum", sum);
}

// An exception with full FIFOs and writes under way must come out instead of a deadlock.
std::string exception() {
    hls::stream<int, 2> a("a");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "sink");
    device.spawn(
        "source",
        [&] {
            for (int i = 0;; ++i) {
                TICK(1);
                a.write(i);
                if (i == 5) throw std::runtime_error("kernel says no");
            }
        },
        3);
    device.spawn("sink", [&] { sink(a, 2, sum); });
    try {
        return device.run().text;
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

std::string nested_tick() {
    hls::stream<int, 2> a("a");
    sim::Scheduler device;
    device.register_fifo(a, "source", "");
    device.spawn("source", [&] {
        for (int i = 0; i < 2; ++i) {
            TICK(1);
            source(a, 1);
        }
    });
    try {
        return sim::to_string(device.run().status);
    } catch (const std::logic_error& error) {
        return error.what();
    }
}

std::string livelock() {
    hls::stream<int, 2> a("a"), b("b");
    sim::Scheduler device;
    device.timing.max_calls = 1000;
    device.register_fifo(a, "ping", "pong");
    device.register_fifo(b, "pong", "ping");
    device.spawn("main", [] {});
    device.spawn_free("ping", [&] {
        a.write(1);
        b.read();
    });
    device.spawn_free("pong", [&] { b.write(a.read()); });
    try {
        return device.run().text;
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

// Kernels called one after the other without a scheduler, as in a Vitis test bench.
std::string test_bench() {
    hls::stream<int> a("a"), b;
    int64_t sum = 0;
    source(a, 1000);
    pass(a, b, 1000);
    std::string text = figure("waiting", static_cast<int64_t>(b.size()));
    sink(b, 1000, sum);
    text += figure("sum", sum) + figure("empty", b.empty());
    try {
        a.read();
    } catch (const std::logic_error& error) {
        text += error.what();
    }
    return text;
}

// Input written before the run, output collected after it, both beyond the declared depth.
std::string outside() {
    hls::stream<int, 2> a("a"), b("b");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "", "pass");
    device.register_fifo(b, "pass", "");
    device.spawn("pass", [&] { pass(a, b, 100); });
    std::string text;
    for (int run = 0; run < 2; ++run) {
        source(a, 100);
        text += sim::to_string(device.run().status);
        text += figure(" tokens", static_cast<int64_t>(b.size()));
        sink(b, 100, sum);
    }
    return text + figure("sum", sum);
}

// Elements of 64 and 256 bytes keep every byte, through rings that wrap and grow.
std::string elements() {
    hls::stream<Word, 3> words("words");
    hls::stream<Wide, 5> wides("wides");
    sim::Scheduler device;
    int64_t errors = 0;
    device.register_fifo(words, "source", "sink");
    device.register_fifo(wides, "source", "sink");
    device.spawn(
        "source",
        [&] {
            for (int i = 0; i < 1000; ++i) {
                TICK(1);
                Word word;
                Wide wide;
                for (int k = 0; k < 64; ++k) {
                    word.byte[k] = static_cast<int8_t>(i * 7 + k);
                    wide.value[k] = i * 1000003 + k;
                }
                words << word;
                wides.write(wide);
            }
        },
        40);
    device.spawn("sink", [&] {
        for (int i = 0; i < 1000; ++i) {
            TICK(1);
            Word word;
            words >> word;
            const Wide wide = wides.read();
            for (int k = 0; k < 64; ++k) {
                errors += word.byte[k] != static_cast<int8_t>(i * 7 + k);
                errors += wide.value[k] != i * 1000003 + k;
            }
        }
    });
    const std::string text = sim::to_string(device.run().status);
    return text + "\n" + figure("errors", errors);
}

// Two devices, one of them started from a process of the other, and one in another thread.
std::string devices() {
    std::string inner = "never ran", other = "never ran";
    hls::stream<int, 4> a("a");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "sink");
    device.spawn("source", [&] {
        a.write(1);
        inner = chain();
        source(a, 10);
    });
    device.spawn("sink", [&] { sink(a, 11, sum); });
    std::thread thread([&] { other = chain(); });
    const std::string text = sim::to_string(device.run().status);
    thread.join();
    const std::string alone = chain();
    return text + "\n" + figure("sum", sum) + figure("same", inner == alone && other == alone);
}

// Where the cycles went: `pass` at an interval of 3 holds up `source` and starves `sink`.
std::string accounts() {
    hls::stream<int, 4> a("a"), b("b");
    sim::Scheduler device;
    int64_t sum = 0;
    device.register_fifo(a, "source", "slow");
    device.register_fifo(b, "slow", "sink");
    device.measure_peaks(true);
    device.spawn("source", [&] { source(a, 100); }, 2);
    device.spawn_free(
        "slow",
        [&] {
            for (int i = 0; i < 100; ++i) {
                TICK(3);
                b.write(a.read());
            }
        },
        10);
    device.spawn("sink", [&] { sink(b, 100, sum); }, 1);
    const sim::Report report = device.run();
    return report.text + "\n" + sim::tables(report);
}

std::string unregistered() {
    sim::Scheduler device;
    hls::stream<int, 4> a("a"), b("a");
    std::string text;
    device.register_fifo(a, "nobody", "sink");
    device.spawn("sink", [] {});
    try {
        device.run();
    } catch (const std::logic_error& error) {
        text += error.what();
    }
    try {
        device.register_fifo(b, "source", "sink");
    } catch (const std::logic_error& error) {
        text += std::string("\n") + error.what();
    }
    try {
        device.set_depth("c", 3);
    } catch (const std::invalid_argument& error) {
        text += std::string("\n") + error.what();
    }
    return text;
}

// Words of one port that a loop reads or writes; a second process takes what is read.
std::string memory_loop(const std::vector<int>& words, bool write, bool own = false, int ahead = -1,
                        bool answered = false) {
    hls::stream<int, 4> a("a");
    sim::Scheduler device;
    device.timing.memory_read = sim::MemoryTiming{10, 1500, 4, 2, 2};
    device.timing.memory_write = sim::MemoryTiming{10, 4000, 4, 0, 3};
    int64_t sum = 0;
    const int n = static_cast<int>(words.size());
    device.register_fifo(a, "loader", "sink");
    device.spawn(
        "loader",
        [&] {
            if (answered) MEMORY_BURST("weights", n - 1);
            for (int word : words) {
                TICK(1);
                if (ahead >= 0 && word == words[0]) MEMORY_REQUEST("weights", ahead, 1);
                if (answered && word == words.back()) {
                    MEMORY_ANSWER("weights");
                } else if (write) {
                    MEMORY_WRITE("weights", word);
                } else {
                    MEMORY_READ("weights", word);
                }
                a.write(word);
            }
        },
        3);
    device.spawn("sink", [&] { sink(a, n, sum); }, 3);
    if (own) device.set_memory("loader", {0, 1000, 64, 0, 1}, {0, 1000, 64, 0, 1});
    const sim::Report report = device.run();
    return report.text + "\n" + sim::tables(report);
}
std::string memory_burst() {
    return memory_loop({0, 1, 2, 3, 4, 5, 6, 7}, false);
}
std::string memory_jumps() {
    return memory_loop({0, 10, 20}, false);
}
std::string memory_ahead() {
    return memory_loop({0, 10}, false, false, 10);
}
std::string memory_writes() {
    return memory_loop({0, 1, 2, 3, 4, 5}, true);
}
std::string memory_answer() {
    return memory_loop({0, 1, 2, 3, 4, 5, 6}, true, false, -1, true);
}
std::string memory_own() {
    return memory_loop({0, 1, 2, 3, 4, 5, 6, 7}, false, true);
}

// Outside of a loop and twice in one body: every word has a cycle of its own.
std::string memory_single() {
    sim::Scheduler device;
    device.timing.memory_read = sim::MemoryTiming{10, 1000, 64, 0, 2};
    device.spawn(
        "loader",
        [&] {
            MEMORY_READ("a", 5);
            MEMORY_READ("a", 6);
            MEMORY_READ("b", 7);
            {
                TICK(1);
                MEMORY_READ("b", 8);
                MEMORY_READ("b", 9);
            }
        },
        0);
    std::string text;
    for (int run = 0; run < 2; ++run)
        text += device.run().text + "\n";
    try {
        device.set_memory("nobody", device.timing.memory_read, device.timing.memory_write);
    } catch (const std::exception& error) {
        text += error.what();
    }
    return text;
}

const std::map<std::string, std::function<std::string()>> cases = {
    {"chain", chain},
    {"deep_enough", deep_enough},
    {"one_too_small", one_too_small},
    {"stalled_pipeline", stalled_pipeline},
    {"flushed_pipeline", flushed_pipeline},
    {"drained_pipeline", drained_pipeline},
    {"memory_burst", memory_burst},
    {"memory_jumps", memory_jumps},
    {"memory_ahead", memory_ahead},
    {"memory_writes", memory_writes},
    {"memory_answer", memory_answer},
    {"memory_own", memory_own},
    {"memory_single", memory_single},
    {"leftover", leftover},
    {"unfinished", unfinished},
    {"recovers", recovers},
    {"wrong_endpoint", wrong_endpoint},
    {"exception", exception},
    {"nested_tick", nested_tick},
    {"livelock", livelock},
    {"test_bench", test_bench},
    {"outside", outside},
    {"elements", elements},
    {"devices", devices},
    {"accounts", accounts},
    {"unregistered", unregistered},
};

}  // namespace

int main(int argc, char** argv) {
    for (const auto& entry : cases) {
        if (argc > 1 && entry.first != argv[1]) continue;
        std::printf("[%s]\n%s\n", entry.first.c_str(), entry.second().c_str());
    }
    return 0;
}
