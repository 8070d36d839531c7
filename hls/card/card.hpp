// The software card: the kernels of one build as processes of the simulation, with their streams.
//
// C ABI of card.so (card_abi.hpp; used by host/ through ctypes). A card is not thread-safe.
//   void* lda_card_new()                    nullptr without memory
//   void lda_card_free(card)
//   int lda_card_step(card, weights, bytes, dynamic, bytes, latent, bytes, result, bytes)
//       one step of the program; 0 done, 1 deadlock, 2 leftover tokens, 3 a buffer or a memory of
//       the engine is too small for the program
//   const char* lda_card_error(card)        what went wrong in the last step, or ""
//   uint64_t lda_card_cycles(card)          modelled clock cycles of the last step
//   const char* lda_card_report(card)       JSON: per process cycles, per FIFO fill and stalls
//   void lda_card_on_entry(card, fn, context)
//       fn(context, entry, i0, i1) after the last write of every execution of an entry
//   void lda_card_read_rows(card, row, count, bytes)   64-byte rows of the activation store
//   int lda_card_set_fifo_depth(card, name, depth)     0, or -1 for an unknown name or depth < 1
//   void lda_card_measure_peaks(card, on)   record the highest fill of every FIFO (slower)
//   const char* lda_card_build_id()
// The generic card (generic.cpp) has in addition
//   int lda_card_set_program(card, blob, bytes)        0, or 3 with lda_card_error
//   int lda_struct_sizes(sizes, count)      sizeof of StoreIo, Segment, StoreEntry, PreEntry,
//                                           MacEntry, PostEntry, WloadEntry; returns how many
#ifndef LDA_CARD_HPP
#define LDA_CARD_HPP

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "../kernels/mac.hpp"
#include "../kernels/post.hpp"
#include "../kernels/pre.hpp"
#include "../kernels/store.hpp"
#include "../kernels/wload.hpp"
#include "report_json.hpp"

namespace lda {

enum StepStatus { STEP_DONE = 0, STEP_DEADLOCK = 1, STEP_LEFTOVER = 2, STEP_TOO_SMALL = 3 };

// The constant arrays of a build.
struct ProgramView {
    StoreIo io;
    const Segment* segments;
    int segment_count;
    int entry_count;
    const StoreEntry* store;
    const PreEntry* pre;
    const MacEntry* mac;
    const PostEntry* post;
    const WloadEntry* wload;
};

typedef void (*EntryCallback)(void* context, int entry, int i0, int i1);

// A DDR buffer whose reads are checked.
struct SourceBuffer {
    const char* name;
    const uint8_t* data;
    uint64_t words;

    Word operator[](int64_t index) const {
        if (index < 0 || uint64_t(index) >= words) {
            throw std::out_of_range("buffer " + std::string(name) + ": word " +
                                    std::to_string(index) + " is read, it has " +
                                    std::to_string(words));
        }
        Word word;
        std::memcpy(word.b, data + index * WORD_BYTES, WORD_BYTES);
        return word;
    }
};

struct SinkBuffer {
    Word* data;
    uint64_t words;

    Word& operator[](int64_t index) const {
        if (index < 0 || uint64_t(index) >= words) {
            throw std::out_of_range("buffer result: word " + std::to_string(index) +
                                    " is written, it has " + std::to_string(words));
        }
        return data[index];
    }
};

struct CallbackHook {
    EntryCallback function;
    void* context;
    void operator()(int entry, int i0, int i1) const {
        if (function) function(context, entry, i0, i1);
    }
};

template <class P>
class Card {
  public:
    explicit Card(const ProgramView& program) : program_(program), memory_(new Memory()) {
        device_.timing.pipeline_depth = P::PIPELINE_DEPTH;
        device_.timing.loop_entry = P::LOOP_ENTRY;
        device_.timing.loop_exit = P::LOOP_EXIT_CYCLES;
        device_.timing.fifo_latency = P::FIFO_LATENCY;
        device_.timing.kernel_start = P::KERNEL_START;
        device_.stack_bytes = std::size_t(8) << 20;
        spawn();
        connect();
    }

    void set_program(const ProgramView& program) { program_ = program; }

