// One rank of the software card: its kernels but for gather and reduce, as processes of the
// simulation, their memories and the streams between them.
#ifndef LDA_RANK_HPP
#define LDA_RANK_HPP

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "../kernels/mac.hpp"
#include "../kernels/post.hpp"
#include "../kernels/pre.hpp"
#include "../kernels/store.hpp"
#include "../kernels/wload.hpp"
#include "buffers.hpp"

namespace lda {

// The constant arrays of a build.
struct ProgramView {
    StoreIo io;
    Updates updates;
    const Segment* segments;
    int segment_count;
    int entry_count;
    const StoreEntry* store;
    const PreEntry* pre;
    const GatherEntry* gather;
    const ReduceEntry* reduce;
    const MacEntry* mac;
    const PostEntry* post;
    const WloadEntry* wload;
    const Move* moves;
};

// "xs_2" of rank 1.
inline std::string name_in_rank(const char* name, int rank) {
    return std::string(name) + "_" + std::to_string(rank + 1);
}

template <class P>
class Rank {
    const int rank_;

  public:
    explicit Rank(int rank) : rank_(rank), memory_(new Memory()) {}

    // to and from gather and reduce
    hls::stream<Word, P::DEPTH_PX> px{name("px")};
    hls::stream<Beat<P::RANKS>, P::DEPTH_GS> gs{name("gs")};
    hls::stream<WeightRow<8>, P::DEPTH_KS> ks{name("ks")};
    hls::stream<SumWord, P::DEPTH_SS> ss{name("ss")};
    hls::stream<StatWord, P::DEPTH_ST> st{name("st")};
    hls::stream<StatBeat<P::RANKS>, P::DEPTH_SG> sg{name("sg")};

    void use(const CardBuffers& buffers, bool reload, int steps) {
        buffers_ = buffers;
        reload_ = reload;
        steps_ = steps;
    }

    // Every byte of the kernels' memories, as if somebody had left it there.
    void poison(uint8_t byte) {
        static_assert(std::is_trivially_copyable<Memory>::value, "memories are plain data");
        std::memset(static_cast<void*>(memory_.get()), byte, sizeof(Memory));
    }

    Pair row(int row) const { return read_row<P>(memory_->store, row); }

    void spawn(sim::Scheduler& device, const ProgramView& program, const Observer& observer) {
        const ProgramView* const p = &program;
        device.spawn(
            name("store"),
            [this, p, &observer] {
                const LatentBuffer latent = {buffers_.latent, buffers_.latent_bytes / WORD_BYTES};
                const ResultBuffer result = {buffers_.result, buffers_.result_bytes / WORD_BYTES};
                const RankHook hook = {&observer, rank_};
                store<P>(latent, result, port_of("spill", buffers_.spill, buffers_.spill_bytes),
                         steps_, p->io, p->updates, p->segments, p->segment_count, p->store,
                         p->moves, memory_->store, memory_->sampler, hook, xs_, rs_, ys_);
            },
            P::STAGES_STORE, sim::Style::flp);
        spawn_wload(device, p);
        device.spawn_free(
            name("pre.sums"),
            [this, p] {
                pre_sums<P>(p->segments, p->segment_count, p->pre, memory_->sums, sg, sm_, mk_);
            },
            P::STAGES_PRE, sim::Style::flp);
        device.spawn_free(
            name("pre.scale"),
            [this, p] { pre_scale<P>(p->segments, p->segment_count, p->pre, hd_, sm_, sc_, rk_); },
            P::STAGES_SCALE, sim::Style::flp);
        device.spawn_free(
            name("pre.rows"),
            [this, p] {
                pre_rows<P>(p->segments, p->segment_count, p->pre, memory_->rows, rk_, mk_, rw_);
            },
            P::STAGES_ROWS, sim::Style::flp);
        device.spawn_free(
            name("pre.apply"),
            [this, p] {
                pre_apply<P>(p->segments, p->segment_count, p->pre, memory_->apply, pp_, xs_, sc_,
                             rw_, px);
            },
            P::STAGES_PRE, sim::Style::flp);
        device.spawn(
            name("mac.plan"),
            [this, p] {
                for (int step = 0; step < steps_; ++step)
                    mac_plan<P>(p->segments, p->segment_count, p->mac, jobs_);
            },
            P::STAGES_MAC, sim::Style::flp);
        device.spawn_free(
            name("mac"), [this] { mac_array<P>(jobs_, memory_->mac, gs, ks, ws_, as_, bs_); },
            P::STAGES_MAC, sim::Style::flp);
        device.spawn_free(
            name("post"),
            [this, p] {
                post<P>(p->segments, p->segment_count, p->post, memory_->post, as_, bs_, rs_, qp_,
                        ss, ys_, st);
            },
            P::STAGES_POST, sim::Style::flp);
    }

