"""The files of a layer graph: round trip, and refusal of damaged ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import unets

from gen import layergraph_io
from gen.errors import UserError

KINDS = (unets.tiny, unets.ddpm_like, unets.scale_shift, unets.odd)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_round_trip(tmp_path, make):
    graph = make().layers
    layergraph_io.save(graph, tmp_path)
    loaded = layergraph_io.load(tmp_path)
    assert loaded.layers == graph.layers
    assert loaded.tensors == graph.tensors
    assert loaded.host_tensors == graph.host_tensors
    assert (loaded.batch, loaded.input, loaded.output) == (graph.batch, graph.input, graph.output)
    assert loaded.arrays.keys() == graph.arrays.keys()
    for key, array in graph.arrays.items():
        assert array.dtype == np.float32
        assert np.array_equal(loaded.arrays[key], array)


@pytest.mark.parametrize("name", ["layers.json", "layers.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, name, keep):
    layergraph_io.save(unets.tiny().layers, tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="build it again"):
        layergraph_io.load(tmp_path)


@pytest.mark.parametrize("name", ["layers.json", "layers.safetensors"])
def test_missing_files_are_refused(tmp_path, name):
    layergraph_io.save(unets.tiny().layers, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        layergraph_io.load(tmp_path)


def unknown_field(data):
    data["layers"][0]["surprise"] = 1


def other_format(data):
    data["format"] = 99


def swapped_layers(data):
    data["layers"][1], data["layers"][2] = data["layers"][2], data["layers"][1]


def other_kernel(data):
    data["layers"][0]["window"]["kernel"] = [1, 1]


def no_tensors(data):
    del data["tensors"]


def not_a_list(data):
    data["layers"] = 7


@pytest.mark.parametrize(
    "change", [unknown_field, other_format, swapped_layers, other_kernel, no_tensors, not_a_list]
)
def test_tampered_structure_is_refused(tmp_path, change):
    layergraph_io.save(unets.tiny().layers, tmp_path)
    path = tmp_path / "layers.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="build it again"):
        layergraph_io.load(tmp_path)
