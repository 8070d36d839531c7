from __future__ import annotations

import layerkit
import numpy as np
import pytest
import slowref
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.layers import Window
from gen.qlayers import Affine
from gen.reference import attention, logits_of, operand, run
from gen.reference import write as write_module
from gen.reference.normalise import group_normalise, layer_normalise, reciprocal_deviation
from gen.reference.product import exact_matmul, patches
from gen.reference.rounding import bits_of, clamp, isqrt_of, rshr
from gen.reference.softmax import divide_by_row_sum

seeds = st.integers(0, 2**32 - 1)


def small_graph(kind, seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    qgraph = layerkit.random_qgraph(kind, rng, size=size, channels=int(rng.choice([3, 8, 17])))
    return qgraph, layerkit.random_inputs(qgraph, rng)


@pytest.mark.parametrize("kind", layerkit.KINDS)
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_equals_loops_over_python_integers(kind, seed):
    qgraph, inputs = small_graph(kind, seed)
    expected = slowref.run(qgraph, *inputs.args(), inputs.step_affine)
    dest = {q.layer.name: q.layer.dest for q in qgraph.layers}
    seen = {}
    output = run(qgraph, *inputs.args(), seen.__setitem__, inputs.step_affine)
    assert list(seen) == list(dest)
    for name, y in seen.items():
        np.testing.assert_array_equal(y, expected[dest[name]], err_msg=name)
    np.testing.assert_array_equal(output, expected[qgraph.graph.output])
    assert output.dtype == np.int16


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
@pytest.mark.parametrize("tile", [1, 40, 1 << 22])
@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_attention_by_rows_gives_the_same_integers(kind, tile, seed):
    qgraph, inputs = small_graph(kind, seed)
    seen, shown = {}, {}
    expected = run(qgraph, *inputs.args(), seen.__setitem__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILE_VALUES", tile)
        for logits in (True, False):
            shown.clear()
            output = run(qgraph, *inputs.args(), shown.__setitem__, logits=logits)
            np.testing.assert_array_equal(output, expected)
            hidden = set() if logits else {"qk"}
            assert set(shown) == set(seen) - hidden
            for name, stored in shown.items():
                np.testing.assert_array_equal(stored, seen[name], err_msg=name)
        np.testing.assert_array_equal(run(qgraph, *inputs.args()), expected)


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_logits_of_one_item_and_head(kind, seed):
    qgraph, inputs = small_graph(kind, seed)
    tensors = slowref.run(qgraph, *inputs.args())
    qlayer = next(q for q in qgraph.layers if q.layer.name == "qk")
    for item, head in np.ndindex(tensors["scores"].shape[:2]):
        own = logits_of(qgraph, qlayer, tensors, inputs.prompt_q, item, head)
        np.testing.assert_array_equal(own, tensors["scores"][item, head])


def test_logits_of_many_tokens_are_never_whole(monkeypatch):
    """Tiles stay within their limit, and every row is computed once."""
    rng = np.random.default_rng(0)
    qgraph = layerkit.random_qgraph("self_attention", rng, batch=1, size=(16, 16), channels=8)
    inputs = layerkit.random_inputs(qgraph, rng)
    expected = run(qgraph, *inputs.args(), lambda name, y: None)
    sizes = []
    plain = operand.below_maximum

    def counted(q):
        sizes.append(q.shape)
        return plain(q)

    heads = qgraph.layers[-2].layer.heads
    monkeypatch.setattr(attention, "TILE_VALUES", 20 * heads * 256)
    monkeypatch.setattr(operand, "below_maximum", counted)
    np.testing.assert_array_equal(run(qgraph, *inputs.args()), expected)
    assert max(s[2] for s in sizes) == 20 and sum(s[2] for s in sizes) == 256


def test_gamma_and_beta_of_each_item_are_its_own():
    """Exchanging the items' gamma and beta changes the result: a planted fault is caught."""
    qgraph, inputs = small_graph("host_affine", 5)
    (name,) = inputs.step_affine
    good = inputs.step_affine[name]
    swapped = Affine(good.gamma[::-1], good.beta[::-1])
    expected = slowref.run(qgraph, *inputs.args(), inputs.step_affine)[qgraph.graph.output]
    np.testing.assert_array_equal(
        run(qgraph, *inputs.args(), step_affine=inputs.step_affine), expected
    )
    assert not np.array_equal(run(qgraph, *inputs.args(), step_affine={name: swapped}), expected)


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention"])
def test_operands_and_values_of_minus_128(kind):
    """Both factors of an attention product may be -128, in every place at once."""
    rng = np.random.default_rng(1)
    qgraph = layerkit.random_qgraph(kind, rng, size=(3, 3))
    inputs = layerkit.random_inputs(qgraph, rng)
    held = {"q.out", "k.out", "v.out"} & set(qgraph.graph.tensors)
    for qlayer in qgraph.layers:
        if qlayer.layer.dest in held:
            # the smallest accumulators there are
            qlayer.weight[:], qlayer.bias[:] = 0, -(1 << 30)
    for name in inputs.prompt_q:
        inputs.prompt_q[name] = np.full_like(inputs.prompt_q[name], -128)
    expected = slowref.run(qgraph, *inputs.args())
    for name in held:
        assert (expected[name] == -128).all()
    seen = {}
    output = run(qgraph, *inputs.args(), seen.__setitem__)
    np.testing.assert_array_equal(seen["qk"], expected["scores"])
    np.testing.assert_array_equal(seen["pv"], expected["attended"])
    np.testing.assert_array_equal(output, expected[qgraph.graph.output])


def half_away_from_zero(x, shift):
    return np.sign(x) * rshr(np.abs(x), shift)


def truncate(x, shift):
    return x >> shift


@pytest.mark.parametrize("fault", [half_away_from_zero, truncate])
def test_a_planted_rounding_fault_is_caught(monkeypatch, fault):
    drawn = [small_graph("linear", seed) for seed in range(20)]
    good = [run(qgraph, *inputs.args()) for qgraph, inputs in drawn]
    monkeypatch.setattr(write_module, "rshr", fault)
    bad = [run(qgraph, *inputs.args()) for qgraph, inputs in drawn]
    assert any(not np.array_equal(a, b) for a, b in zip(good, bad, strict=True))


@given(st.integers(-(2**62), 2**62), st.integers(0, 60))
def test_rshr_and_clamp(x, shift):
    assert int(rshr(np.int64(x), shift)) == slowref.rshr(x, shift)
    for width in (8, 11, 16, 18):
        assert int(clamp(np.array(x), width)) == slowref.clamp(x, width)


def test_halves_round_up():
    x = np.array([-3, -2, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(rshr(x, 1), [-1, -1, 0, 0, 1, 1, 2])
    np.testing.assert_array_equal(rshr(x, 0), x)


@given(st.integers(0, 2**63 - 1))
def test_bits(x):
    assert int(bits_of(np.array([x]))[0]) == x.bit_length()


def test_roots_next_to_squares():
    roots = np.array([1, 2, 3, 2**15, 2**15 + 1, 46341, 2**16 - 1], np.int64)
    np.testing.assert_array_equal(isqrt_of(roots**2), roots)
    np.testing.assert_array_equal(isqrt_of(roots**2 - 1), roots - 1)
    np.testing.assert_array_equal(isqrt_of(roots**2 + 2 * roots), roots)


@given(st.integers(1, 2**100), st.integers(1, 2**24))
def test_reciprocal_deviation_range(variance, n):
    r, e = reciprocal_deviation(variance, n)
    assert 2**15 <= r <= 2**17
    exact = n * 2.0**8 / variance**0.5
    assert abs(r * 2.0**-e / exact - 1) < 2**-14


def test_group_norm_is_close_to_torch():
    rng = np.random.default_rng(0)
    parts = [rng.integers(-9000, 9000, (2, 24, 6, 5)), rng.integers(-3000, 5000, (2, 8, 6, 5))]
    align, eps, lsb = (2, 0), 1e-5, 2.0**-9
    n = 8 * 30
    z = group_normalise(parts, align, 4, max(1, round(eps * n * n / lsb**2)))
    values = np.concatenate([parts[0] * 4, parts[1]], axis=1) * lsb
    expected = torch.nn.functional.group_norm(torch.from_numpy(values), 4, eps=eps).numpy()
    assert np.abs(z / 4096 - expected).max() < 1e-3


@pytest.mark.parametrize("big", [False, True])
def test_layer_norm_is_close_to_torch_and_to_loops(big):
    rng = np.random.default_rng(1)
    q = rng.integers(-(2**15), 2**15, (2, 40, 3, 3))
    eps, lsb = 1e-5, 2.0**-9
    e = (1 << 62) if big else max(1, round(eps * 1600 / lsb**2))
    z = layer_normalise(q, e)
    for b, y, x in np.ndindex(2, 3, 3):
        row = q[b, :, y, x].tolist()
        constants = slowref.moments(row, e)
        assert z[b, :, y, x].tolist() == [slowref.normalise(v, *constants) for v in row]
    if not big:
        moved = torch.from_numpy(q * lsb).permute(0, 2, 3, 1)
        expected = torch.nn.functional.layer_norm(moved, (40,), eps=eps).permute(0, 3, 1, 2)
        assert np.abs(z / 4096 - expected.numpy()).max() < 1e-3


def test_normalising_a_constant_gives_the_rounding_of_its_mean():
    q = np.full((1, 4, 2, 2), 32767)
    assert not group_normalise([q], (0,), 2, 1).any()
    assert not layer_normalise(np.full((1, 4, 2, 2), -32768), 1).any()


def test_row_sums_divide():
    rng = np.random.default_rng(2)
    total = rng.integers(127, 127 * 256, (1, 1, 1, 50))
    acc = rng.integers(-128, 128, (1, 1, 20, 50)) * total
    a = divide_by_row_sum(acc, total)
    assert np.abs(a / 4096 - acc / total).max() < 128 * 2**-15
    assert not divide_by_row_sum(acc, total * 0).any()


@pytest.mark.parametrize("inner", [1, 1032, 1033, 1040, 5000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_products_are_exact_where_sums_are_largest(inner, sign):
    left = np.full((3, inner), -127, np.int8)
    left[1, ::2] = 126
    right = np.full((inner, 2), -128 if sign < 0 else 127, np.int8)
    right[inner // 2, 1] = 1
    expected = left.astype(np.int64) @ right.astype(np.int64)
    np.testing.assert_array_equal(exact_matmul(left, right), expected)


def test_patches_read_the_zero_point_outside():
    x = np.arange(1, 5, dtype=np.int8).reshape(1, 1, 2, 2)
    columns = patches(x, Window((3, 3), 2, (0, 0, 1, 1)), -7)
    assert columns.reshape(9).tolist() == [1, 2, -7, 3, 4, -7, -7, -7, -7]
    up = patches(x, Window((1, 1), 1, (0, 0, 0, 0), 2), 0)
    assert up.reshape(4, 4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
