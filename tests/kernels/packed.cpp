// packed CASE: the packed dot products against plain ones. Prints what was compared, or the first
// difference (exit status 1).
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>

#include "packed.hpp"

namespace {

std::mt19937_64 random_bits(20240501);

template <int N>
int32_t plain_dot(const int8_t (&x)[N], const int8_t (&w)[N]) {
    int32_t sum = 0;
    for (int i = 0; i < N; ++i)
        sum += int32_t(x[i]) * int32_t(w[i]);
    return sum;
}

template <int N>
void print(const char* name, const int8_t (&x)[N]) {
    std::printf("  %s =", name);
    for (int i = 0; i < N; ++i)
        std::printf(" %d", x[i]);
    std::printf("\n");
}

bool differs(const char* what, int length, int32_t got, int32_t want) {
    if (got == want) return false;
    std::printf("%s of %d: %d differs from %d\n", what, length, got, want);
    return true;
}

// Compares all forms of one length that a weight limit allows.
template <int N, int LIMIT>
struct Pair {
    static const int VECTORS = 3;
    int8_t a[N], b[N], w[N];

    int8_t* vector(int k) { return k == 0 ? a : k == 1 ? b : w; }
    static int low(int k) { return k < 2 ? -128 : -LIMIT; }
    static int high(int k) { return k < 2 || LIMIT == 128 ? 127 : LIMIT; }

    bool agrees() const {
        int32_t dot_a = -1, dot_b = -1;
        lda::packed_dot2<N, LIMIT>(a, b, w, dot_a, dot_b);
        bool bad = differs("dot_a", N, dot_a, plain_dot(a, w));
        bad |= differs("dot_b", N, dot_b, plain_dot(b, w));
        bad |= differs("fabric_dot", N, lda::fabric_dot(a, w), plain_dot(a, w));
        if (!bad) return true;
        print("a", a);
        print("b", b);
        print("w", w);
        return false;
    }
};

template <int N>
struct Triple {
    static const int VECTORS = 4;
    int8_t x[N], w0[N], w1[N], w2[N];

    int8_t* vector(int k) { return k == 0 ? x : k == 1 ? w0 : k == 2 ? w1 : w2; }
    static int low(int k) { return k == 0 ? -128 : -8; }
    static int high(int k) { return k == 0 ? 127 : 7; }

