// gather and reduce by themselves for tests/test_gather.py: the processes of all ranks in one
// simulation, with the links between them, fed from arrays.
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>

#include "hls_stream.h"
#include "scheduler.hpp"

#include "kernels/gather.hpp"
#include "kernels/reduce.hpp"

#ifndef LDA_WEIGHT_BITS
#define LDA_WEIGHT_BITS 8
#endif

using namespace lda;

namespace {

template <int R>
struct TestEngine : EngineDefaults {
    static const int RANKS = R;
    static const int WEIGHT_BITS = LDA_WEIGHT_BITS;
    static const int STORED_BITS = LDA_WEIGHT_BITS;
};

constexpr int at_least_one(int n) {
    return n > 0 ? n : 1;
}

// The two directions between RANK and RANK + 1.
template <template <int> class Many, class P, int RANK>
struct Link {
    typedef Many<at_least_one(RANK + 1)> Rightward;
    typedef Many<at_least_one(P::RANKS - 1 - RANK)> Leftward;
    hls::stream<Rightward, P::DEPTH_LINK> rightward{name(RANK + 1, RANK + 2)};
    hls::stream<Leftward, P::DEPTH_LINK> leftward{name(RANK + 2, RANK + 1)};

    static std::string name(int from, int to) {
        return "r" + std::to_string(from) + std::to_string(to);
    }
};

// Streams of one rank; some have no use at the ends of the line.
template <template <int> class Many, class One, class P, int RANK>
struct Streams {
    const std::string tail = "_" + std::to_string(RANK + 1);
    hls::stream<One, P::DEPTH_PX> raw{"raw" + tail}, in{"in" + tail};
    hls::stream<One, P::DEPTH_COPY> own{"own" + tail};
    hls::stream<One, P::DEPTH_COPY> to_right{"to_right" + tail}, to_left{"to_left" + tail};
    hls::stream<Many<at_least_one(RANK)>, P::DEPTH_COPY> left{"left" + tail};
    hls::stream<Many<at_least_one(P::RANKS - 1 - RANK)>, P::DEPTH_COPY> right{"right" + tail};
    hls::stream<Many<P::RANKS>, P::DEPTH_GS> out{"out" + tail};
    hls::stream<Many<P::RANKS>, P::DEPTH_COPY> kept{"kept" + tail};
    hls::stream<WeightRow<8>, P::DEPTH_KS> ks{"ks" + tail};
    hls::stream<SumWord, P::DEPTH_SS> ss{"ss" + tail};
};

enum Place { ONLY, FIRST, MIDDLE, LAST };
template <class P, int RANK>
struct PlaceOf : std::integral_constant<Place, P::RANKS == 1          ? ONLY
                                               : RANK == 0            ? FIRST
                                               : RANK == P::RANKS - 1 ? LAST
                                                                      : MIDDLE> {};
template <Place PLACE>
using Tag = std::integral_constant<Place, PLACE>;

template <class Entry>
struct Rom {
    const Segment* segments;
    int count;
    const Entry* entries;
};

struct Device {
    sim::Scheduler scheduler;

    void spawn(const std::string& name, const std::function<void()>& function) {
        scheduler.spawn(name, function, -1, sim::Style::flp);
    }
    void fifo(sim::Fifo& fifo, const std::string& from, const std::string& to) {
        scheduler.register_fifo(fifo, from, to);
    }
};

// What the processes of a kernel are called with.
#define ROM rom.segments, rom.count, rom.entries

template <class P, int RANK>
struct Gather {
    typedef Streams<Beat, Word, P, RANK> S;

    template <class L, class R>
    static void add(Device& device, const Rom<GatherEntry>& rom, S& s, L& left, R& right) {
        add(device, rom, s, left, right, Tag<PlaceOf<P, RANK>::value>());
        device.fifo(s.in, "source" + s.tail, P::RANKS == 1 ? "join" + s.tail : "copy" + s.tail);
        device.fifo(s.out, "join" + s.tail, "");
        device.fifo(s.ss, "join" + s.tail, "");
        device.fifo(s.kept, "join" + s.tail, "rows" + s.tail);
        device.fifo(s.ks, "rows" + s.tail, "");
        device.spawn("rows" + s.tail, [=, &s] { gather_rows<P>(ROM, s.kept, s.ks); });
    }