    int step(const uint8_t* weights, uint64_t weight_bytes, const uint8_t* dynamic,
             uint64_t dynamic_bytes, const uint8_t* latent, uint64_t latent_bytes, uint8_t* result,
             uint64_t result_bytes) {
        error_.clear();
        report_ = sim::Report();
        weights_ = SourceBuffer{"weights", weights, weight_bytes / WORD_BYTES};
        dynamic_ = SourceBuffer{"dynamic", dynamic, dynamic_bytes / WORD_BYTES};
        latent_ = SourceBuffer{"latent", latent, latent_bytes / WORD_BYTES};
        result_ = SinkBuffer{reinterpret_cast<Word*>(result), result_bytes / WORD_BYTES};
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
        hook_ = CallbackHook{function, context};
    }
    void read_rows(int row, int count, uint8_t* bytes) const {
        for (int i = 0; i < count && row + i < P::STORE_ROWS; ++i) {
            const Word word = read_row<P>(memory_->store, row + i);
            std::memcpy(bytes + std::size_t(i) * WORD_BYTES, word.b, WORD_BYTES);
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

  private:
    // On the card every kernel holds its own; here they outlive a step to be looked at.
    struct Memory {
        typename StoreTypes<P>::Memory store;
        StatsMemory<P> stats;
        ApplyMemory<P> apply;
        MacMemory<P> mac;
        PostMemory<P> post;
    };

    void spawn() {
        device_.spawn("store", [this] {
            store<P>(latent_, result_, program_.io, program_.segments, program_.segment_count,
                     program_.store, memory_->store, hook_, xs_, ks_, rs_, ys_);
        });
        device_.spawn("wload", [this] {
            wload<P>(weights_, dynamic_, program_.segments, program_.segment_count, program_.wload,
                     ws_, pp_, qp_);
        });
        device_.spawn_free("pre.rows", [this] {
            pre_rows<P>(program_.segments, program_.segment_count, program_.pre, xs_, rows_,
                        row_sums_);
        });
        device_.spawn_free("pre.sums", [this] {
            pre_sums<P>(program_.segments, program_.segment_count, program_.pre, memory_->stats,
                        pp_, st_, params_, eps_, group_sums_);
        });
        device_.spawn_free("pre.scale", [this] {
            pre_scale<P>(program_.segments, program_.segment_count, program_.pre, eps_, row_sums_,
                         group_sums_, scales_);
        });
        device_.spawn_free("pre.apply", [this] {
            pre_apply<P>(program_.segments, program_.segment_count, program_.pre, memory_->apply,
                         rows_, params_, scales_, px_, ss_);
        });
        device_.spawn_free("mac", [this] {
            mac<P>(program_.segments, program_.segment_count, program_.mac, memory_->mac, px_, ks_,
                   ws_, as_);
        });
        device_.spawn_free("post", [this] {
            post<P>(program_.segments, program_.segment_count, program_.post, memory_->post, as_,
                    rs_, qp_, ss_, ys_, st_);
        });
    }

    void connect() {
        device_.register_fifo(xs_, "store", "pre.rows");
        device_.register_fifo(ks_, "store", "mac");
        device_.register_fifo(rs_, "store", "post");
        device_.register_fifo(ys_, "post", "store");
        device_.register_fifo(ws_, "wload", "mac");
        device_.register_fifo(pp_, "wload", "pre.sums");
        device_.register_fifo(qp_, "wload", "post");
        device_.register_fifo(px_, "pre.apply", "mac");
        device_.register_fifo(ss_, "pre.apply", "post");
        device_.register_fifo(as_, "mac", "post");
        device_.register_fifo(st_, "post", "pre.sums");
        device_.register_fifo(rows_, "pre.rows", "pre.apply");
        device_.register_fifo(row_sums_, "pre.rows", "pre.scale");
        device_.register_fifo(group_sums_, "pre.sums", "pre.scale");
        device_.register_fifo(eps_, "pre.sums", "pre.scale");
        device_.register_fifo(params_, "pre.sums", "pre.apply");
        device_.register_fifo(scales_, "pre.scale", "pre.apply");
    }

    ProgramView program_;
    std::unique_ptr<Memory> memory_;
    SourceBuffer weights_{}, dynamic_{}, latent_{};
    SinkBuffer result_{};
    CallbackHook hook_{};
    std::string error_, json_;
    sim::Report report_;

    hls::stream<Word, P::DEPTH_XS> xs_{"xs"};
    hls::stream<Word, P::DEPTH_PX> px_{"px"};
    hls::stream<Word, P::DEPTH_KS> ks_{"ks"};
    hls::stream<Word, P::DEPTH_WS> ws_{"ws"};
    hls::stream<AccWord, P::DEPTH_AS> as_{"as"};
    hls::stream<Word, P::DEPTH_RS> rs_{"rs"};
    hls::stream<Word, P::DEPTH_YS> ys_{"ys"};
    hls::stream<StatWord, P::DEPTH_ST> st_{"st"};
    hls::stream<int32_t, P::DEPTH_SS> ss_{"ss"};
    hls::stream<Word, P::DEPTH_PP> pp_{"pp"};
    hls::stream<Word, P::DEPTH_QP> qp_{"qp"};
    hls::stream<RowWord, P::DEPTH_ROWS> rows_{"rows"};
    hls::stream<Sums, P::DEPTH_ROW_SUMS> row_sums_{"row_sums"};
    hls::stream<Sums, P::DEPTH_GROUP_SUMS> group_sums_{"group_sums"};
    hls::stream<int64_t, P::DEPTH_EPS> eps_{"eps"};
    hls::stream<Word, P::DEPTH_PARAMS> params_{"params"};
    hls::stream<Scale, P::DEPTH_SCALES> scales_{"scales"};

    sim::Scheduler device_;
};

}  // namespace lda

#endif
