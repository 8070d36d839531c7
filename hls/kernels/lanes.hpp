// Image coordinates of consecutive pixel slots, stepped from tile to tile without dividers.
//
// A Place is a slot's position within its item: pixel number, row y and column x = pixel div and
// mod width; padding slots carry on below the image. Places add: place(a + b) follows from place(a)
// and place(b) by one carry from x to y, and one from the item's end. So N lanes are placed in
// log2 N cycles by doubling,
//     lane[l + 2^k] = lane[l] + place(2^k),
// the place of the first slot is the sum of place(2^k) over its binary digits, and a tile steps
// every lane by place(N).
#ifndef LDA_LANES_HPP
#define LDA_LANES_HPP

#include "sequence.hpp"
#include "types.hpp"

namespace lda {

struct Place {
    int32_t pixel;  // 0 .. pitch-1
    int32_t y;
    int32_t x;  // 0 .. width-1
};

// The slots of one item: height x width pixels, then padding up to a multiple of 16.
struct Grid {
    int32_t width;
    Place end;  // of slot `pitch`, the first one behind the item
};

inline Grid grid_of(int height, int width, int pitch) {
#pragma HLS inline
    LDA_CHECK(width > 0 && pitch >= height * width && pitch < height * width + SUB,
              "mac: the pitch of an item is not its pixels rounded up to 16");
    Grid grid;
    grid.width = width;
    const int rest = pitch - height * width;
    int rows = 0;
ROWS:
    for (int k = 1; k < SUB; ++k) {
#pragma HLS unroll
        rows += k * width <= rest;
    }
    grid.end.pixel = pitch;
    grid.end.y = height + rows;
    grid.end.x = rest - rows * width;
    return grid;
}

// The sum of two places; `wraps`: it lies in the next item.
inline Place sum_of(const Grid& grid, const Place& a, const Place& b, bool& wraps) {
#pragma HLS inline
    Place c;
    c.pixel = a.pixel + b.pixel;
    c.y = a.y + b.y;
    c.x = a.x + b.x;
    wraps = c.pixel >= grid.end.pixel;
    if (wraps) {
        c.pixel -= grid.end.pixel;
        c.y -= grid.end.y;
        c.x -= grid.end.x;
    }
    if (c.x < 0) {
        c.x += grid.width;
        --c.y;
    } else if (c.x >= grid.width) {
        c.x -= grid.width;
        ++c.y;
    }
    return c;
}

// N consecutive slots, N a power of two. start(); settle(k) for k < settling(), one a cycle;
// then advance() steps to the next N slots, rewind() back to the first ones.
template <int N>
struct Lanes {
    Grid grid;
    int32_t first;  // slot of lane 0, in the first item
    Place power;    // of slot 2^k
    Place origin;   // of slot `first`, as far as its digits are summed up
    Place stride;   // of slot N
    Place lane[N];
    Place at_first[N];

    void start(const Grid& of, int first_slot) {
#pragma HLS inline
        LDA_CHECK(first_slot >= 0 && first_slot < of.end.pixel,
                  "mac: a first slot outside of its item");
        const Place zero = {0, 0, 0};
        grid = of;
        first = first_slot;
        power.pixel = 1;
        power.y = of.width == 1;
        power.x = of.width != 1;
        origin = stride = zero;
    LANES:
        for (int l = 0; l < N; ++l) {
#pragma HLS unroll
            lane[l] = at_first[l] = zero;
        }
    }

    // One cycle per digit of N, and more if the first slot has more, and one to add that.
    static int settling(int first_slot) {
#pragma HLS inline
        int digits = 0;
    DIGITS:
        for (int k = 0; k < 31; ++k) {
#pragma HLS unroll
            if (((first_slot | (N - 1)) >> k) & 1) digits = k + 1;
        }
        return digits + 1;
    }

    void settle(int k, int last) {
#pragma HLS inline
        bool wraps;
        const bool ends = k == last;
        Place next[N];
#pragma HLS array_partition variable = next complete
    LANES:
        for (int l = 0; l < N; ++l) {
#pragma HLS unroll
            next[l] = lane[l];
            // lane l takes its value in cycle d, the highest digit of l
            for (int d = 0; (1 << d) < N; ++d) {
#pragma HLS unroll
                if ((l >> d) == 1 && k == d)
                    next[l] = sum_of(grid, lane[l - (1 << d)], power, wraps);
            }
            if (ends) next[l] = sum_of(grid, lane[l], origin, wraps);
        }
        for (int l = 0; l < N; ++l) {
#pragma HLS unroll
            lane[l] = next[l];
            if (ends) at_first[l] = next[l];
        }
        if ((first >> k) & 1) origin = sum_of(grid, origin, power, wraps);
        power = sum_of(grid, power, power, wraps);
        if (N >> k == 2) stride = power;
    }

    // Whether lane 0 entered the next item.
    bool advance() {
#pragma HLS inline
        bool entered = false;
    LANES:
        for (int l = 0; l < N; ++l) {
#pragma HLS unroll
            bool wraps;
            lane[l] = sum_of(grid, lane[l], stride, wraps);
            if (l == 0) entered = wraps;
        }
        return entered;
    }

    void rewind() {
#pragma HLS inline
    LANES:
        for (int l = 0; l < N; ++l) {
#pragma HLS unroll
            lane[l] = at_first[l];
        }
    }
};

}  // namespace lda

#endif
