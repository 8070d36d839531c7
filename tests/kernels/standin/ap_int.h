// Just enough of ap_int for what the kernels do under Vitis: values that wrap round at their width
// as those of ap_int do (up to 127 bits), and bytes of wide unsigned words.
#ifndef TEST_STANDIN_AP_INT_H
#define TEST_STANDIN_AP_INT_H

#include <cstdint>

__extension__ typedef __int128 standin_int;
__extension__ typedef unsigned __int128 standin_unsigned;

template <int W>
struct ap_int {
    standin_int v;
    ap_int() : v(0) {}
    ap_int(standin_int x) : v(wrap(x)) {}
    template <int V>
    ap_int(const ap_int<V>& other) : v(wrap(other.v)) {}
    bool operator[](int i) const { return (v >> i) & 1; }
    explicit operator unsigned() const { return static_cast<unsigned>(v); }
    ap_int operator>>(int s) const { return ap_int(v >> s); }

    static standin_int wrap(standin_int x) {
        if (W >= 128) return x;
        const int spare = W < 128 ? 128 - W : 0;
        return standin_int(standin_unsigned(x) << spare) >> spare;
    }
};

template <int A, int B>
ap_int<A + B> operator*(const ap_int<A>& a, const ap_int<B>& b) {
    return ap_int<A + B>(a.v * b.v);
}
template <int A, int B>
ap_int<(A > B ? A : B) + 1> operator+(const ap_int<A>& a, const ap_int<B>& b) {
    return ap_int<(A > B ? A : B) + 1>(a.v + b.v);
}
template <int A, int B>
ap_int<(A > B ? A : B) + 1> operator-(const ap_int<A>& a, const ap_int<B>& b) {
    return ap_int<(A > B ? A : B) + 1>(a.v - b.v);
}

template <int W>
struct ap_uint {
    uint8_t bytes[W / 8];
    ap_uint() = default;
    ap_uint(int x) : bytes() { bytes[0] = uint8_t(x); }

    // one byte of it; a default-made one holds anything, as that of the tool does
    struct Range {
        uint8_t& byte;
        unsigned to_uint() const { return byte; }
        Range& operator=(unsigned char x) {
            byte = x;
            return *this;
        }
    };
    Range range(int high, int low) {
        check(high, low);
        return Range{bytes[low / 8]};
    }
    Range range(int high, int low) const {
        check(high, low);
        return Range{const_cast<uint8_t&>(bytes[low / 8])};
    }

    static void check(int high, int low) {
        if (low % 8 || high != low + 7 || low < 0 || high >= W) __builtin_trap();
    }
};

#endif