    template <class L, class R>
    static void add(Device& device, const Rom<GatherEntry>& rom, S& s, L&, R&, Tag<ONLY>) {
        device.spawn("join" + s.tail,
                     [=, &s] { gather_join_only<P>(ROM, s.in, s.out, s.kept, s.ss); });
    }

    template <class L, class R>
    static void add(Device& device, const Rom<GatherEntry>& rom, S& s, L&, R& right, Tag<FIRST>) {
        device.spawn("copy" + s.tail,
                     [=, &s, &right] { gather_copy<P>(ROM, s.in, right.rightward, s.own); });
        device.spawn("join" + s.tail, [=, &s, &right] {
            gather_join_first<P>(ROM, s.own, right.leftward, s.out, s.kept, s.ss);
        });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
    }

    template <class L, class R>
    static void add(Device& device, const Rom<GatherEntry>& rom, S& s, L& left, R&, Tag<LAST>) {
        device.spawn("copy" + s.tail,
                     [=, &s, &left] { gather_copy<P>(ROM, s.in, left.leftward, s.own); });
        device.spawn("join" + s.tail, [=, &s, &left] {
            gather_join_last<P>(ROM, left.rightward, s.own, s.out, s.kept, s.ss);
        });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
    }

    template <class L, class R>
    static void add(Device& device, const Rom<GatherEntry>& rom, S& s, L& left, R& right,
                    Tag<MIDDLE>) {
        device.spawn("copy" + s.tail,
                     [=, &s] { gather_copy<P>(ROM, s.in, s.to_right, s.to_left, s.own); });
        device.spawn("right" + s.tail, [=, &s, &left, &right] {
            gather_right<P, RANK>(ROM, left.rightward, s.to_right, right.rightward, s.left);
        });
        device.spawn("left" + s.tail, [=, &s, &left, &right] {
            gather_left<P, RANK>(ROM, right.leftward, s.to_left, left.leftward, s.right);
        });
        device.spawn("join" + s.tail, [=, &s] {
            gather_join<P, RANK>(ROM, s.left, s.own, s.right, s.out, s.kept, s.ss);
        });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
        device.fifo(s.to_right, "copy" + s.tail, "right" + s.tail);
        device.fifo(s.to_left, "copy" + s.tail, "left" + s.tail);
        device.fifo(s.left, "right" + s.tail, "join" + s.tail);
        device.fifo(s.right, "left" + s.tail, "join" + s.tail);
    }
};

template <class P, int RANK>
struct Reduce {
    typedef Streams<StatBeat, StatWord, P, RANK> S;

    template <class L, class R>
    static void add(Device& device, const Rom<ReduceEntry>& rom, S& s, L& left, R& right) {
        add(device, rom, s, left, right, Tag<PlaceOf<P, RANK>::value>());
        device.fifo(s.in, "source" + s.tail, P::RANKS == 1 ? "join" + s.tail : "copy" + s.tail);
        device.fifo(s.out, "join" + s.tail, "");
    }

    template <class L, class R>
    static void add(Device& device, const Rom<ReduceEntry>& rom, S& s, L&, R&, Tag<ONLY>) {
        device.spawn("join" + s.tail, [=, &s] { reduce_join_only<P>(ROM, s.in, s.out); });
    }

    template <class L, class R>
    static void add(Device& device, const Rom<ReduceEntry>& rom, S& s, L&, R& right, Tag<FIRST>) {
        device.spawn("copy" + s.tail,
                     [=, &s, &right] { reduce_copy<P>(ROM, s.in, right.rightward, s.own); });
        device.spawn("join" + s.tail,
                     [=, &s, &right] { reduce_join_first<P>(ROM, s.own, right.leftward, s.out); });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
    }

