// Stackful coroutines: a kernel written as a plain loop can stop in the middle of a stream read.
//
// On x86-64 a switch is a dozen instructions. Everywhere else, or with SIM_UCONTEXT defined,
// ucontext does the same more slowly (it saves the signal mask). AddressSanitizer is told of every
// switch.
#ifndef SIM_COROUTINE_HPP
#define SIM_COROUTINE_HPP

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "mode.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif

#if !defined(SIM_UCONTEXT) && !defined(__x86_64__)
#define SIM_UCONTEXT 1
#endif

#ifdef SIM_UCONTEXT
#include <ucontext.h>
#endif
#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace sim {
inline namespace SIM_MODE {

// One stack and the point where it was left. A default Context stands for the caller's own stack.
class Context {
  public:
    Context() = default;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context() {
        if (map_) ::munmap(map_, map_bytes_);
    }

    // Gives the context a fresh start at entry(argument); entry must not return. Pages of the
    // stack are only committed when touched, so a large stack costs address space alone.
    void prepare(std::size_t stack_bytes, void (*entry)(void*), void* argument) {
        allocate(stack_bytes);
        entry_ = entry;
        argument_ = argument;
#ifdef SIM_ASAN
        ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes_);
        fake_stack_ = nullptr;
#endif
#ifdef SIM_UCONTEXT
        ::getcontext(&context_);
        context_.uc_stack.ss_sp = stack_;
        context_.uc_stack.ss_size = stack_bytes_;
        context_.uc_link = nullptr;
        const auto self = reinterpret_cast<std::uintptr_t>(this);
        ::makecontext(&context_, reinterpret_cast<void (*)()>(&Context::start_pair), 2,
                      static_cast<unsigned>(self & 0xffffffffu),
                      static_cast<unsigned>(static_cast<std::uint64_t>(self) >> 32));
#else
        // What switch_stack pops: r12 ... rbp, then the address to return to. Two zero words end
        // the call chain and leave the stack 16-byte aligned in the trampoline.
        void** top = reinterpret_cast<void**>(stack_ + stack_bytes_);
        *--top = nullptr;
        *--top = nullptr;
        *--top = reinterpret_cast<void*>(&Context::trampoline);
        for (int i = 0; i < 6; ++i)
            *--top = nullptr;
        top[0] = this;                                      // r12
        top[1] = reinterpret_cast<void*>(&Context::start);  // r13
        sp_ = top;
#endif
    }

    // Leaves `from` (the running context) and goes on in `to`.
    static void switch_to(Context& from, Context& to) {
#ifdef SIM_ASAN
        __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, to.stack_bytes_);
        switching_from() = &from;
#endif
#ifdef SIM_UCONTEXT
        ::swapcontext(&from.context_, &to.context_);
#else
        switch_stack(&from.sp_, to.sp_);
#endif
#ifdef SIM_ASAN
        arrived(&from);
#endif
    }

  private:
    void allocate(std::size_t bytes) {
        const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        bytes = (bytes + page - 1) / page * page;
        if (map_ && stack_bytes_ == bytes) return;
        if (map_) ::munmap(map_, map_bytes_);
        map_bytes_ = bytes + page;
        map_ = static_cast<char*>(::mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (map_ == MAP_FAILED) {
            map_ = nullptr;
            throw std::bad_alloc();
        }
        ::mprotect(map_, page, PROT_NONE);  // an overflow faults instead of corrupting a neighbour
        stack_ = map_ + page;
        stack_bytes_ = bytes;
    }

    static void start(Context* self) {
#ifdef SIM_ASAN
        arrived(self);
#endif
        self->entry_(self->argument_);
    }

#ifdef SIM_UCONTEXT
    static void start_pair(unsigned low, unsigned high) {
        const auto bits = static_cast<std::uint64_t>(low) | static_cast<std::uint64_t>(high) << 32;
        start(reinterpret_cast<Context*>(static_cast<std::uintptr_t>(bits)));
    }
    ucontext_t context_;
#else
    __attribute__((noinline, naked)) static void switch_stack(void**, void*) {
        asm volatile(
            "pushq %rbp\n\t"
            "pushq %rbx\n\t"
            "pushq %r15\n\t"
            "pushq %r14\n\t"
            "pushq %r13\n\t"
            "pushq %r12\n\t"
            "movq %rsp, (%rdi)\n\t"
            "movq %rsi, %rsp\n\t"
            "popq %r12\n\t"
            "popq %r13\n\t"
            "popq %r14\n\t"
            "popq %r15\n\t"
            "popq %rbx\n\t"
            "popq %rbp\n\t"
            "ret\n\t");
    }
    __attribute__((noinline, naked)) static void trampoline() {
        asm volatile(
            "movq %r12, %rdi\n\t"
            "callq *%r13\n\t"
            "ud2\n\t");
    }
    void* sp_ = nullptr;
#endif

#ifdef SIM_ASAN
    static Context*& switching_from() {
        static thread_local Context* from = nullptr;
        return from;
    }
    // Runs on the stack just entered; records the bounds of the one that was left, which for the
    // caller's own stack are not known otherwise.
    static void arrived(Context* self) {
        const void* bottom = nullptr;
        std::size_t size = 0;
        __sanitizer_finish_switch_fiber(self->fake_stack_, &bottom, &size);
        Context* from = switching_from();
        if (!from->map_) {
            from->stack_ = static_cast<char*>(const_cast<void*>(bottom));
            from->stack_bytes_ = size;
        }
    }
    void* fake_stack_ = nullptr;
#endif

    char* map_ = nullptr;
    std::size_t map_bytes_ = 0;
    char* stack_ = nullptr;
    std::size_t stack_bytes_ = 0;
    void (*entry_)(void*) = nullptr;
    void* argument_ = nullptr;
};

}  // namespace SIM_MODE
}  // namespace sim

#endif
