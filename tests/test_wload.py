"""wload: which words it sends on which stream, from memory and from its cache."""

from __future__ import annotations

import ctypes
import shutil
import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cpp import FAST, ROOT, compile_cpp

from gen.program.structs import BUFFER_DYNAMIC, BUFFER_STATIC, Addr, Segment, WloadEntry, words

WORDS = 4096  # of each buffer


# bits of a row of the array, of a stored row
KINDS = {"8": (8, 8), "4": (4, 4), "4 widened": (8, 4)}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Card:
    """wload with its cache, which outlives a step."""

    def __init__(self, bits=8, stored=8, *flags, root=ROOT):
        flags = (*FAST, f"-DLDA_WEIGHT_BITS={bits}", f"-DLDA_STORED_BITS={stored}", *flags)
        self.bits = bits
        self.lib = ctypes.CDLL(str(compile_cpp(root / "tests/kernels/wload.cpp", flags)))
        self.lib.t_wload_new.restype = ctypes.c_void_p
        self.card = ctypes.c_void_p(self.lib.t_wload_new())

    def step(self, segments, entries, weights, dynamic, reload, sizes, wait=1, steps=1, own=(0, 0)):
        """(streams, cycles); ``sizes`` is room for words of hd, pp, ws and qp; ``own``: first word
        and words of what a step has of its own.
        """
        first = np.array([w for s in segments for w in words(s)], np.int32)
        rest = np.array([w for e in entries for w in words(e)], np.int32)
        row = 16 * self.bits
        streams = [np.zeros((n + 16, row if k == 2 else 64), np.uint8) for k, n in enumerate(sizes)]
        counts = np.zeros(5, np.int32)
        text = ctypes.create_string_buffer(400)

        def pointer(array):
            return ctypes.c_void_p(array.ctypes.data)

        status = self.lib.t_wload(
            self.card, pointer(weights), ctypes.c_uint64(len(weights)), pointer(dynamic),
            ctypes.c_uint64(len(dynamic)), int(reload), steps, *own, pointer(first),
            len(segments), pointer(rest), wait, *map(pointer, streams), pointer(counts), text, 400,
        )  # fmt: skip
        assert status == 0, text.value.decode()
        return [s[:n] for s, n in zip(streams, counts, strict=False)], int(counts[4])

    def __del__(self):
        self.lib.t_wload_free(self.card)


def sent_rows(words, row_words, bits):
    """Rows of ``bits`` on ws, uint8 [rows, bytes], of stored ones of ``row_words`` words."""
    rows = np.array(words, np.uint8).reshape(-1, 64 * row_words)
    if rows.shape[1] == 16 * bits:
        return rows
    nibbles = np.concatenate([rows & 15, rows >> 4], axis=1).astype(np.int16)
    return np.where(nibbles < 8, nibbles, nibbles - 16).astype(np.int8).view(np.uint8)


def model(segments, entries, weights, dynamic, bits=8):
    """The contract: words of hd, pp, qp, and rows of ws."""
    buffers = {BUFFER_STATIC: weights, BUFFER_DYNAMIC: dynamic}
    runs = [
        (entries[k], i0, i1)
        for s in segments
        for i0 in range(s.n0)
        for i1 in range(s.n1)
        for k in range(s.first, s.first + s.count)
    ]
    hd, pp, ws, qp = [], [], [], []

    def rows(entry, i0, i1, first, last):
        start, words = entry.ws.at(i0, i1), entry.row_words
        taken = buffers[entry.ws_buffer][start + words * first : start + words * last]
        ws.extend(sent_rows(taken, words, bits))

    def ahead(entry, i0, i1):
        hd.append(weights[entry.hd.at(i0, i1)])
        start = entry.pp.at(i0, i1)
        if entry.pp_once == 0 or (entry.pp_once == 1 and (i0, i1) == (0, 0)):
            pp.extend(buffers[entry.pp_buffer][start : start + entry.pp_words])
        rows(entry, i0, i1, 0, min(entry.round_rows, entry.ws_rows))

    ahead(*runs[0])
    for n, (entry, i0, i1) in enumerate(runs):
        start = entry.table.at(i0, i1)
        qp.extend(weights[start : start + entry.table_words])
        for round_, first in enumerate(range(0, entry.units, entry.per_round)):
            last = min(first + entry.per_round, entry.units)
            for unit in range(first, last):
                qp.append(buffers[entry.scale_buffer][entry.scale.at(i0, i1) + unit])
                start = entry.bias.at(i0, i1) + unit * entry.bias_words
                qp.extend(buffers[entry.bias_buffer][start : start + entry.bias_words])
            if last < entry.units:
                begin = (round_ + 1) * entry.round_rows
                rows(entry, i0, i1, begin, min(begin + entry.round_rows, entry.ws_rows))
        if n + 1 < len(runs):
            ahead(*runs[n + 1])
    widths = {"hd": hd, "pp": pp, "ws": ws, "qp": qp}
    return [
        np.array(rows, np.uint8).reshape(-1, 16 * bits if name == "ws" else 64)
        for name, rows in widths.items()
    ]


