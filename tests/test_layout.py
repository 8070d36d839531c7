"""Physical channels, rows of the ranks' stores, word formats, allocation by live interval."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import UserError
from gen.program.io import from_rows, to_rows
from gen.program.layout import HeadPlace, Stored
from gen.program.memory import Interval, allocate, bound, check_capacity, overlaps
from gen.program.parameters import Lanes, parameters
from gen.program.weights import of_rank
from gen.program.words import (
    bias_words,
    grouped_rows,
    header_word,
    parameter_words,
    scale_words,
    weight_words,
)

RANKS = st.sampled_from([1, 2, 4])
tensors = st.builds(
    Stored,
    name=st.just("t"),
    row=st.just(0),
    wide=st.booleans(),
    items=st.integers(1, 3),
    channels=st.sampled_from([1, 4, 8, 15, 64, 65, 128]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    ranks=RANKS,
)
headed = st.builds(
    lambda dim, heads, wide, ranks: Stored("t", 0, wide, 2, dim * heads, 3, 2, heads, ranks),
    st.sampled_from([3, 8, 16, 24, 32, 40, 64, 72, 160]),
    st.integers(2, 5),
    st.booleans(),
    RANKS,
)


def random_values(tensor, seed):
    bits = 16 if tensor.wide else 8
    shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
    values = np.random.default_rng(seed).integers(-(1 << bits - 1), 1 << bits - 1, shape)
    values.reshape(-1)[:2] = [-(1 << bits - 1), (1 << bits - 1) - 1][: values.size]
    return values


@given(st.one_of(tensors, headed), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_rows_and_back(tensor, seed):
    values = random_values(tensor, seed)
    rows = to_rows(tensor, values)
    assert [each.shape for each in rows] == [(tensor.rows, 128)] * tensor.ranks
    assert tensor.pitch % 16 == 0
    slots = from_rows(tensor, rows)
    assert slots.dtype == (np.int16 if tensor.wide else np.int8)
    np.testing.assert_array_equal(slots[:, :, : tensor.pixels].reshape(values.shape), values)
    assert not slots[:, :, tensor.pixels :].any()


@given(st.one_of(tensors, headed), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rows_follow_the_formula(tensor, seed):
    """docs/engine.md, "Activation store"."""
    values = random_values(tensor, seed)
    rows = to_rows(tensor, values)
    rng = np.random.default_rng(seed)
    ranks = tensor.ranks
    dim = tensor.channels // tensor.heads
    pitch = dim if tensor.heads == 1 else -(-dim // 8) * 8
    octets = tensor.items * (-(-tensor.height * tensor.width // 16) * 16) // 8
    for _ in range(20):
        item, c = rng.integers(tensor.items), rng.integers(tensor.channels)
        y, x = rng.integers(tensor.height), rng.integers(tensor.width)
        physical = c // dim * pitch + c % dim
        local, rank = divmod(physical // 8, ranks)
        slot = item * octets * 8 // tensor.items + y * tensor.width + x
        octet, byte = slot // 8, slot % 8 * 8 + physical % 8
        if tensor.wide:
            row = rows[rank][local * octets + octet]
            value = int(row[byte]) | int(row[64 + byte]) << 8
        else:
            row = rows[rank][local * octets // 2 + octet // 2]
            value = int(row[octet % 2 * 64 + byte])
        assert value == int(values[item, c, y, x]) % (1 << (16 if tensor.wide else 8))


def headed_tensor(dim, ranks):
    return Stored("t", 0, False, 1, 6 * dim, 1, 1, heads=6, ranks=ranks)


def test_heads_follow_each_other_without_a_gap():
    tensor = headed_tensor(40, 4)
    assert tensor.head_pitch == 40 and tensor.local_groups == 8 and tensor.head_groups == 5
    assert [tensor.head(h) for h in range(5)] == [
        HeadPlace(first, phase, 5, 2) for first, phase in ((0, 0), (1, 1), (2, 2), (3, 3), (5, 0))
    ]
    assert headed_tensor(33, 4).head_pitch == 40
    # groups 9..11 of three: the last rank alone, then two more
    assert headed_tensor(24, 4).head(1) == HeadPlace(0, 3, 3, 2)


def test_heads_after_which_one_begins_at_the_same_rank():
    for dim, ranks, period in ((40, 4, 4), (80, 4, 2), (160, 4, 1), (8, 2, 2), (40, 1, 1)):
        tensor = headed_tensor(dim, ranks)
        assert tensor.head_period == period
        assert tensor.head(period).phase == 0 and tensor.head(0).phase == 0


def test_copies_of_logits_follow_each_other():
    """[copies, tokens, slots of a strip]: rows of a copy are those of a tensor of that size."""
    strip = Stored("s", 0, True, 1, 20, 8, 8, ranks=2, logits=True, copies=3, strip=32)
    one = Stored("s", 0, True, 1, 20, 4, 8, ranks=2)
    assert strip.copy_rows == one.rows and strip.rows == 3 * one.rows
    values = [random_values(one, seed) for seed in range(3)]
    parts = [to_rows(one, each) for each in values]
    rows = [np.concatenate([part[rank] for part in parts]) for rank in range(2)]
    want = np.stack([each.reshape(20, 32) for each in values])
    np.testing.assert_array_equal(from_rows(strip, rows), want)


def test_wrong_shape_is_refused():
    tensor = Stored("t", 0, False, 2, 4, 3, 2)
    with pytest.raises(ValueError, match="expected"):
        to_rows(tensor, np.zeros((2, 4, 2, 3), np.int8))
    right = to_rows(tensor, np.zeros((2, 4, 3, 2), np.int8))
    with pytest.raises(ValueError, match="expected"):
        from_rows(tensor, [right[0][:-1]])
    with pytest.raises(ValueError, match="expected"):
        from_rows(dataclasses.replace(tensor, ranks=2), right)


def test_weight_row_order():
    """unit, step (tap-major), then byte output*16 + input, over two words."""
    rng = np.random.default_rng(1)
    matrix = rng.integers(-127, 128, (2, 16, 9, 48)).astype(np.int8)
    rows = weight_words(matrix).view(np.int8).reshape(-1, 128)
    assert len(rows) == 2 * 2 * 9 * 3
    for _ in range(50):
        og, gate, tap, sub = (rng.integers(n) for n in (2, 2, 9, 3))
        o, i = rng.integers(8), rng.integers(16)
        row = ((og * 2 + gate) * 9 + tap) * 3 + sub
        assert rows[row, o * 16 + i] == matrix[gate, og * 8 + o, tap, sub * 16 + i]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_output_groups_go_round_the_ranks(ranks):
    matrix = np.arange(2 * 32 * 3 * 16).reshape(2, 32, 3, 16).astype(np.int8)
    for rank in range(ranks):
        mine = of_rank(matrix, rank, ranks)
        assert mine.shape == (2, 32 // ranks, 3, 16)
        for local in range(4 // ranks):
            group = local * ranks + rank
            np.testing.assert_array_equal(
                mine[:, 8 * local : 8 * local + 8], matrix[:, 8 * group : 8 * group + 8]
            )


def test_bias_scale_and_header_words():
    bias = np.arange(2 * 1 * 3 * 8, dtype=np.int32).reshape(2, 1, 3, 8) - 5
    words = bias_words(bias).view("<i4")
    assert words.shape == (4, 16)
    np.testing.assert_array_equal(words[2], np.concatenate([bias[1, 0, 0], bias[1, 0, 1]]))
    np.testing.assert_array_equal(words[3], np.concatenate([bias[1, 0, 2], np.zeros(8)]))
    mult, shift = np.arange(16).reshape(2, 8), np.arange(16, 32).reshape(2, 8)
    words = scale_words(mult, shift).view("<i4")
    np.testing.assert_array_equal(words[1], np.concatenate([mult[1], shift[1]]))
    word = header_word((1 << 63) - 1, 1 << 62, 1280)
    assert word.shape == (1, 64)
    assert word.view("<i8")[0, :2].tolist() == [(1 << 63) - 1, 1 << 62]
    assert word.view("<i4")[0, 4] == 1280 and not word[0, 20:].any()


def test_parameter_word_layout():
    gamma = np.full((2, 8), -(1 << 15))
    beta = np.full((2, 8), -(1 << 31))
    beta[1, 7] = (1 << 31) - 1
    group, valid = np.full((2, 8), 255), np.ones((2, 8))
    valid[1, 3:] = 0
    words = parameter_words(gamma, beta, group, valid)
    assert words.shape == (2, 64)
    assert (words[:, :16].copy().view("<i2") == -(1 << 15)).all()
    assert words[1, 16:48].copy().view("<i4")[7] == (1 << 31) - 1
    assert (words[:, 48:56] == 255).all() and words[:, 56].tolist() == [255, 7]
    for wrong in ((gamma - 1, beta, group), (gamma, -beta, group), (gamma, beta, group + 1)):
        with pytest.raises(AssertionError):
            parameter_words(*wrong, valid)


def test_parameters_of_two_sources_on_two_ranks():
    """Channels are numbered over both sources; norm groups cut through them."""
    sources = tuple(Stored(n, 0, True, 1, c, 2, 2, ranks=2) for n, c in (("a", 12), ("b", 20)))
    gamma, beta = np.arange(32) + 100, np.arange(32) + 1000
    words = [parameters(Lanes(sources, None, 4), gamma, beta, None, rank) for rank in (0, 1)]
    assert [len(each) for each in words] == [1 + 2, 1 + 2]
    for source, group, channels in (
        (0, 0, range(8)), (0, 1, range(8, 12)), (1, 0, range(12, 20)), (1, 2, range(28, 32)),
    ):  # fmt: skip
        word = words[group % 2][source + group // 2]
        count = len(channels)
        assert word[:16].copy().view("<i2")[:count].tolist() == [100 + c for c in channels]
        assert word[16:48].copy().view("<i4")[:count].tolist() == [1000 + c for c in channels]
        assert word[48 : 48 + count].tolist() == [c // 8 for c in channels]
        assert word[56] == (1 << count) - 1
    assert words[1][2, 56] == 0  # group 3 of the second source does not exist


def test_rows_in_group_order():
    values = np.arange(2 * 20).reshape(2, 20)  # batch 2, 10 value rows, 10 gate rows
    lanes = np.array([0, 1, 2, 3, 4, 8, 9, 10, 11, 12])
    grouped = grouped_rows(values, lanes, groups=2, gates=2, pad=-1)
    assert grouped.shape == (2, 2, 2, 8)  # group, gate, item, lane
    np.testing.assert_array_equal(grouped[0, 0, 0], [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_array_equal(grouped[1, 1, 1], [35, 36, 37, 38, 39, -1, -1, -1])


intervals = st.lists(
    st.tuples(
        st.integers(1, 20),
        st.integers(0, 10),
        st.integers(0, 5),
        st.lists(st.integers(0, 20), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=12,
).map(
    lambda items: [
        Interval(f"t{i}", 8 * size, first, first + length, again)
        for i, (size, first, length, again) in enumerate(items)
    ]
)


@given(intervals)
@settings(max_examples=60, deadline=None)
def test_live_tensors_never_overlap(live):
    allocation = allocate(live, 8)
    assert overlaps(live, allocation.address) == []
    assert bound(live) <= allocation.peak <= sum(each.size for each in live)
    assert all(address % 8 == 0 for address in allocation.address.values())
    times = {each.name: {*range(each.first, each.last + 1), *each.again} for each in live}
    for one, other in product(live, live):
        assert one.meets(other) == bool(times[one.name] & times[other.name])
    most = max(sum(each.size for each in live if time in times[each.name]) for time in range(21))
    assert bound(live) == most


def test_dead_tensors_share_and_a_planted_overlap_is_seen():
    live = [Interval("a", 16, 0, 1), Interval("b", 16, 1, 2), Interval("c", 16, 2, 3)]
    allocation = allocate(live, 8)
    assert allocation.peak == allocation.bound == 32
    planted = {**allocation.address, "b": allocation.address["a"] + 8}
    assert ("a", "b") in overlaps(live, planted)


def test_overflow_names_the_layer_and_the_parameter():
    live = [Interval("a", 16, 0, 2), Interval("b", 24, 1, 2)]
    words = "layer second: 40 store rows are needed .* store_rows >= 40"
    with pytest.raises(UserError, match=words):
        check_capacity(
            live, allocate(live, 8), 39, ["first", "second", "third"], "store rows", "store_rows"
        )
