"""What one rank of an engine costs in fabric, kernel by kernel.

These are estimates until a synthesis report replaces them (``measured``). DSP, URAM and BRAM counts
follow from the widths and depths in ``hls/kernels``; look-up tables and flip-flops from the
rules of thumb in ``RULES``, whose sources are named there. Nothing is free: every kernel has at
least its control (``CONTROL``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from gen.program.cost_clocks import BURST_WORDS
from gen.program.engine import Engine
from gen.qlayers import TABLE_SIZE

LANES = 64  # values that pre and post transform per cycle
STAT_BITS = 8 * (32 + 48)  # of eight sums and sums of squares in post (post_stats.hpp)
URAM_BITS, URAM_DEPTH = 72, 4096  # fact sheet C.7
BRAM_BITS, BRAM_DEPTH = 72, 512  # widest shape of a BRAM36, fact sheet C.7
LUTRAM_BITS = 64  # of one LUT6 as distributed RAM (UG574)
WORD_BITS = 512
ACC_BITS = 64 * 32  # of a word of as or bs
SCALE_BITS = 8 * (17 + 8 + 1) + 1  # that post keeps of a scale word (hls/kernels/post_word.hpp)
SRL_DEPTH = 32  # elements of a shift register in one LUT6, or of two of half as many (UG574)


@dataclass(frozen=True)
class Resources:
    """Look-up tables, flip-flops, 36 Kb block RAMs, UltraRAMs and DSP slices."""

    lut: int = 0
    ff: int = 0
    bram36: int = 0
    uram: int = 0
    dsp: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Cost:
    """One part of a rank; ``source`` says where its figures come from."""

    part: str
    resources: Resources
    source: str


# look-up tables of ...
RULES = {
    # one 8 x 8 signed product in fabric: n*n array of LUT6 with carry chains
    "fabric product": (64, "array multiplier, one LUT6 per partial product bit (UG574)"),
    # chains of a packed pair: two 18-bit borrow corrections, ternary adder, 32-bit accumulator
    "accumulator lane": (80, "widths in hls/kernels/packed.hpp, one LUT6 per adder bit"),
    # 4-bit weights: ternary adders of 16 fields of 11 bits (5 x 13, 2 x 15) and of what low halves
    # lack (17), 32-bit accumulator that takes a row or 16 times it
    "accumulator lane, 4-bit": (144, "widths in hls/kernels/packed.hpp, one LUT6 per adder bit"),
    # 16 int8 operands added up, eight times which the low halves of 8-bit weights lack
    "operand sum": (146, "tree in hls/kernels/multiply.hpp, one LUT6 per adder bit"),
    # one bit of a shift register with 64 positions: three levels of 4:1 multiplexers
    "shift bit": (3, "4:1 multiplexer per LUT6 (UG574)"),
    # a bit of a row: of one word, of the low or the high half of a byte of it, of a kept row
    "widened bit": (1, "hls/kernels/weights.hpp: a 4:1 multiplexer per LUT6 (UG574)"),
    "m_axi": (5000, "VAE axi_burst_performance, 512 bits: about 5k LUT, 9k FF, 14-23 BRAM18"),
}
CONTROL = Resources(lut=1500, ff=3000, bram36=2)  # loop control and layer ROM of one kernel
CONTROL_SOURCE = "assumed: flattened loop, ROM of about 200 entries whatever the program"
FF_PER_LUT = 1.6  # pipelined data paths of Alveo designs (assumed)


def memory(words: int, bits: int, kind: str) -> Resources:
    """A memory with one read and one write port of ``words`` x ``bits``.

    ``kind``: uram, bram or lutram.
    """
    if kind == "uram":
        return Resources(uram=ceil(words / URAM_DEPTH) * ceil(bits / URAM_BITS))
    if kind == "bram":
        return Resources(bram36=ceil(words / BRAM_DEPTH) * ceil(bits / BRAM_BITS))
    return Resources(lut=ceil(words / LUTRAM_BITS) * bits)


def _logic(lut: float, dsp: int = 0) -> Resources:
    return Resources(lut=ceil(lut), ff=ceil(lut * FF_PER_LUT), dsp=dsp)


def dsp_lanes(weight_bits: int) -> int:
    """Products of one DSP48E2 (hls/kernels/packed.hpp): 2 for int8, 3 for 4-bit weights."""
    return 3 if weight_bits == 4 else 2


def mac_dsps(engine: Engine) -> int:
    """DSP slices of one rank's multiplier array."""
    outputs = engine.outputs - engine.fabric_outputs
    if engine.weight_bits == 4:
        return engine.pixels * engine.inputs * ceil(outputs / dsp_lanes(4))
    return ceil(engine.pixels / dsp_lanes(8)) * engine.inputs * outputs


