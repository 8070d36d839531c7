"""Safetensors files written array by array and read as memory maps.

A model's arrays can be as large as a third of a machine's memory. The safetensors library writes
from a second copy of all of them and reads into one; here an array is copied at most once, and a
mapped one costs memory only while it is in use. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Array = NDArray[Any]

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}


def write_arrays(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``arrays`` by name to ``path``, which is complete or not there.

    Raises ValueError for a dtype that has no safetensors name.
    """
    # wide elements first, so that every array is aligned to its own
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in names:
        array = arrays[name]
        if array.dtype.name not in _NAMES:
            raise ValueError(f"{name} is {array.dtype}, which an array file cannot hold")
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    scratch.replace(path)


def map_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file as memory maps, private to this process when written to.

    Raises SafetensorError or ValueError for a damaged file, OSError for a missing one.
    """
    with path.open("rb") as file:
        try:
            with safe_open(path, "np"):
                pass  # checks the header, and that it covers the file without gaps
        except SafetensorError as error:
            raise ValueError(f"{path.name}: {error}") from error
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = np.frombuffer(whole, np.uint8)
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path.name}: {name} is {entry['dtype']}")
        first, last = (8 + size + at for at in entry["data_offsets"])
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        if first % dtype.itemsize:
            # other writers do not align; such an array is copied
            values = np.frombuffer(data[first:last].tobytes(), dtype).copy()
        else:
            values = data[first:last].view(dtype)
        arrays[name] = values.reshape(shape)
    return arrays


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file. Raises ValueError for a damaged file, OSError for a missing one."""
    try:
        with safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error
