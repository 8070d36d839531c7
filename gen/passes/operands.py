"""What a value of the card's graph is while layers are being formed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gen.errors import UserError
from gen.graph import Graph, Node
from gen.layers import Layer, Read, TensorInfo
from gen.passes.layout import Layout


@dataclass(frozen=True)
class Operand:
    """One or two stored tensors and what happens to them while a layer reads them.

    ``versions`` counts the additions that each tensor had carried when this value was taken.
    ``height`` and ``width`` are after up-sampling and cropping.
    """

    sources: tuple[str, ...]
    versions: tuple[int, ...]
    layout: Layout
    channels: int
    height: int
    width: int
    read: Read = field(default_factory=Read)
    upsample: int = 1
    crop: tuple[int, int] = (0, 0)

    @property
    def plain(self) -> bool:
        """True for one stored tensor, read as it is."""
        return len(self.sources) == 1 and self.read == Read() and self.upsample == 1


@dataclass(frozen=True)
class HostValue:
    """A value that the host computes, possibly under another view."""

    name: str
    shape: tuple[int, ...]
    layout: Layout


Value = Operand | HostValue


class Builder:
    """Layers, tensors and arrays so far, and the value of every node."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph = graph
        self.batch = batch
        self.nodes = graph.by_name()
        self.values: dict[str, Value] = {}
        self.layers: list[Layer] = []
        self.tensors: dict[str, TensorInfo] = {}
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self._versions: dict[str, int] = {}
        self._read: set[str] = set()

    def operand(self, name: str, node: Node) -> Operand:
        """The card's value ``name``, which ``node`` reads."""
        value = self.values.get(name)
        if not isinstance(value, Operand):
            source = self.nodes[name]
            raise UserError(
                f"{node.where}: {node.op} of {source.op} {source.where} is not supported"
            )
        return value

    def touch(self, value: Operand, node: Node) -> Operand:
        """Note that a layer reads ``value``. Raises UserError if it has been overwritten since."""
        for name, version in zip(value.sources, value.versions, strict=True):
            if self._versions[name] != version:
                raise UserError(f"{node.where}: reads {name} as it was before an addition to it")
            self._read.add(name)
        return value

    def is_read(self, tensor: str) -> bool:
        """Whether a layer reads ``tensor`` already."""
        return tensor in self._read

    def store(self, tensor: TensorInfo, layout: Layout) -> Operand:
        """A new stored tensor as a value."""
        self.tensors[tensor.name] = tensor
        self._versions[tensor.name] = 0
        return Operand((tensor.name,), (0,), layout, tensor.channels, tensor.height, tensor.width)

    def rewrite(self, value: Operand, layer: int, changed: Layer) -> Operand:
        """Replace the layer that stores ``value`` by one that writes something else."""
        (name,) = value.sources
        self.layers[layer] = changed
        self._versions[name] += 1
        return replace(value, versions=(self._versions[name],))

    def is_current(self, value: Operand) -> bool:
        """Whether every tensor of ``value`` still holds what it held when the value was taken."""
        return all(
            self._versions[name] == version
            for name, version in zip(value.sources, value.versions, strict=True)
        )

    def writer(self, tensor: str) -> int:
        """Index of the layer that stores ``tensor``, -1 for the input."""
        return next((i for i, layer in enumerate(self.layers) if layer.dest == tensor), -1)

    def unique(self, node: Node, suffix: str = "") -> str:
        """A layer name from the node's module path."""
        name = node.where + suffix
        if any(layer.name == name for layer in self.layers):
            return f"{node.where}.{node.name}{suffix}"
        return name

    def parameter(self, name: str, node: Node) -> tuple[str, torch.Tensor]:
        """Key and array of the parameter ``name``, which ``node`` reads."""
        source = self.nodes[name]
        if source.op != "parameter":
            raise UserError(
                f"{node.where}: {node.op} by {source.op} {source.where} is not supported"
            )
        key = str(source.attrs["key"])
        return key, self.graph.parameters[key]

    def keep_array(self, key: str, array: torch.Tensor, shape: tuple[int, ...]) -> str:
        """Store a parameter as float32 of ``shape``; meta tensors become zeros."""
        if array.is_meta:
            self.arrays[key] = np.broadcast_to(np.float32(0), shape)
        else:
            values = array.detach().to("cpu", torch.float32).reshape(shape)
            self.arrays[key] = np.ascontiguousarray(values.numpy())
        return key
