// A software card that takes its layer program at run time, for tests of the kernels: one
// compilation serves every program that fits the default engine, with LDA_RANKS ranks and LDA_PP
// pixels per tile.
//
// The program is little-endian int32 (gen/program/binary.py): magic, version, number of segments,
// number of entries, number of moves, the members of StoreIo and Updates; then all Segments,
// StoreEntries, PreEntries, GatherEntries, ReduceEntries, MacEntries, PostEntries, WloadEntries,
// Moves.
#include <vector>

#include "card.hpp"

// Ranks, pixels per tile, bits of a weight row of the array and in memory, micro-slots between the
// store's reads and its writes, rows of weights that stay on the card, pixel slots and channels of
// the sampler.
#ifndef LDA_RANKS
#define LDA_RANKS 1
#endif
#ifndef LDA_PP
#define LDA_PP 32
#endif
#ifndef LDA_WEIGHT_BITS
#define LDA_WEIGHT_BITS 8
#endif
#ifndef LDA_STORED_BITS
#define LDA_STORED_BITS LDA_WEIGHT_BITS
#endif
#ifndef LDA_LAG
#define LDA_LAG 32
#endif
#ifndef LDA_CACHE
#define LDA_CACHE 4096
#endif
#ifndef LDA_SAMPLER
#define LDA_SAMPLER 0
#endif
#ifndef LDA_SAMPLER_CHANNELS
#define LDA_SAMPLER_CHANNELS 4
#endif

namespace {

struct GenericEngine : lda::EngineDefaults {
    static const int RANKS = LDA_RANKS;
    static const int PP = LDA_PP;
    static const int WEIGHT_BITS = LDA_WEIGHT_BITS;
    static const int STORED_BITS = LDA_STORED_BITS;
    static const int LAG = LDA_LAG;
    static const int CACHE_ROWS = LDA_CACHE;
    static const int SAMPLER_PIXELS = LDA_SAMPLER;
    static const int SAMPLER_CHANNELS = LDA_SAMPLER_CHANNELS;
    static const int DEPTH_YS = (LDA_LAG + 1) * (LDA_PP / lda::GROUP) + 60;
    static const int DEPTH_RS = DEPTH_YS;
};

const int32_t MAGIC = 0x4C444131;
const int32_t VERSION = 10;

class GenericCard : public lda::Card<GenericEngine> {
  public:
    GenericCard() : Card(lda::ProgramView()) {}

    int set_program(const uint8_t* blob, uint64_t bytes) {
        Reader reader = {blob, bytes};
        int32_t header[5] = {0, 0, 0, 0, 0};
        lda::ProgramView view = lda::ProgramView();
        reader.take(header, 5);
        reader.take(&view.io, 1);
        reader.take(&view.updates, 1);
        if (!reader.fine || header[0] != MAGIC || header[1] != VERSION) {
            return refuse("the program is not one of this card's version");
        }
        if (header[2] < 1 || header[3] < 1 || uint64_t(header[2]) > bytes ||
            uint64_t(header[3]) > bytes || uint64_t(header[4]) > bytes) {
            return refuse("the program has no segments or no entries");
        }
        reader.take(segments_, header[2]);
        reader.take(store_, header[3]);
        reader.take(pre_, header[3]);
        reader.take(gather_, header[3]);
        reader.take(reduce_, header[3]);
        reader.take(mac_, header[3]);
        reader.take(post_, header[3]);
        reader.take(wload_, header[3]);
        reader.take(moves_, header[4]);
        if (!reader.fine || reader.left != 0) return refuse("the program has a wrong length");
        for (const lda::Segment& segment : segments_) {
            if (segment.first < 0 || segment.count < 1 ||
                segment.count > header[3] - segment.first) {
                return refuse("a segment lies outside of the program's entries");
            }
        }
        for (const lda::StoreEntry& entry : store_) {
            const int64_t moves =
                int64_t(entry.moves_once) + entry.moves_before + entry.moves_after;
            if (entry.moves_first < 0 || entry.moves_once < 0 || entry.moves_before < 0 ||
                entry.moves_after < 0 || entry.moves_first + moves > header[4]) {
                return refuse("an entry's moves lie outside of the program's");
            }
        }
        view.segments = segments_.data();
        view.segment_count = header[2];
        view.entry_count = header[3];
        view.store = store_.data();
        view.pre = pre_.data();
        view.gather = gather_.data();
        view.reduce = reduce_.data();
        view.mac = mac_.data();
        view.post = post_.data();
        view.wload = wload_.data();
        view.moves = moves_.data();
        Card::set_program(view);
        return lda::STEP_DONE;
    }

  private:
    struct Reader {
        const uint8_t* data;
        uint64_t left;
        bool fine = true;

        template <class T>
        void take(T* to, uint64_t count) {
            if (!fine || left < count * sizeof(T)) {
                fine = false;
                return;
            }
            std::memcpy(to, data, count * sizeof(T));
            data += count * sizeof(T);
            left -= count * sizeof(T);
        }
        template <class T>
        void take(std::vector<T>& to, int count) {
            if (!fine || left < uint64_t(count) * sizeof(T)) {
                fine = false;
                return;
            }
            to.resize(std::size_t(count));
            if (count > 0) take(to.data(), uint64_t(count));
        }
    };

    int refuse(const char* text) {
        fail(text);
        Card::set_program(lda::ProgramView());
        return lda::STEP_TOO_SMALL;
    }

    std::vector<lda::Segment> segments_;
    std::vector<lda::StoreEntry> store_;
    std::vector<lda::PreEntry> pre_;
    std::vector<lda::GatherEntry> gather_;
    std::vector<lda::ReduceEntry> reduce_;
    std::vector<lda::MacEntry> mac_;
    std::vector<lda::PostEntry> post_;
    std::vector<lda::WloadEntry> wload_;
    std::vector<lda::Move> moves_;
};

}  // namespace

#define LDA_CARD GenericCard
#define LDA_BUILD_ID "generic"
#include "card_abi.hpp"

extern "C" {

int lda_card_set_program(void* card, const uint8_t* blob, uint64_t bytes) {
    return static_cast<GenericCard*>(card)->set_program(blob, bytes);
}

#ifdef LDA_PLANT_FAULTS
void lda_plant_fault(int fault) {
    lda::planted_fault() = fault;
}
#endif

int lda_struct_sizes(int32_t* sizes, int count) {
    const int32_t all[] = {
        sizeof(lda::StoreIo),     sizeof(lda::Updates),  sizeof(lda::Segment),
        sizeof(lda::StoreEntry),  sizeof(lda::PreEntry), sizeof(lda::GatherEntry),
        sizeof(lda::ReduceEntry), sizeof(lda::MacEntry), sizeof(lda::PostEntry),
        sizeof(lda::WloadEntry),  sizeof(lda::Move)};
    const int known = int(sizeof all / sizeof all[0]);
    for (int i = 0; i < count && i < known; ++i)
        sizes[i] = all[i];
    return known;
}

}  // extern "C"
