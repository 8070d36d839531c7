"""C++ for kernels whose writes to a memory come late, as a pipeline's do."""

LATE = """
#include <deque>
#include <functional>
#include <utility>

// Writes that come LDA_DELAY iterations late.
struct Late {
    long now = 0;
    std::deque<std::pair<long, std::function<void()>>> waiting;
    void tick(long iterations) {
        now += iterations;
        while (!waiting.empty() && waiting.front().first <= now) {
            waiting.front().second();
            waiting.pop_front();
        }
    }
    void later(std::function<void()> write) { waiting.emplace_back(now + LDA_DELAY, write); }
};
inline Late& late() {
    static Late one;
    return one;
}
"""