    bool agrees() const {
        int32_t dot[3] = {-1, -1, -1};
        lda::packed_dot3<N>(x, w0, w1, w2, dot);
        bool bad = differs("dot[0]", N, dot[0], plain_dot(x, w0));
        bad |= differs("dot[1]", N, dot[1], plain_dot(x, w1));
        bad |= differs("dot[2]", N, dot[2], plain_dot(x, w2));
        if (!bad) return true;
        print("x", x);
        print("w0", w0);
        print("w1", w1);
        print("w2", w2);
        return false;
    }
};

// Every element of every vector through its whole range.
template <typename Operands>
bool exhaustive_products(int64_t& count) {
    Operands t;
    for (int k = 0; k < Operands::VECTORS; ++k)
        *t.vector(k) = int8_t(Operands::low(k));
    for (;;) {
        if (!t.agrees()) return false;
        ++count;
        int k = 0;
        while (k < Operands::VECTORS && *t.vector(k) == Operands::high(k)) {
            *t.vector(k) = int8_t(Operands::low(k));
            ++k;
        }
        if (k == Operands::VECTORS) return true;
        ++*t.vector(k);
    }
}

// Every assignment of the lowest and the highest value to the `N` elements of all vectors.
template <typename Operands, int N>
bool exhaustive_extremes(int64_t& count) {
    Operands t;
    const int bits = N * Operands::VECTORS;
    for (uint32_t mask = 0; mask < uint32_t(1) << bits; ++mask) {
        for (int e = 0; e < bits; ++e) {
            const int k = e / N;
            const bool top = (mask >> e) & 1;
            t.vector(k)[e % N] = int8_t(top ? Operands::high(k) : Operands::low(k));
        }
        if (!t.agrees()) return false;
        ++count;
    }
    return true;
}

// Vectors of one value each (all pairs of extremes), then random ones: uniform, or from the ends of
// the range alone.
template <typename Operands, int N>
bool random_vectors(int rounds, int64_t& count) {
    Operands t;
    for (int corner = 0; corner < 1 << Operands::VECTORS; ++corner) {
        for (int k = 0; k < Operands::VECTORS; ++k) {
            const bool top = (corner >> k) & 1;
            std::memset(t.vector(k), top ? Operands::high(k) : Operands::low(k), N);
        }
        if (!t.agrees()) return false;
        ++count;
    }
    for (int round = 0; round < rounds; ++round) {
        const bool ends = round & 1;
        for (int k = 0; k < Operands::VECTORS; ++k) {
            const uint64_t span = uint64_t(Operands::high(k) - Operands::low(k) + 1);
            for (int i = 0; i < N; ++i) {
                const uint64_t bits = random_bits() >> 16;
                int value = Operands::low(k) + int(bits % span);
                if (ends) value = bits & 1 ? Operands::high(k) : Operands::low(k);
                t.vector(k)[i] = int8_t(value);
            }
        }
        if (!t.agrees()) return false;
        ++count;
    }
    return true;
}

template <int LIMIT, int N>
bool random_pairs(int rounds, int64_t& count) {
    return random_vectors<Pair<N, LIMIT>, N>(rounds, count);
}
template <int N>
bool random_triples(int rounds, int64_t& count) {
    return random_vectors<Triple<N>, N>(rounds, count);
}

// Lengths below, at and above whole chains.
bool pairs(int rounds, int64_t& count) {
    return random_pairs<128, 1>(rounds, count) && random_pairs<128, 6>(rounds, count) &&
           random_pairs<128, 7>(rounds, count) && random_pairs<128, 8>(rounds, count) &&
           random_pairs<128, 14>(rounds, count) && random_pairs<128, 16>(rounds, count) &&
           random_pairs<128, 64>(rounds / 4, count) && random_pairs<127, 8>(rounds, count) &&
           random_pairs<127, 16>(rounds, count) && random_pairs<127, 17>(rounds, count) &&
           random_pairs<7, 16>(rounds, count) && random_pairs<7, 146>(rounds / 8, count) &&
           random_pairs<7, 147>(rounds / 8, count);
}
bool triples(int rounds, int64_t& count) {
    return random_triples<1>(rounds, count) && random_triples<2>(rounds, count) &&
           random_triples<16>(rounds, count) && random_triples<65>(rounds / 4, count);
}

static_assert(lda::packed_chain(lda::LANE2, 128) == 7, "int8 x int8");
static_assert(lda::packed_chain(lda::LANE2, 127) == 8, "int8 x narrow int8");
static_assert(lda::packed_chain(lda::LANE2, 7) == 146, "int8 x narrow int4, two lanes");

}  // namespace

int main(int argc, char** argv) {
    const char* name = argc > 1 ? argv[1] : "";
    int64_t count = 0;
    bool good = false;
    if (std::strcmp(name, "products2") == 0) {
        good = exhaustive_products<Pair<1, 128>>(count);
    } else if (std::strcmp(name, "products3") == 0) {
        good = exhaustive_products<Triple<1>>(count);
    } else if (std::strcmp(name, "extremes2") == 0) {
        good = exhaustive_extremes<Pair<7, 128>, 7>(count);
    } else if (std::strcmp(name, "extremes3") == 0) {
        good = exhaustive_extremes<Triple<5>, 5>(count);
    } else if (std::strcmp(name, "random2") == 0) {
        good = pairs(200000, count);
    } else if (std::strcmp(name, "random3") == 0) {
        good = triples(400000, count);
    }
    if (good) std::printf("%lld agree\n", static_cast<long long>(count));
    return good ? 0 : 1;
}
