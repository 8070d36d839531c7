"""Physical channels, rows of the store, word formats, allocation by live interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import UserError
from gen.program.io import from_rows, to_rows
from gen.program.layout import Stored
from gen.program.memory import Interval, allocate, bound, check_capacity, overlaps
from gen.program.words import bias_words, gamma_beta_words, grouped_rows, scale_words, weight_words

tensors = st.builds(
    Stored,
    name=st.just("t"),
    row=st.just(0),
    planes=st.sampled_from([1, 2]),
    items=st.integers(1, 3),
    channels=st.sampled_from([1, 4, 8, 15, 64, 65, 128]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
headed = st.builds(
    lambda dim, heads, planes: Stored("t", 0, planes, 2, dim * heads, 3, 2, heads),
    st.sampled_from([3, 8, 16, 24, 32, 40, 64, 72, 160]),
    st.integers(2, 5),
    st.sampled_from([1, 2]),
)


def random_values(tensor, seed):
    bits = 8 * tensor.planes
    shape = (tensor.items, tensor.channels, tensor.height, tensor.width)
    values = np.random.default_rng(seed).integers(-(1 << bits - 1), 1 << bits - 1, shape)
    values.reshape(-1)[:2] = [-(1 << bits - 1), (1 << bits - 1) - 1][: values.size]
    return values


@given(st.one_of(tensors, headed), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_rows_and_back(tensor, seed):
    values = random_values(tensor, seed)
    rows = to_rows(tensor, values)
    assert rows.shape == (tensor.rows, 64) and tensor.slots % 8 == 0
    np.testing.assert_array_equal(from_rows(tensor, rows), values)


@given(st.one_of(tensors, headed), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rows_follow_the_formula(tensor, seed):
    values = random_values(tensor, seed)
    rows = to_rows(tensor, values)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        item, c = rng.integers(tensor.items), rng.integers(tensor.channels)
        y, x = rng.integers(tensor.height), rng.integers(tensor.width)
        dim = tensor.channels // tensor.heads
        pitch = dim
        if tensor.heads > 1:
            pitch = 16 if dim <= 16 else 32 if dim <= 32 else -(-dim // 64) * 64
        physical = c // dim * pitch + c % dim
        blocks = -(-(tensor.heads * pitch) // 64)
        pixels = -(-tensor.height * tensor.width // 8) * 8
        px = item * pixels + y * tensor.width + x
        value = 0
        for plane in range(tensor.planes):
            row = (plane * blocks + physical // 64) * pixels * tensor.items + px
            value |= int(rows[row, physical % 64]) << 8 * plane
        assert value == int(values[item, c, y, x]) % (1 << 8 * tensor.planes)


def test_wrong_shape_is_refused():
    tensor = Stored("t", 0, 1, 2, 4, 3, 2)
    with pytest.raises(ValueError, match="expected"):
        to_rows(tensor, np.zeros((2, 4, 2, 3), np.int8))
    with pytest.raises(ValueError, match="expected"):
        from_rows(tensor, np.zeros((1, 64), np.uint8))


def test_weight_word_order():
    """Group, gate, tap, sub, half; a word is 8 outputs x 8 inputs."""
    rng = np.random.default_rng(3)
    matrix = rng.integers(-127, 128, (2, 24, 9, 48)).astype(np.int8)
    words = weight_words(matrix).view(np.int8)
    assert words.shape == (3 * 2 * 9 * 3 * 2, 64)
    for _ in range(50):
        og, gate, tap = rng.integers(3), rng.integers(2), rng.integers(9)
        sub, half, o, i = rng.integers(3), rng.integers(2), rng.integers(8), rng.integers(8)
        word = (((og * 2 + gate) * 9 + tap) * 3 + sub) * 2 + half
        assert words[word, o * 8 + i] == matrix[gate, og * 8 + o, tap, sub * 16 + half * 8 + i]


def test_bias_scale_and_parameter_words():
    bias = np.arange(2 * 1 * 3 * 8, dtype=np.int32).reshape(2, 1, 3, 8) - 5
    words = bias_words(bias).view("<i4")
    assert words.shape == (4, 16)
    np.testing.assert_array_equal(words[2], np.concatenate([bias[1, 0, 0], bias[1, 0, 1]]))
    np.testing.assert_array_equal(words[3], np.concatenate([bias[1, 0, 2], np.zeros(8)]))
    mult, shift = np.arange(16).reshape(2, 8), np.arange(16, 32).reshape(2, 8)
    words = scale_words(mult, shift).view("<i4")
    np.testing.assert_array_equal(words[1], np.concatenate([mult[1], shift[1]]))
    gamma = np.full((2, 64), -(1 << 15))
    beta = np.full((2, 64), -(1 << 31))
    beta[1, 63] = (1 << 31) - 1
    words = gamma_beta_words(gamma, beta)
    assert words.shape == (12, 64)
    assert (words[6:8].reshape(-1).view("<i2") == -(1 << 15)).all()
    assert words[8:12].reshape(-1).view("<i4")[63] == (1 << 31) - 1
    with pytest.raises(AssertionError):
        gamma_beta_words(gamma - 1, beta)
    with pytest.raises(AssertionError):
        gamma_beta_words(gamma, -beta)


def test_rows_in_group_order():
    values = np.arange(2 * 20).reshape(2, 20)  # batch 2, 10 value rows, 10 gate rows
    lanes = np.array([0, 1, 2, 3, 4, 8, 9, 10, 11, 12])
    grouped = grouped_rows(values, lanes, groups=2, gates=2, pad=-1)
    assert grouped.shape == (2, 2, 2, 8)  # group, gate, item, lane
    np.testing.assert_array_equal(grouped[0, 0, 0], [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_array_equal(grouped[1, 1, 1], [35, 36, 37, 38, 39, -1, -1, -1])


intervals = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 10), st.integers(0, 5)), min_size=1, max_size=12
).map(
    lambda items: [
        Interval(f"t{i}", 8 * size, first, first + length)
        for i, (size, first, length) in enumerate(items)
    ]
)


@given(intervals)
@settings(max_examples=60, deadline=None)
def test_live_tensors_never_overlap(live):
    allocation = allocate(live, 8)
    assert overlaps(live, allocation.address) == []
    assert bound(live) <= allocation.peak <= sum(each.size for each in live)
    assert all(address % 8 == 0 for address in allocation.address.values())


def test_dead_tensors_share_and_a_planted_overlap_is_seen():
    live = [Interval("a", 16, 0, 1), Interval("b", 16, 1, 2), Interval("c", 16, 2, 3)]
    allocation = allocate(live, 8)
    assert allocation.peak == allocation.bound == 32
    planted = {**allocation.address, "b": allocation.address["a"] + 8}
    assert ("a", "b") in overlaps(live, planted)


def test_overflow_names_the_layer():
    live = [Interval("a", 16, 0, 2), Interval("b", 24, 1, 2)]
    with pytest.raises(UserError, match="layer second: 40 store rows are needed"):
        check_capacity(live, allocate(live, 8), 39, ["first", "second", "third"], "store rows")
