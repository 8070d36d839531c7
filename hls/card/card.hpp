// The software card: the kernels of one build as processes of the simulation, with their streams.
//
// C ABI of card.so (card_abi.hpp; used by host/ through ctypes). A card is not thread-safe.
//   void* lda_card_new()                    nullptr without memory
//   void lda_card_free(card)
//   int lda_card_ranks(card)
//   int lda_card_step(card, const CardBuffers* buffers, ranks, reload, steps)
//       steps of the program in one start; buffers (buffers.hpp) of every rank; reload: weight rows
//       that stay on the card are read anew; 0 done, 1 deadlock, 2 leftover tokens, 3 a buffer or a
//       memory of the engine is too small for the program, or several steps without a sampler
//   const char* lda_card_error(card)        what went wrong in the last start, or ""
//   uint64_t lda_card_cycles(card)          modelled clock cycles of the last start
//   const char* lda_card_report(card)       JSON: per process cycles, per FIFO fill and stalls
//   void lda_card_on_entry(card, fn, context)
//       fn(context, rank, entry, i0, i1) after every execution of an entry, when the rank has
//       written its last word
//   void lda_card_read_rows(card, rank, row, count, bytes)   128-byte rows of a rank's store
//   int lda_card_set_fifo_depth(card, name, depth)     0, or -1 for an unknown name or depth < 1
//   void lda_card_measure_peaks(card, on)   record the highest fill of every FIFO (slower)
//   void lda_card_poison(card, byte)        fills every memory of the kernels with a byte
//   const char* lda_card_build_id()
// Processes are named KERNEL_n or KERNEL.process_n, FIFOs STREAM_n, of instance n = rank + 1; FIFOs
// between ranks gather.r12, reduce.r21 and the like.
// The generic card (generic.cpp) has in addition
//   int lda_card_set_program(card, blob, bytes)        0, or 3 with lda_card_error
//   int lda_struct_sizes(sizes, count)      sizeof of StoreIo, Updates, Segment, StoreEntry,
//   PreEntry,
//                                           GatherEntry, ReduceEntry, MacEntry, PostEntry,
//                                           WloadEntry, Move; returns how many
#ifndef LDA_CARD_HPP
#define LDA_CARD_HPP

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "scheduler.hpp"

#include "buffers.hpp"
#include "line.hpp"
#include "rank.hpp"
#include "report_json.hpp"

namespace lda {

enum StepStatus { STEP_DONE = 0, STEP_DEADLOCK = 1, STEP_LEFTOVER = 2, STEP_TOO_SMALL = 3 };

template <class P>
class Card {
  public:
    static const int RANKS = P::RANKS;

    explicit Card(const ProgramView& program) : program_(program), observer_() {
        device_.timing.loop_entry = P::LOOP_ENTRY;
        device_.timing.loop_exit = P::LOOP_EXIT_CYCLES;
        device_.timing.fifo_latency = P::FIFO_LATENCY;
        device_.timing.kernel_start = P::KERNEL_START;
        device_.stack_bytes = std::size_t(8) << 20;
        line_.spawn(device_, program_, observer_);
        line_.connect(device_);
    }

    void set_program(const ProgramView& program) { program_ = program; }

    int step(const CardBuffers* buffers, int ranks, bool reload, int steps) {
        report_ = sim::Report();
        if (ranks != P::RANKS) {
            error_ = "buffers of " + std::to_string(ranks) + " ranks are given to a card of " +
                     std::to_string(P::RANKS);
            return STEP_TOO_SMALL;
        }
        error_.clear();
        for (int r = 0; r < P::RANKS; ++r)
            line_.rank(r).use(buffers[r], reload, steps);
        try {
            report_ = device_.run();
        } catch (const std::exception& error) {
            error_ = error.what();
            return STEP_TOO_SMALL;
        }
        if (report_.ok()) return STEP_DONE;
        error_ = report_.text;
        return report_.status == sim::Status::deadlock ? STEP_DEADLOCK : STEP_LEFTOVER;
    }

    const char* error() const { return error_.c_str(); }
    void fail(const std::string& error) { error_ = error; }
    uint64_t cycles() const { return uint64_t(report_.cycles); }
    const char* report() {
        json_ = report_json(report_);
        return json_.c_str();
    }
    void on_entry(EntryCallback function, void* context) {
        observer_ = Observer{function, context};
    }
    void read_rows(int rank, int row, int count, uint8_t* bytes) {
        if (rank < 0 || rank >= P::RANKS) return;
        for (int i = 0; i < count && row + i < P::STORE_ROWS; ++i) {
            const Pair pair = line_.rank(rank).row(row + i);
            std::memcpy(bytes + std::size_t(i) * sizeof pair, &pair, sizeof pair);
        }
    }
    int set_fifo_depth(const char* name, int depth) {
        try {
            device_.set_depth(name, depth);
        } catch (const std::invalid_argument& error) {
            error_ = error.what();
            return -1;
        }
        return 0;
    }
    void measure_peaks(bool on) { device_.measure_peaks(on); }
    void poison(uint8_t byte) {
        for (int r = 0; r < P::RANKS; ++r)
            line_.rank(r).poison(byte);
    }

  private:
    ProgramView program_;
    Observer observer_;
    std::string error_, json_;
    sim::Report report_;
    Line<P, P::RANKS - 1> line_;
    sim::Scheduler device_;
};

}  // namespace lda

#endif