    void connect(sim::Scheduler& device) {
        device.register_fifo(xs_, name("store"), name("pre.apply"));
        device.register_fifo(rs_, name("store"), name("post"));
        device.register_fifo(ys_, name("post"), name("store"));
        device.register_fifo(hd_, name("wload.route"), name("pre.scale"));
        device.register_fifo(pp_, name("wload.route"), name("pre.apply"));
        device.register_fifo(ws_, name("wload.route"), name("mac"));
        device.register_fifo(qp_, name("wload.route"), name("post"));
        device.register_fifo(sm_, name("pre.sums"), name("pre.scale"));
        device.register_fifo(sc_, name("pre.scale"), name("pre.apply"));
        device.register_fifo(rk_, name("pre.scale"), name("pre.rows"));
        device.register_fifo(mk_, name("pre.sums"), name("pre.rows"));
        device.register_fifo(rw_, name("pre.rows"), name("pre.apply"));
        device.register_fifo(jobs_, name("mac.plan"), name("mac"));
        device.register_fifo(as_, name("mac"), name("post"));
        device.register_fifo(bs_, name("mac"), name("post"));
        device.register_fifo(static_runs_, name("wload.plan"), name("wload.static"));
        device.register_fifo(dynamic_runs_, name("wload.plan"), name("wload.dynamic"));
        device.register_fifo(runs_, name("wload.plan"), name("wload.route"));
        device.register_fifo(static_words_, name("wload.static"), name("wload.route"));
        device.register_fifo(dynamic_words_, name("wload.dynamic"), name("wload.route"));
    }

  private:
    std::string name(const char* of) const { return name_in_rank(of, rank_); }

    void spawn_wload(sim::Scheduler& device, const ProgramView* p) {
        device.spawn(
            name("wload.plan"),
            [this, p] {
                wload_plan<P>(reload_, steps_, p->updates, p->segments, p->segment_count, p->wload,
                              static_runs_, dynamic_runs_, runs_);
            },
            P::STAGES_WLOAD, sim::Style::flp);
        device.spawn(
            name("wload.static"),
            [this] {
                wload_fetch<P>(port_of("weights", buffers_.weights, buffers_.weights_bytes),
                               static_runs_, static_words_);
            },
            P::STAGES_WLOAD, sim::Style::flp);
        device.spawn(
            name("wload.dynamic"),
            [this] {
                wload_fetch<P>(port_of("dynamic", buffers_.dynamic, buffers_.dynamic_bytes),
                               dynamic_runs_, dynamic_words_);
            },
            P::STAGES_WLOAD, sim::Style::flp);
        device.spawn(
            name("wload.route"),
            [this] {
                wload_route<P>(memory_->cache, runs_, static_words_, dynamic_words_, hd_, pp_, ws_,
                               qp_);
            },
            P::STAGES_WLOAD, sim::Style::flp);
    }

    // On the card every kernel holds its own; here they outlive a step to be looked at.
    struct Memory {
        typename StoreTypes<P>::Memory store;
        SamplerMemory<P> sampler;
        CacheMemory<P> cache;
        SumsMemory<P> sums;
        RowsMemory<P> rows;
        ApplyMemory<P> apply;
        MacMemory<P> mac;
        PostMemory<P> post;
    };

    std::unique_ptr<Memory> memory_;
    CardBuffers buffers_{};
    bool reload_ = true;
    int steps_ = 1;

    hls::stream<Pair, P::DEPTH_XS> xs_{name("xs")};
    hls::stream<Pair, P::DEPTH_RS> rs_{name("rs")};
    hls::stream<ResultPair, P::DEPTH_YS> ys_{name("ys")};
    hls::stream<AccWord, P::DEPTH_AS> as_{name("as")};
    hls::stream<AccWord, P::DEPTH_BS> bs_{name("bs")};
    hls::stream<MacJob, JOBS_DEPTH> jobs_{name("mac.jobs")};
    hls::stream<Word, P::DEPTH_HD> hd_{name("hd")};
    hls::stream<Word, P::DEPTH_PP> pp_{name("pp")};
    hls::stream<WeightRow<P::WEIGHT_BITS>, P::DEPTH_WS> ws_{name("ws")};
    hls::stream<Word, P::DEPTH_QP> qp_{name("qp")};
    hls::stream<SumSet<P::NORMALISERS>, P::DEPTH_SM> sm_{name("sm")};
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_SC> sc_{name("sc")};
    hls::stream<ScaleSet<P::NORMALISERS>, P::DEPTH_RK> rk_{name("rk")};
    hls::stream<MaxWord, P::DEPTH_MK> mk_{name("mk")};
    hls::stream<ScaleWord, P::DEPTH_RW> rw_{name("rw")};
    hls::stream<Fetch, RUNS_DEPTH> static_runs_{name("wload.static_runs")};
    hls::stream<Fetch, RUNS_DEPTH> dynamic_runs_{name("wload.dynamic_runs")};
    hls::stream<Run, RUNS_DEPTH> runs_{name("wload.runs")};
    hls::stream<Word, WORDS_DEPTH> static_words_{name("wload.static_words")};
    hls::stream<Word, WORDS_DEPTH> dynamic_words_{name("wload.dynamic_words")};
};

}  // namespace lda

#endif