    template <class L, class R>
    static void add(Device& device, const Rom<ReduceEntry>& rom, S& s, L& left, R&, Tag<LAST>) {
        device.spawn("copy" + s.tail,
                     [=, &s, &left] { reduce_copy<P>(ROM, s.in, left.leftward, s.own); });
        device.spawn("join" + s.tail,
                     [=, &s, &left] { reduce_join_last<P>(ROM, left.rightward, s.own, s.out); });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
    }

    template <class L, class R>
    static void add(Device& device, const Rom<ReduceEntry>& rom, S& s, L& left, R& right,
                    Tag<MIDDLE>) {
        device.spawn("copy" + s.tail,
                     [=, &s] { reduce_copy<P>(ROM, s.in, s.to_right, s.to_left, s.own); });
        device.spawn("right" + s.tail, [=, &s, &left, &right] {
            reduce_right<P, RANK>(ROM, left.rightward, s.to_right, right.rightward, s.left);
        });
        device.spawn("left" + s.tail, [=, &s, &left, &right] {
            reduce_left<P, RANK>(ROM, right.leftward, s.to_left, left.leftward, s.right);
        });
        device.spawn("join" + s.tail,
                     [=, &s] { reduce_join<P, RANK>(ROM, s.left, s.own, s.right, s.out); });
        device.fifo(s.own, "copy" + s.tail, "join" + s.tail);
        device.fifo(s.to_right, "copy" + s.tail, "right" + s.tail);
        device.fifo(s.to_left, "copy" + s.tail, "left" + s.tail);
        device.fifo(s.left, "right" + s.tail, "join" + s.tail);
        device.fifo(s.right, "left" + s.tail, "join" + s.tail);
    }
};

// Ranks RANK.. of a line: rank RANK, its link to the right, the rest.
template <template <class, int> class Kernel, template <int> class Many, class P, int RANK>
struct Line {
    typename Kernel<P, RANK>::S streams;
    Link<Many, P, RANK> link;
    Line<Kernel, Many, P, RANK + 1> rest;

    template <class Entry, class L>
    void add(Device& device, const Rom<Entry>& rom, L& left) {
        Kernel<P, RANK>::add(device, rom, streams, left, link);
        if (RANK + 1 < P::RANKS) {
            const std::string mine = streams.tail, next = "_" + std::to_string(RANK + 2);
            const bool ends = RANK + 2 == P::RANKS;
            device.fifo(link.rightward, (RANK == 0 ? "copy" : "right") + mine,
                        (ends ? "join" : "right") + next);
            device.fifo(link.leftward, (ends ? "copy" : "left") + next,
                        (RANK == 0 ? "join" : "left") + mine);
        }
        rest.add(device, rom, link);
    }
    template <class Function>
    void each(Function& function) {
        function(RANK, streams);
        rest.each(function);
    }
};

template <template <class, int> class Kernel, template <int> class Many, int R>
struct Line<Kernel, Many, TestEngine<R>, R> {
    template <class Entry, class L>
    void add(Device&, const Rom<Entry>&, L&) {}
    template <class Function>
    void each(Function&) {}
};

template <class T>
void feed(hls::stream<T>& stream, const uint8_t* bytes, int count) {
    for (int i = 0; i < count; ++i) {
        T value;
        std::memcpy(&value, bytes + std::size_t(i) * sizeof(T), sizeof(T));
        stream.write(value);
    }
}

template <class T>
std::string drain(hls::stream<T>& stream, uint8_t* bytes, int count) {
    if (int(stream.size()) != count) {
        return stream.name + " has " + std::to_string(stream.size()) + " elements";
    }
    for (int i = 0; i < count; ++i) {
        const T value = stream.read();
        std::memcpy(bytes + std::size_t(i) * sizeof(T), &value, sizeof(T));
    }
    return "";
}

// counts: per rank, elements of px (or st), gs (or sg), ks, ss; intervals: cycles from one element
// to the next, of each rank.
struct Arrays {
    const uint8_t* in;
    uint8_t* out;
    uint8_t* ks;
    uint8_t* ss;
    const int32_t* counts;
    const int32_t* intervals;
};

template <class T>
void source(hls::stream<T>& raw, hls::stream<T>& in, int count, int interval) {
    for (int i = 0; i < count; ++i) {
        TICK(interval);
        in.write(raw.read());
    }
}

struct Feeder {
    Device& device;
    const Arrays& arrays;

