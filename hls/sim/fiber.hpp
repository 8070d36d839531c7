// A kernel as a coroutine: runs it, once or over and over, and lets it wait for FIFOs. Knows no
// time.
#ifndef SIM_FIBER_HPP
#define SIM_FIBER_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "coroutine.hpp"
#include "fifo.hpp"
#include "ready.hpp"

namespace sim {
inline namespace SIM_MODE {

class Fiber {
  public:
    enum class Wait { none, read, write };

    Fiber(const std::string& name, std::function<void()> function)
        : name(name), function_(std::move(function)) {}
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    const std::string name;

    bool finished() const { return finished_; }
    Wait wait() const { return wait_; }
    Fifo* waits_for() const { return waits_for_; }
    std::exception_ptr error() const { return error_; }
    Context& context() { return context_; }

  protected:
    ~Fiber() = default;

    // Before the kernel is called, and when it has returned: false if that was the last time.
    virtual void call_begins() = 0;
    virtual bool call_ended() = 0;

    void launch(ReadyQueue& ready, std::size_t stack_bytes, int64_t max_calls) {
        ready_ = &ready;
        max_calls_ = max_calls;
        finished_ = false;
        wait_ = Wait::none;
        waits_for_ = nullptr;
        error_ = nullptr;
        context_.prepare(stack_bytes, &Fiber::enter, this);
        ready.push(this);
    }

    // Suspends the process until the other side of the FIFO has moved, or that of `also`, a second
    // FIFO in which it waits for a slot. False if the code is being left by an exception, when
    // nothing may wait any more.
    __attribute__((noinline)) bool block(Wait wait, Fifo& fifo, Fifo* also = nullptr) {
        if (unwinding()) return false;
        wait_ = wait;
        waits_for_ = &fifo;
        (wait == Wait::read ? fifo.waiting_consumer : fifo.waiting_producer) = this;
        if (also) also->waiting_producer = this;
        also_waits_for_ = also;
        yield();
        wait_ = Wait::none;
        waits_for_ = also_waits_for_ = nullptr;
        return true;
    }

    // Lets go on who waits at one side of a FIFO, and takes it off the other FIFO it waits for.
    void wake(Fiber*& waiting) {
        Fiber* fiber = waiting;
        ready_->push(fiber);
        waiting = nullptr;
        if (SIM_UNLIKELY(fiber->also_waits_for_ != nullptr)) {
            fiber->waits_for_->waiting_consumer = nullptr;
            fiber->also_waits_for_->waiting_producer = nullptr;
        }
    }

  private:
    static bool unwinding() {
#ifdef __cpp_lib_uncaught_exceptions
        return std::uncaught_exceptions() > 0;
#else
        return std::uncaught_exception();
#endif
    }

    void yield() {
        Fiber* next = ready_->pop();
        set_current(next);
        Context::switch_to(context_, next ? next->context_ : ready_->outside);
    }

    static void enter(void* self) { static_cast<Fiber*>(self)->body(); }

    void body() {
        try {
            int64_t calls = 0;
            do {
                if (calls++ == max_calls_) {
                    throw std::runtime_error("process " + name + " never comes to rest");
                }
                call_begins();
                function_();
            } while (call_ended());
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

    const std::function<void()> function_;
    Context context_;
    ReadyQueue* ready_ = nullptr;
    int64_t max_calls_ = 0;
    bool finished_ = false;
    Wait wait_ = Wait::none;
    Fifo* waits_for_ = nullptr;
    Fifo* also_waits_for_ = nullptr;
    std::exception_ptr error_;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
