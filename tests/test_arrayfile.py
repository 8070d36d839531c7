"""Array files: what they hold, that other tools read them, and that damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save_file

from gen.arrayfile import map_arrays, read_metadata, write_arrays

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text("ab|/.0", min_size=1, max_size=6),
        st.sampled_from(DTYPES).flatmap(lambda d: arrays(d, array_shapes(min_dims=0, min_side=0))),
        min_size=1,
        max_size=5,
    )
)
def test_round_trip_and_other_readers(tmp_path_factory, given_arrays):
    path = tmp_path_factory.mktemp("arrays") / "a.safetensors"
    write_arrays(path, given_arrays, {"key": "value"})
    assert read_metadata(path) == {"key": "value"}
    for loaded in (map_arrays(path), load_file(path)):
        assert loaded.keys() == given_arrays.keys()
        for name, array in given_arrays.items():
            assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
            np.testing.assert_array_equal(loaded[name], array)


def test_files_of_other_writers(tmp_path):
    path = tmp_path / "b.safetensors"
    save_file({"odd": np.arange(3, dtype=np.int8), "wide": np.arange(4.0)}, path)
    mapped = map_arrays(path)
    np.testing.assert_array_equal(mapped["wide"], np.arange(4.0))
    np.testing.assert_array_equal(mapped["odd"], [0, 1, 2])


def test_transposed_arrays_are_written_in_order(tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    write_arrays(tmp_path / "a", {"t": array.T})
    np.testing.assert_array_equal(map_arrays(tmp_path / "a")["t"], array.T)


def test_writing_to_a_mapped_array_leaves_the_file_alone(tmp_path):
    write_arrays(tmp_path / "a", {"x": np.zeros(3, np.int16)})
    map_arrays(tmp_path / "a")["x"][:] = 7
    assert not map_arrays(tmp_path / "a")["x"].any()


@pytest.mark.parametrize("keep", [0, 7, 30, -1])
def test_damage_is_noticed(tmp_path, keep):
    path = tmp_path / "a"
    write_arrays(path, {"x": np.zeros(100, np.int16)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="a"):
        map_arrays(path)


def test_kinds_without_a_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="complex"):
        write_arrays(tmp_path / "a", {"x": np.zeros(1, np.complex128)})
    assert not list(tmp_path.iterdir())