    template <class S>
    void operator()(int rank, S& streams) {
        const int count = arrays.counts[0], interval = arrays.intervals[rank];
        const std::size_t bytes = sizeof(streams.raw.read()) * std::size_t(count);
        feed(streams.raw, arrays.in + std::size_t(rank) * bytes, count);
        device.fifo(streams.raw, "", "source" + streams.tail);
        device.spawn("source" + streams.tail,
                     [=, &streams] { source(streams.raw, streams.in, count, interval); });
    }
};

struct Drainer {
    const Arrays& arrays;
    std::string error;

    template <class T>
    void take(int rank, hls::stream<T>& stream, uint8_t* to, int count) {
        if (error.empty()) error = drain(stream, to + sizeof(T) * std::size_t(rank * count), count);
    }
    template <class S>
    void operator()(int rank, S& streams) {
        take(rank, streams.out, arrays.out, arrays.counts[1]);
        take(rank, streams.ks, arrays.ks, arrays.counts[2]);
        take(rank, streams.ss, arrays.ss, arrays.counts[3]);
    }
};

template <template <class, int> class Kernel, template <int> class Many, class P, class Entry>
std::string run(const Rom<Entry>& rom, const Arrays& arrays, int64_t* cycles) {
    typedef Line<Kernel, Many, P, 0> Ranks;
    Device device;
    device.scheduler.timing.pipeline_depth = P::STAGES_LINK;
    std::unique_ptr<Ranks> line(new Ranks());
    NoLink none;
    line->add(device, rom, none);
    Feeder feeder = {device, arrays};
    line->each(feeder);
    const sim::Report report = device.scheduler.run();
    *cycles = report.cycles;
    if (!report.ok()) return report.text;
    Drainer drainer = {arrays, ""};
    line->each(drainer);
    return drainer.error;
}

template <template <class, int> class Kernel, template <int> class Many, class Entry>
const char* run_ranks(int ranks, const Rom<Entry>& rom, const Arrays& arrays, int64_t* cycles) {
    static std::string error;
    try {
        error = ranks == 1   ? run<Kernel, Many, TestEngine<1>>(rom, arrays, cycles)
                : ranks == 2 ? run<Kernel, Many, TestEngine<2>>(rom, arrays, cycles)
                             : run<Kernel, Many, TestEngine<4>>(rom, arrays, cycles);
    } catch (const std::exception& exception) {
        error = exception.what();
    }
    return error.c_str();
}

}  // namespace

extern "C" {

// Arrays hold rank 0's elements, then rank 1's, and so on. Returns what went wrong, or "".
const char* t_gather(int ranks, const int32_t* segments, int segment_count, const int32_t* entries,
                     const uint8_t* px, uint8_t* gs, uint8_t* ks, uint8_t* ss,
                     const int32_t* counts, const int32_t* intervals, int64_t* cycles) {
    const Rom<GatherEntry> rom = {reinterpret_cast<const Segment*>(segments), segment_count,
                                  reinterpret_cast<const GatherEntry*>(entries)};
    const Arrays arrays = {px, gs, ks, ss, counts, intervals};
    return run_ranks<Gather, Beat>(ranks, rom, arrays, cycles);
}

const char* t_reduce(int ranks, const int32_t* segments, int segment_count, const int32_t* entries,
                     const uint8_t* st, uint8_t* sg, const int32_t* counts,
                     const int32_t* intervals, int64_t* cycles) {
    const Rom<ReduceEntry> rom = {reinterpret_cast<const Segment*>(segments), segment_count,
                                  reinterpret_cast<const ReduceEntry*>(entries)};
    const Arrays arrays = {st, sg, nullptr, nullptr, counts, intervals};
    return run_ranks<Reduce, StatBeat>(ranks, rom, arrays, cycles);
}

}  // extern "C"