def _mac(engine: Engine) -> list[Cost]:
    pixels, ranks, weight_bits = engine.pixels, engine.ranks, engine.weight_bits
    fabric, rule = RULES["fabric product"]
    per_product = fabric * weight_bits / 8
    products = pixels * engine.inputs * engine.fabric_outputs
    adder, adder_rule = RULES["accumulator lane" + (", 4-bit" if weight_bits == 4 else "")]
    # a read turns PP lanes by any distance, a write the 8 lanes of a Beat's words
    levels = ceil(engine.pixels.bit_length() / 2)
    operand_sum, sum_rule = RULES["operand sum"]
    sums = Cost("mac: operand sums", _logic(pixels * operand_sum), sum_rule)
    turn = pixels * 128 * levels + pixels * 128 * ceil((8 * ranks).bit_length() / 2)
    return [
        Cost(
            "mac: products in DSP",
            _logic(0, mac_dsps(engine)),
            f"hls/kernels/packed.hpp (fact sheet C.8, WP486): {dsp_lanes(weight_bits)} per DSP48E2",
        ),
        Cost("mac: products in fabric", _logic(products * per_product), rule),
        Cost("mac: accumulators", _logic(pixels * engine.outputs * adder), adder_rule),
        *([sums] if weight_bits == 4 else []),
        Cost("mac: window multiplexers", _logic(turn), "4:1 multiplexer per LUT6 (UG574)"),
        # eight adders and selections of 15 bits per lane; two products per lane of an octet
        Cost(
            "mac: lanes",
            _logic(8 * 15 * (pixels + LANES // 8), 2 * LANES // 8),
            "hls/kernels/lanes.hpp, fill_walk.hpp: places added up, no dividers",
        ),
    ]


def _post(engine: Engine) -> list[Cost]:
    shift, rule = RULES["shift bit"]
    # per lane: products of 32 x 17 bits (scale: 2), 32 x 18 (row division: 2), 16 x 16 (gate), and
    # 16 x 16 (square); a left and a right shift of 49 bits, an adder, saturation
    per_lane = LANES * (2 * 49 * shift + 64 + 30)
    table = memory(TABLE_SIZE // 4, 64, "bram")
    tables = Resources(*(LANES * getattr(table, f.name) for f in fields(table)))
    return [
        Cost("post: scaling", _logic(per_lane, LANES * 6), f"widths in post_word.hpp; {rule}"),
        Cost(
            "post: gate tables",
            _logic(LANES * 16) + tables + memory(TABLE_SIZE // 32, 512, "lutram"),
            "one copy per lane in block RAM, 4:1 multiplexers (post_word.hpp), and the next one",
        ),
        Cost("post: reciprocals", _logic(8 * 1000), "eight pipelined dividers, 24 bits (assumed)"),
        Cost("post: statistics", _logic(10000), "adder trees over 64 lanes, 32 and 48 bits"),
        # a word of as or bs: two bits of a 2:1 multiplexer per LUT6
        Cost("post: words in turns", _logic(ACC_BITS // 2), "2:1 multiplexers (UG574)"),
        Cost(
            "post: parameters",
            memory(max(engine.units, engine.joined_units), SCALE_BITS, "bram")
            + memory(_bias_words(engine), WORD_BITS, "bram")
            + memory(engine.units * engine.items, 2 * STAT_BITS, "bram")
            + memory(engine.row_octets, STAT_BITS, "bram")
            + memory(engine.sums // 8, 256, "bram"),
            "memories of post.hpp",
        ),
    ]


def _pre(engine: Engine) -> list[Cost]:
    shift, rule = RULES["shift bit"]
    per_lane = LANES * (46 * shift + 50 * shift + 60)
    tables = LANES * (TABLE_SIZE * 8 // LUTRAM_BITS + 136)
    return [
        # per lane: normalise (28 x 18 bits: 2), gamma (18 x 16: 1)
        Cost("pre: transform", _logic(per_lane, LANES * 3), f"widths in arithmetic.hpp; {rule}"),
        Cost("pre: tables", _logic(tables), "one copy per lane in LUTRAM, 64:1 multiplexers"),
        # each: products of 20 x 48 and 40 x 40 bits in 64-bit types (2 x 12), 28 x 18 scaling and
        # shifts; dividers of 44 / 20 and 34 / 17 bits, square root of 16 stages
        Cost(
            "pre: normalisers",
            _logic(engine.normalisers * 4000, engine.normalisers * 30),
            "widths in arithmetic.hpp, a subtractor per result bit",
        ),
        Cost(
            "pre: memories",
            memory(engine.row_groups, 512, "bram")
            + memory(engine.stats_words, 640, "bram")
            + memory(engine.row_octets, 8 * 64, "bram"),
            "memories of pre_sums.hpp, pre_rows.hpp and pre_apply.hpp",
        ),
    ]


def _bias_words(engine: Engine) -> int:
    """Words of two items' biases that post keeps: of a round, or of a joined execution's item."""
    return max(engine.units * ceil(engine.items / 2), engine.joined_units)


def _wload(engine: Engine) -> list[Cost]:
    scales = memory(BURST_WORDS, WORD_BITS, "lutram")
    costs = [Cost("wload: scales of a batch", scales, "hls/kernels/wload.hpp (UG574)")]
    if engine.stored_bits < engine.weight_bits:
        bit, rule = RULES["widened bit"]
        logic = _logic(128 * engine.weight_bits * bit)
        costs.append(Cost("rows of 4 bits, widened in wload", logic, rule))
    return costs


def _sampler(engine: Engine) -> list[Cost]:
    values = engine.sampler_pixels * engine.sampler_channels
    if not values:
        return []
    channels, bytes_made = engine.sampler_channels, 16 if engine.ranks == 1 else 8
    # a sum of three products (31 x 32 and twice 16 x 47 bits: 4 + 2 x 3 DSP) of 64 bits, rounded;
    # bytes of two octets by 8:1 multiplexers per channel; input bytes, each a selection of 32
    # bits, a sum and saturation; words of memory to and from values of 32 bits
    select = 32 * (2 * channels + ceil(channels / 4))
    lut = 4 * 64 + select + ceil(bytes_made / channels) * 80 + 2 * 32 * 5 + 300
    return [
        Cost(
            "store: sampler",
            _logic(lut, 10) + memory(values, 32, engine.sampler_memory),
            "widths in hls/kernels/sampler.hpp, 4:1 multiplexer per LUT6 (UG574)",
        )
    ]


def _store() -> list[Cost]:
    # of one of 16 executions: where results of a joined product with V go (row, octet, rows of a
    # group, width) and which units these are; a 16:1 multiplexer takes four LUT6
    bits = 3 * 32 + 1 + 2 * 8
    return [Cost("store: joined results", _logic(4 * bits), "store_writes.hpp (UG574)")]


def _ports() -> list[Cost]:
    lut, rule = RULES["m_axi"]
    one = Resources(lut=lut, ff=9000, bram36=10)
    return [Cost("store (host, moves), wload (two): m_axi ports", one + one + one + one, rule)]


def _fifos(engine: Engine) -> list[Cost]:
    # streams inside pre: an epsilon and sums, scales, row statistics
    inside = {"sm": 112 * engine.normalisers, "sc": 64 * engine.normalisers, "rw": 512,
              "rk": 64 * engine.normalisers, "mk": 128, "copy": 512}  # fmt: skip
    bits = {"xs": 1024, "px": 512, "gs": 512 * engine.ranks, "ks": 1024,
            "ws": 128 * engine.weight_bits, "as": ACC_BITS, "bs": ACC_BITS, "rs": 1024, "ys": 1032,
            "st": 640, "sg": 640 * engine.ranks, "ss": 256, "hd": 512, "pp": 512, "qp": 512,
            "link": 512 * engine.ranks, **inside}  # fmt: skip
    total = Resources()
    for name, width in bits.items():
        total += _fifo(engine.depths[name], width)
    rule = f"depths of the FIFOs; shift registers (UG574) up to {SRL_DEPTH} elements, else BRAM"
    return [Cost("streams", total, rule)]


def _fifo(depth: int, width: int) -> Resources:
    """A FIFO of ``depth`` elements of ``width`` bits; shift registers have as many flip-flops
    beside them as logic of a LUT per bit.
    """
    if depth > SRL_DEPTH:
        return memory(depth, width, "bram")
    per_lut = 2 if depth <= SRL_DEPTH // 2 else 1
    return Resources(lut=ceil(width / per_lut), ff=_logic(width).ff)


def link_wires(engine: Engine) -> int:
    """Wires that cross from one SLR to the next: a Beat and a StatBeat of all ranks together, on
    four streams with two wires of handshake each.
    """
    return 0 if engine.ranks == 1 else engine.ranks * (WORD_BITS + 640) + 4 * 2


def rank_costs(engine: Engine) -> list[Cost]:
    """Everything of one rank but the four big memories, whose place the search chooses."""
    kernels = 7
    control = Resources(*(kernels * getattr(CONTROL, f.name) for f in fields(CONTROL)))
    return [
        *_mac(engine),
        *_post(engine),
        *_pre(engine),
        *_store(),
        *_ports(),
        *_wload(engine),
        *_sampler(engine),
        *_fifos(engine),
        Cost("control of seven kernels", control, CONTROL_SOURCE),
    ]


def big_memories(engine: Engine) -> dict[str, tuple[int, int, int]]:
    """(count, words, bits) of store, window, weight buffer and weight cache of one rank."""
    return {
        # 16 banks of 8 bytes: eight lanes' octets times two planes are addressed alike
        "store": (2, engine.store_rows, WORD_BITS),
        "window": (2 * engine.pixels, engine.window_rows, 64),
        "weights": (1, 2 * engine.weight_rows, 128 * engine.weight_bits),
        "cache": (1, engine.cache_rows, 128 * engine.stored_bits),
    }


def big_memory(engine: Engine, name: str, kind: str) -> Resources:
    """Cost of one of ``big_memories`` in ``uram`` or ``bram``."""
    count, words, bits = big_memories(engine)[name]
    one = memory(words, bits, kind)
    return Resources(*(count * getattr(one, f.name) for f in fields(one)))
