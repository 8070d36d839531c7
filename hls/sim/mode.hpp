// Timed (default) or functional simulation. SIM_UNTIMED drops all clocks: streams still block, have
// depths and are checked for leftovers. The mode is part of every symbol, so that objects built
// in different modes refuse to link.
#ifndef SIM_MODE_HPP
#define SIM_MODE_HPP

#ifdef SIM_UNTIMED
#define SIM_MODE untimed
#else
#define SIM_MODE timed
#endif

#define SIM_INLINE __attribute__((always_inline)) inline
#define SIM_LIKELY(x) __builtin_expect(!!(x), 1)
#define SIM_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
