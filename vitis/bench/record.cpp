// Runs one step of a build with a tap in every stream between its kernels and writes what passes
// to files: FOLDER/KERNEL/PORT.bin for both ends of every stream. Those files are the stimulus and
// the expected results of the kernels' test benches (bench.hpp). A tap adds a FIFO and a process;
// kernels are deterministic whatever the timing, so that the words are those of the card.
//
// C ABI: int lda_record(folder, weights, bytes, dynamic, bytes, latent, bytes, result, bytes,
//                       message, size): 0, or 1 with a message.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "mac.hpp"
#include "post.hpp"
#include "pre.hpp"
#include "store.hpp"
#include "wload.hpp"

#include "engine.hpp"
#include "mac_rom.hpp"
#include "post_rom.hpp"
#include "pre_rom.hpp"
#include "program_rom.hpp"
#include "store_rom.hpp"
#include "wload_rom.hpp"

namespace {

class File {
  public:
    File(const std::string& folder, const std::string& kernel, const std::string& port)
        : handle_(std::fopen((folder + "/" + kernel + "/" + port + ".bin").c_str(), "wb")) {
        if (!handle_) throw std::runtime_error("no file for " + kernel + "." + port);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() {
        if (handle_) std::fclose(handle_);
    }
    void write(const void* data, std::size_t bytes) {
        if (std::fwrite(data, 1, bytes, handle_) != bytes) throw std::runtime_error("disk full");
    }
    void close() {
        const int failed = std::fclose(handle_);
        handle_ = nullptr;
        if (failed) throw std::runtime_error("disk full");
    }

  private:
    std::FILE* handle_;
};

template <class T>
class Tap {
  public:
    Tap(sim::Scheduler& device, const std::string& folder, const char* name, const char* source,
        const char* source_process, const char* sink, const char* sink_process)
        : in(std::string(name) + ".in"),
          out(std::string(name) + ".out"),
          at_source_(folder, source, std::string(name) + "_s"),
          at_sink_(folder, sink, std::string(name) + "_s") {
        const std::string process = std::string("tap.") + name;
        device.spawn_free(process, [this] { pass(); });
        device.register_fifo(in, source_process, process);
        device.register_fifo(out, process, sink_process);
    }
    void close() {
        at_source_.close();
        at_sink_.close();
    }

    hls::stream<T, 4096> in, out;

  private:
    void pass() {
        const T word = in.read();
        at_source_.write(&word, sizeof word);
        at_sink_.write(&word, sizeof word);
        out.write(word);
    }

    File at_source_, at_sink_;
};

struct Memories {
    lda::StoreTypes<Engine>::Memory store;
    lda::StatsMemory<Engine> stats;
    lda::ApplyMemory<Engine> apply;
    lda::MacMemory<Engine> mac;
    lda::PostMemory<Engine> post;
};

void record(const std::string& folder, const lda::Word* weights, const lda::Word* dynamic,
            const lda::Word* latent, lda::Word* result) {
    using lda::Word;
    sim::Scheduler device;
    device.stack_bytes = std::size_t(8) << 20;
    std::unique_ptr<Memories> memory(new Memories());
    Tap<Word> xs(device, folder, "xs", "store", "store", "pre", "pre.rows");
    Tap<Word> ks(device, folder, "ks", "store", "store", "mac", "mac");
    Tap<Word> rs(device, folder, "rs", "store", "store", "post", "post");
    Tap<Word> ys(device, folder, "ys", "post", "post", "store", "store");
    Tap<Word> ws(device, folder, "ws", "wload", "wload", "mac", "mac");
    Tap<Word> pp(device, folder, "pp", "wload", "wload", "pre", "pre.sums");
    Tap<Word> qp(device, folder, "qp", "wload", "wload", "post", "post");
    Tap<Word> px(device, folder, "px", "pre", "pre.apply", "mac", "mac");
    Tap<int32_t> ss(device, folder, "ss", "pre", "pre.apply", "post", "post");
    Tap<lda::AccWord> as(device, folder, "as", "mac", "mac", "post", "post");
    Tap<lda::StatWord> st(device, folder, "st", "post", "post", "pre", "pre.sums");
    hls::stream<lda::RowWord, Engine::DEPTH_ROWS> rows("rows");
    hls::stream<lda::Sums, Engine::DEPTH_ROW_SUMS> row_sums("row_sums");
    hls::stream<lda::Sums, Engine::DEPTH_GROUP_SUMS> group_sums("group_sums");
    hls::stream<int64_t, Engine::DEPTH_EPS> eps("eps");
    hls::stream<Word, Engine::DEPTH_PARAMS> params("params");
    hls::stream<lda::Scale, Engine::DEPTH_SCALES> scales("scales");
    device.register_fifo(rows, "pre.rows", "pre.apply");
    device.register_fifo(row_sums, "pre.rows", "pre.scale");
    device.register_fifo(group_sums, "pre.sums", "pre.scale");
    device.register_fifo(eps, "pre.sums", "pre.scale");
    device.register_fifo(params, "pre.sums", "pre.apply");
    device.register_fifo(scales, "pre.scale", "pre.apply");

    device.spawn("store", [&] {
        lda::store<Engine>(latent, result, STORE_IO, SEGMENTS, SEGMENT_COUNT, STORE_ENTRIES,
                           memory->store, lda::NoHook(), xs.in, ks.in, rs.in, ys.out);
    });
    device.spawn("wload", [&] {
        lda::wload<Engine>(weights, dynamic, SEGMENTS, SEGMENT_COUNT, WLOAD_ENTRIES, ws.in, pp.in,
                           qp.in);
    });
    device.spawn_free("pre.rows", [&] {
        lda::pre_rows<Engine>(SEGMENTS, SEGMENT_COUNT, PRE_ENTRIES, xs.out, rows, row_sums);
    });
    device.spawn_free("pre.sums", [&] {
        lda::pre_sums<Engine>(SEGMENTS, SEGMENT_COUNT, PRE_ENTRIES, memory->stats, pp.out, st.out,
                              params, eps, group_sums);
    });
    device.spawn_free("pre.scale", [&] {
        lda::pre_scale<Engine>(SEGMENTS, SEGMENT_COUNT, PRE_ENTRIES, eps, row_sums, group_sums,
                               scales);
    });
    device.spawn_free("pre.apply", [&] {
        lda::pre_apply<Engine>(SEGMENTS, SEGMENT_COUNT, PRE_ENTRIES, memory->apply, rows, params,
                               scales, px.in, ss.in);
    });
    device.spawn_free("mac", [&] {
        lda::mac<Engine>(SEGMENTS, SEGMENT_COUNT, MAC_ENTRIES, memory->mac, px.out, ks.out, ws.out,
                         as.in);
    });
    device.spawn_free("post", [&] {
        lda::post<Engine>(SEGMENTS, SEGMENT_COUNT, POST_ENTRIES, memory->post, as.out, rs.out,
                          qp.out, ss.out, ys.in, st.in);
    });
    const sim::Report report = device.run();
    if (!report.ok()) throw std::runtime_error(report.text);
    for (Tap<Word>* each : {&xs, &ks, &rs, &ys, &ws, &pp, &qp, &px})
        each->close();
    ss.close();
    as.close();
    st.close();
}

}  // namespace

extern "C" int lda_record(const char* folder, const lda::Word* weights, const lda::Word* dynamic,
                          const lda::Word* latent, lda::Word* result, char* message, int size) {
    try {
        record(folder, weights, dynamic, latent, result);
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, std::size_t(size), "%s", error.what());
        return 1;
    }
}
