// Just enough of ap_int for what the kernels do under __SYNTHESIS__: a syntax check, and values
// that wrap round at their width as those of ap_int do (up to 127 bits).
#ifndef TEST_STANDIN_AP_INT_H
#define TEST_STANDIN_AP_INT_H

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

#endif
