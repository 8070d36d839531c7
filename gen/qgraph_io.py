"""Store and load integer layer graphs: ``quant.json`` (structure) and ``quant.safetensors``.

The JSON is meant to be read by people; arrays are named ``layer name/field`` in the other file.
Float weights are not part of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from gen.arrayfile import map_arrays, write_arrays
from gen.errors import UserError
from gen.layers import HostTensor, Layer, LayerGraph, TensorInfo
from gen.qgraph_check import check_qgraph
from gen.qlayers import QGraph, QLayer, QRead, QTensor

JSON_NAME = "quant.json"
ARRAYS_NAME = "quant.safetensors"
VERSION = 2

Arrays = dict[str, NDArray[Any]]
_READ_ARRAYS = {"gamma": np.int32, "beta": np.int64, "table": np.int8, "affine": np.float64}
_LAYER_ARRAYS = {
    "weight": np.int8,
    "bias": np.int32,
    "mult": np.int32,
    "shift": np.int32,
    "acc_scale": np.float64,
    "correction": np.int64,
    "gate_table": np.int16,
}
_OPTIONAL = {"table", "weight", "gate_table", "affine"}


def save_qgraph(qgraph: QGraph, folder: Path) -> None:
    """Write both files of ``qgraph`` into ``folder``, which exists."""
    check_qgraph(qgraph)
    arrays: Arrays = {}
    layers = []
    for qlayer in qgraph.layers:
        name = qlayer.layer.name
        for field, dtype in _LAYER_ARRAYS.items():
            _put(arrays, f"{name}/{field}", getattr(qlayer, field), dtype)
        for field, dtype in _READ_ARRAYS.items():
            _put(arrays, f"{name}/read.{field}", getattr(qlayer.read, field), dtype)
        layers.append(
            {
                "layer": asdict(qlayer.layer),
                "read_shift": qlayer.read.shift,
                "align": qlayer.read.align,
                "eps": qlayer.read.eps,
                "pad": qlayer.read.pad,
                "residual_shift": qlayer.residual_shift,
                "gate_shift": qlayer.gate_shift,
                "host_weight_scale": qlayer.host_weight_scale,
                "weight_bits": qlayer.weight_bits,
            }
        )
    graph = qgraph.graph
    document = {
        "version": VERSION,
        "batch": graph.batch,
        "input": graph.input,
        "output": graph.output,
        "input_replicas": qgraph.input_replicas,
        "meta": qgraph.meta,
        "tensors": {
            n: {**asdict(t), **asdict(qgraph.tensors[n])} for n, t in graph.tensors.items()
        },
        "host_tensors": {n: asdict(t) for n, t in graph.host_tensors.items()},
        "layers": layers,
    }
    write_arrays(folder / ARRAYS_NAME, arrays)
    (folder / JSON_NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_qgraph(folder: Path) -> QGraph:
    """Read what :func:`save_qgraph` wrote; its arrays are memory maps.

    Raises UserError where it is not that.
    """
    try:
        document = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        arrays = map_arrays(folder / ARRAYS_NAME)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']} instead of {VERSION}")
        qgraph = _assemble(document, arrays)
        check_qgraph(qgraph)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; quantise the model again") from error
    except (
        AttributeError,
        KeyError,
        OSError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{folder / JSON_NAME} and {ARRAYS_NAME} are not an intact integer graph ({error}); "
            "quantise the model again"
        ) from error
    return qgraph


def _assemble(document: dict[str, Any], arrays: Arrays) -> QGraph:
    infos, formats = {}, {}
    for name, entry in document["tensors"].items():
        own = {f.name for f in fields(QTensor)}
        formats[name] = _build(QTensor, {k: v for k, v in entry.items() if k in own})
        infos[name] = _build(TensorInfo, {k: v for k, v in entry.items() if k not in own})
    host = {n: _build(HostTensor, t) for n, t in document["host_tensors"].items()}
    layers = [_assemble_layer(entry, arrays) for entry in document["layers"]]
    graph = LayerGraph(
        batch=_value(int, document["batch"]),
        input=_value(str, document["input"]),
        output=_value(str, document["output"]),
        tensors=infos,
        host_tensors=host,
        layers=[q.layer for q in layers],
        arrays={},
    )
    replicas = _value(int, document["input_replicas"])
    return QGraph(graph, formats, layers, replicas, dict(document["meta"]))


def _assemble_layer(entry: dict[str, Any], arrays: Arrays) -> QLayer:
    layer: Layer = _build(Layer, entry["layer"])
    own = {f: _take(arrays, layer.name, f, f, t) for f, t in _LAYER_ARRAYS.items()}
    reading = {f: _take(arrays, layer.name, f"read.{f}", f, t) for f, t in _READ_ARRAYS.items()}
    read = QRead(
        shift=_value(int, entry["read_shift"]),
        align=_value(tuple[int, ...], entry["align"]),
        eps=_value(int, entry["eps"]),
        pad=_value(int, entry["pad"]),
        **reading,
    )
    return QLayer(
        layer=layer,
        read=read,
        residual_shift=_value(int, entry["residual_shift"]),
        gate_shift=_value(int, entry["gate_shift"]),
        host_weight_scale=_value(float, entry["host_weight_scale"]),
        weight_bits=_value(int, entry["weight_bits"]),
        **own,
    )


def _put(arrays: Arrays, key: str, value: NDArray[Any] | None, dtype: Any) -> None:
    if value is not None:
        arrays[key] = np.asarray(value, dtype=dtype)


def _take(arrays: Arrays, layer: str, key: str, field: str, dtype: Any) -> Any:
    value = arrays.get(f"{layer}/{key}")
    if value is None:
        if field in _OPTIONAL:
            return None
        raise ValueError(f"{layer} has no {key}")
    if value.dtype != dtype:
        raise ValueError(f"{layer}/{key} is {value.dtype}")
    return value


def _build(kind: Any, entry: dict[str, Any]) -> Any:
    """A dataclass of type ``kind`` from a JSON object with exactly its fields."""
    hints = get_type_hints(kind)
    if set(entry) != set(hints):
        raise ValueError(f"{kind.__name__} has fields {sorted(entry)}")
    return kind(**{name: _value(hints[name], value) for name, value in entry.items()})


def _value(hint: Any, value: Any) -> Any:
    """``value`` from JSON as the type ``hint``; ValueError if it is another one."""
    origin = get_origin(hint)
    if is_dataclass(hint):
        return _build(hint, value)
    if origin is tuple:
        kinds = get_args(hint)
        count = len(value) if kinds[-1] is Ellipsis else len(kinds)
        if not isinstance(value, list | tuple) or len(value) != count:
            raise ValueError(f"{value!r} is not {hint}")
        return tuple(_value(kinds[0], v) for v in value)
    if origin in (Union, UnionType):
        return None if value is None else _value(get_args(hint)[0], value)
    if origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{value!r} is not one of {get_args(hint)}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{value!r} is not {hint.__name__}")
    return value
