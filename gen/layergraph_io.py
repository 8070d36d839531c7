"""The files of a layer graph: layers.json (structure) and layers.safetensors (arrays)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gen.arrayfile import map_arrays, write_arrays
from gen.errors import UserError
from gen.graph import GraphError
from gen.layers import HostTensor, Layer, LayerGraph, Read, TensorInfo, Weight, Window
from gen.passes.verify_layers import verify_layers

FORMAT = 1
STRUCTURE = "layers.json"
ARRAYS = "layers.safetensors"


def save(graph: LayerGraph, folder: Path) -> None:
    """Write both files; one line of JSON per tensor, host tensor and layer."""
    folder.mkdir(parents=True, exist_ok=True)
    head = json.dumps(
        {"format": FORMAT, "batch": graph.batch, "input": graph.input, "output": graph.output},
        indent=1,
    )
    rows = {
        "tensors": [asdict(t) for t in graph.tensors.values()],
        "host_tensors": [asdict(t) for t in graph.host_tensors.values()],
        "layers": [_layer_row(layer) for layer in graph.layers],
    }
    lists = [
        f' "{key}": [\n  ' + ",\n  ".join(json.dumps(row) for row in values) + "\n ]"
        for key, values in rows.items()
    ]
    (folder / STRUCTURE).write_text(head[:-2] + ",\n" + ",\n".join(lists) + "\n}\n")
    write_arrays(folder / ARRAYS, graph.arrays)


def load(folder: Path) -> LayerGraph:
    """What ``save`` wrote, verified; its arrays are memory maps (``gen.arrayfile``).

    Raises UserError if a file is missing, truncated or inconsistent.
    """
    path = folder / STRUCTURE
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise UserError(f"{path} has format {data['format']}; build it again")
        graph = LayerGraph(
            int(data["batch"]),
            str(data["input"]),
            str(data["output"]),
            {row["name"]: TensorInfo(**row) for row in data["tensors"]},
            {
                row["name"]: HostTensor(**{**row, "shape": tuple(row["shape"])})
                for row in data["host_tensors"]
            },
            [_layer(row) for row in data["layers"]],
            map_arrays(folder / ARRAYS),
        )
        verify_layers(graph)
        return graph
    except FileNotFoundError as error:
        missing = error.filename or folder / ARRAYS
        raise UserError(f"{missing} is missing; build it again") from error
    except (OSError, ValueError, KeyError, TypeError, GraphError) as error:
        raise UserError(f"{path} or {ARRAYS} is damaged ({error}); build it again") from error


def _layer_row(layer: Layer) -> dict[str, Any]:
    """A layer as JSON, without what has its default value."""
    row = asdict(layer)
    plain = asdict(Layer(layer.name, layer.sources, layer.dest, layer.weight))
    required = ("name", "sources", "dest", "weight")
    return {key: value for key, value in row.items() if key in required or value != plain[key]}


def _layer(row: dict[str, Any]) -> Layer:
    parts = dict(row)
    parts["sources"] = tuple(row["sources"])
    parts["weight"] = Weight(**row["weight"])
    if "read" in row:
        parts["read"] = Read(**row["read"])
    if "window" in row:
        window = dict(row["window"])
        window["kernel"] = tuple(window["kernel"])
        window["pad"] = tuple(window["pad"])
        window["crop"] = tuple(window["crop"])
        parts["window"] = Window(**window)
    return Layer(**parts)