def random_entry(rng, cache, row_words):
    units = int(rng.integers(1, 14))
    per_round = int(rng.integers(1, 6))
    steps = int(rng.integers(1, 12))
    ws_rows = 0 if rng.random() < 0.2 else units * steps
    bias_words = int(rng.integers(1, 4))
    counts = {"pp": int(rng.integers(1, 90)), "table": 64 * int(rng.integers(0, 2))}

    def address(length, cached=False):
        s = [0 if cached else int(rng.integers(0, 4)) for _ in range(2)]
        first = WORDS // 2 if cached else 0
        return Addr(first + int(rng.integers(0, WORDS // 2 - length - 40)), *s)

    buffer = int(rng.integers(0, 2)) if cache < 0 else BUFFER_STATIC
    return WloadEntry(
        units=units, per_round=per_round, ws_rows=ws_rows, round_rows=per_round * steps,
        row_words=row_words, ws_buffer=buffer, ws=address(2 * ws_rows, cache >= 0),
        cache=cache if ws_rows else -1,
        hd=address(1), pp_words=counts["pp"], pp_buffer=int(rng.integers(0, 2)),
        pp=address(counts["pp"]), table_words=counts["table"], table=address(counts["table"]),
        scale_buffer=int(rng.integers(0, 2)), scale=address(units), bias_words=bias_words,
        bias_buffer=int(rng.integers(0, 2)), bias=address(units * bias_words),
        pp_once=int(rng.integers(0, 3)),
    )  # fmt: skip


def random_program(rng, kind):
    """Rows of the array's width and of the cache's, of which the latter may be kept."""
    segments, entries, cache = [], [], 0
    for _ in range(int(rng.integers(1, 6))):
        count = int(rng.integers(1, 4))
        loops = tuple(int(n) for n in rng.integers(1, 4, 2))
        segments.append(Segment(len(entries), count, *loops))
        for _ in range(count):
            cached = rng.random() < 0.4 and cache < 300
            row_words = kind[1] // 4 if cached else int(rng.choice(kind)) // 4
            entries.append(random_entry(rng, cache if cached else -1, row_words))
            cache += entries[-1].ws_rows if cached else 0
    return segments, entries


def random_words(rng):
    """Words of both buffers, with the extremes of either width often."""
    words = rng.integers(0, 256, (2, WORDS, 64), np.uint8)
    extremes = np.array([0x80, 0x7F, 0x88, 0x87, 0x78, 0x77, 0xFF, 0x00], np.uint8)
    return np.where(rng.random(words.shape) < 0.3, rng.choice(extremes, words.shape), words)


def long_rounds(rng, per_round, rounds, buffers=None):
    """An entry of that many rounds, the last of which has one unit less, in the lower half of
    memory. ``buffers``: of scales and biases.
    """
    units = per_round * rounds - (rounds > 1)
    bias_words = int(rng.integers(1, 4))
    scale_buffer, bias_buffer = buffers or rng.integers(0, 2, 2).tolist()
    return replace(
        plain_entry(per_round, 2), units=units, ws_rows=2 * units, bias_words=bias_words,
        hd=Addr(2000), pp=Addr(2010), scale_buffer=scale_buffer,
        scale=Addr(int(rng.integers(0, 500)), 3, 5), bias_buffer=bias_buffer,
        bias=Addr(int(rng.integers(0, 500)), 4, 2),
    )  # fmt: skip


def differs(card, kind, seed, more=0):
    """Names of the streams on which a random program's words are not those of the contract.
    ``more``: words that a faulty card may send besides.
    """
    rng = np.random.default_rng(seed)
    segments, entries = random_program(rng, kind)
    if seed % 4 == 3:
        row_words = kind[1] // 4
        entries.append(replace(long_rounds(rng, 100, 2), row_words=row_words))
        segments.append(Segment(len(entries) - 1, 1, 2))
    return differs_in(card, kind, segments, entries, rng, 1 + seed % 3, more)


def differs_in(card, kind, segments, entries, rng, wait=1, more=0):
    """The same of any program."""
    weights, dynamic = random_words(rng)
    expected = model(segments, entries, weights, dynamic, kind[0])
    sizes = [len(w) + more for w in expected]
    # cached rows, in the upper half of memory, are not read again
    others = weights.copy()
    others[WORDS // 2 :] ^= 255
    for reload, memory in ((1, weights), (0, others)):
        got, _ = card.step(segments, entries, memory, dynamic, reload, sizes, wait)
        pairs = zip(("hd", "pp", "ws", "qp"), got, expected, strict=True)
        wrong = {name for name, stream, wanted in pairs if not np.array_equal(stream, wanted)}
        if wrong:
            return wrong
    return set()


@EACH_KIND
@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed, kind):
    assert not differs(Card(*kind), kind, seed)


BOTH = (BUFFER_STATIC, BUFFER_DYNAMIC)


@pytest.mark.parametrize(
    "buffers", product(BOTH, BOTH), ids=lambda pair: "scale{}bias{}".format(*pair)
)
@pytest.mark.parametrize("per_round", [63, 64, 65, 128, 129, 160])
def test_rounds_of_several_batches(per_round, buffers):
    """Scales and biases of more units than there are words in a run."""
    rng = np.random.default_rng(per_round)
    entries = [long_rounds(rng, per_round, rounds, buffers) for rounds in (1, 3, 2)]
    segments = [Segment(0, 2, 2, 1), Segment(2, 1, 1, 2)]
    for wait in (1, 3):
        assert not differs_in(Card(), (8, 8), segments, entries, rng, wait)


# header, right, wrong, the stream that is not as it should be
PLANTED = {
    "halves": ("weights.hpp", "= nibble_of(stored.b[k], true)", "= nibble_of(stored.b[k], false)",
               "ws"),
    "sign": ("weights.hpp", "return int8_t((bits ^ 8) - 8);", "return int8_t(bits);", "ws"),
    "both widths": ("wload.hpp", "if (WIDENS && two) row_from", "if (WIDENS && !two) row_from",
                    "ws"),
    "next address": (
        "wload_plan.hpp",
        "return row_words == 2 ? 2 * rows : rows;",
        "return row_words == 3 ? 2 * rows : rows;",
        "ws",
    ),
    "constants of the one before": ("wload_plan.hpp", "entry.pp_once == 2 ||", "", "pp"),
    "constants of all executions": ("wload_plan.hpp", "(i0 > 0 || i1 > 0)", "i1 > 0", "pp"),
    "scales of the second batch": ("wload_plan.hpp", "scale += batch;", "scale += round_units;",
                                   "qp"),
    "biases of the second batch": ("wload_plan.hpp", "bias += batch *", "bias += round_units *",
                                   "qp"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, tmp_path):
    name, right, wrong, stream = PLANTED[fault]
    for folder in ("hls", "tests/kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    source = tmp_path / "hls/kernels" / name
    text = source.read_text()
    assert text.count(right) == 1
    broken = text.replace(right, wrong)
    source.write_text(broken)
    card = Card(8, 4, f"-DSOURCE={zlib.crc32(broken.encode())}", root=tmp_path)
    assert any(stream in differs(card, (8, 4), seed, 20000) for seed in range(4))


def test_every_weight_of_four_bits_is_widened():
    """-8 .. 7 in either half of every byte."""
    values = np.arange(256, dtype=np.uint8)
    weights = np.tile(values[:, None], (WORDS // 256, 64))
    entry = replace(plain_entry(4, 64), row_words=1)
    sizes = [len(w) for w in model([Segment(0, 1)], [entry], weights, weights)]
    got, _ = Card(8, 4).step([Segment(0, 1)], [entry], weights, weights, True, sizes)
    rows = got[2].view(np.int8)
    assert (rows.min(), rows.max()) == (-8, 7)
    low, high = rows[:, :64].astype(int), rows[:, 64:].astype(int)
    assert np.array_equal((low & 15) | (high & 15) << 4, weights[:256])


def plain_entry(units, steps, cache=-1, row_words=2):
    return WloadEntry(
        units=units, per_round=units, ws_rows=units * steps, round_rows=units * steps,
        row_words=row_words, ws_buffer=BUFFER_STATIC, ws=Addr(0), cache=cache, hd=Addr(3000),
        pp_words=4, pp_buffer=BUFFER_STATIC, pp=Addr(3100), table_words=0, table=Addr(0),
        scale_buffer=BUFFER_STATIC, scale=Addr(3200), bias_words=1,
        bias_buffer=BUFFER_STATIC, bias=Addr(3300), pp_once=0,
    )  # fmt: skip


@EACH_KIND
def test_cached_rows_come_one_per_cycle(kind):
    """And those from memory as fast as their words."""
    bits, stored = kind
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 256, (WORDS, 64), np.uint8)
    entries = [plain_entry(8, 60, cache=5, row_words=stored // 4)]
    sizes = [len(w) for w in model([Segment(0, 1)], entries, weights, weights, bits)]
    card = Card(*kind)
    loaded, slow = card.step([Segment(0, 1)], entries, weights, weights, True, sizes)
    kept, fast = card.step([Segment(0, 1)], entries, weights, weights, False, sizes)
    np.testing.assert_array_equal(loaded[2], kept[2])
    rows = 8 * 60
    words = rows * stored // 4
    assert words < slow < words * 1.25 + 150
    assert rows < fast < rows + 200


def test_words_beyond_a_buffer_are_refused():
    entry = replace(plain_entry(2, 4), hd=Addr(WORDS))
    memory = np.zeros((WORDS, 64), np.uint8)
    with pytest.raises(AssertionError, match=f"buffer weights: word {WORDS} is read, it has"):
        Card().step([Segment(0, 1)], [entry], memory, memory, True, [9, 9, 99, 99])


def test_a_cache_that_is_too_small_is_refused():
    memory = np.zeros((WORDS, 64), np.uint8)
    entry = plain_entry(8, 60, cache=100)
    with pytest.raises(AssertionError, match="a row outside of the cache"):
        Card().step([Segment(0, 1)], [entry], memory, memory, True, [9, 9, 999, 99])


def test_rows_of_two_words_do_not_fit_a_narrow_cache():
    memory = np.zeros((WORDS, 64), np.uint8)
    entry = plain_entry(2, 4, cache=0, row_words=2)
    with pytest.raises(AssertionError, match="a row of other words than the engine has"):
        Card(8, 4).step([Segment(0, 1)], [entry], memory, memory, True, [9, 9, 99, 99])


def test_steps_have_their_own_words():
    """Behind word ``first`` of the dynamic buffer only; cached rows are read in step 0 alone."""
    rng = np.random.default_rng(3)
    weights, dynamic = rng.integers(0, 256, (2, WORDS, 64), np.uint8)
    first, words_of_step, steps = 1000, 700, 3
    entries = [
        replace(plain_entry(4, 6), ws_buffer=BUFFER_DYNAMIC, pp_buffer=BUFFER_DYNAMIC,
                pp=Addr(first - 4), bias_buffer=BUFFER_DYNAMIC, bias=Addr(first)),
        replace(plain_entry(3, 5, cache=7), pp_buffer=BUFFER_DYNAMIC, pp=Addr(first + 10, 4)),
    ]  # fmt: skip
    segments = [Segment(0, 1), Segment(1, 1, 2)]
    parts = []
    for step in range(steps):
        moved = np.roll(dynamic, -step * words_of_step, axis=0)
        moved[:first] = dynamic[:first]
        parts.append(model(segments, entries, weights, moved))
    expected = [np.concatenate(stream) for stream in zip(*parts, strict=True)]
    sizes = [len(stream) for stream in expected]
    card = Card()
    for reload in (1, 0):
        got, _ = card.step(
            segments, entries, weights, dynamic, reload, sizes, 1, steps, (first, words_of_step)
        )
        for stream, wanted in zip(got, expected, strict=True):
            np.testing.assert_array_equal(stream, wanted)
