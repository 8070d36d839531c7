"""The typed graph of a traced U-Net, its files and its verifier.

A node has one result. Inputs and parameters are nodes too (ops ``input`` and ``parameter``);
arrays are kept apart, by key, in ``Graph.parameters``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gen.errors import UserError
from gen.ops import OPS, Attr, OpError, TensorType

FORMAT = 1


class GraphError(Exception):
    """A graph that breaks a rule: a fault of the generator, or of a file it was loaded from."""


@dataclass(frozen=True)
class Node:
    """One op. ``path`` is the module it came from, "" for none; ``inputs`` are node names."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Attr]
    shape: tuple[int, ...]
    dtype: str
    path: str = ""

    @property
    def type(self) -> TensorType:
        """Shape and dtype of the result."""
        return TensorType(self.shape, self.dtype)

    @property
    def where(self) -> str:
        """What to call this node in a message."""
        return self.path or self.name


@dataclass
class Graph:
    """Nodes in execution order, the names of its outputs, and arrays by key."""

    nodes: list[Node]
    outputs: tuple[str, ...]
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)

    def by_name(self) -> dict[str, Node]:
        """Name -> node."""
        return {node.name: node for node in self.nodes}

    def uses(self) -> dict[str, list[Node]]:
        """Name -> the nodes that read it (once per reader)."""
        uses: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                uses[name].append(node)
        return uses

    def inputs(self) -> list[Node]:
        """The input nodes."""
        return [node for node in self.nodes if node.op == "input"]

    def pruned(self, nodes: Iterable[Node], outputs: tuple[str, ...] | None = None) -> Graph:
        """A graph of those ``nodes`` that the outputs depend on (and all inputs), with the
        arrays that they name.
        """
        ordered = list(nodes)
        wanted = set(self.outputs if outputs is None else outputs)
        kept: list[Node] = []
        for node in reversed(ordered):
            if node.name in wanted or node.op == "input":
                kept.append(node)
                wanted.update(node.inputs)
        kept.reverse()
        keys = {node.attrs["key"] for node in kept if node.op == "parameter"}
        arrays = {key: value for key, value in self.parameters.items() if key in keys}
        return Graph(kept, self.outputs if outputs is None else outputs, arrays)

    def macs(self) -> int:
        """Multiply-accumulates of one evaluation."""
        types = {node.name: node.type for node in self.nodes}
        return sum(
            OPS[n.op].macs(n.attrs, [types[i] for i in n.inputs], n.type) for n in self.nodes
        )


def verify(graph: Graph) -> None:
    """Check order, known ops, arity, shapes, dtypes, parameters and that nothing dangles.

    Raises GraphError that names the node.
    """
    types: dict[str, TensorType] = {}
    used: set[str] = set(graph.outputs)
    for node in graph.nodes:
        label = f"{node.where}: {node.op} {node.name}"
        if node.name in types:
            raise GraphError(f"{label} is defined twice")
        op = OPS.get(node.op)
        if op is None:
            raise GraphError(f"{label} is not in the op table")
        low, high = op.arity
        if len(node.inputs) < low or (high >= 0 and len(node.inputs) > high):
            raise GraphError(f"{label} has {len(node.inputs)} inputs")
        for name in node.inputs:
            if name not in types:
                raise GraphError(f"{label} reads {name} before it is computed")
        try:
            inferred = op.infer(node.attrs, [types[name] for name in node.inputs])
        except (OpError, KeyError, TypeError, ValueError, IndexError) as error:
            raise GraphError(f"{label} does not fit its inputs: {error}") from error
        if inferred != node.type:
            raise GraphError(
                f"{label} should give {inferred.shape} {inferred.dtype}, "
                f"not {node.shape} {node.dtype}"
            )
        if node.op == "parameter":
            _verify_parameter(graph, node, label)
        types[node.name] = node.type
        used.update(node.inputs)
    for name in graph.outputs:
        if name not in types:
            raise GraphError(f"output {name} is not computed")
    for node in graph.nodes:
        if node.name not in used and node.op != "input":
            raise GraphError(f"{node.where}: {node.op} {node.name} is never used")


def _verify_parameter(graph: Graph, node: Node, label: str) -> None:
    array = graph.parameters.get(node.attrs["key"])
    if array is None:
        raise GraphError(f"{label} names no array")
    if tuple(array.shape) != node.shape or str(array.dtype) != f"torch.{node.dtype}":
        raise GraphError(f"{label} is {tuple(array.shape)} {array.dtype} in the array file")


def save(graph: Graph, folder: Path, stem: str, extra: dict[str, Any] | None = None) -> None:
    """Write ``stem``.json (nodes, outputs and ``extra``) and ``stem``.safetensors (arrays)."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = ",\n  ".join(json.dumps(asdict(node)) for node in graph.nodes)
    head = {"format": FORMAT, "outputs": list(graph.outputs), "extra": extra or {}}
    text = json.dumps(head, indent=1)[:-2] + f',\n "nodes": [\n  {nodes}\n ]\n}}\n'
    (folder / f"{stem}.json").write_text(text)
    arrays = {key: value.contiguous() for key, value in graph.parameters.items()}
    save_file(arrays, folder / f"{stem}.safetensors")


def load(folder: Path, stem: str) -> tuple[Graph, dict[str, Any]]:
    """What ``save`` wrote: the graph, verified, and ``extra``.

    Raises UserError for missing, truncated or altered files.
    """
    path = folder / f"{stem}.json"
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise UserError(f"{path} has format {data['format']}; build it again")
        nodes = [
            Node(
                n["name"],
                n["op"],
                tuple(n["inputs"]),
                n["attrs"],
                tuple(n["shape"]),
                n["dtype"],
                n["path"],
            )
            for n in data["nodes"]
        ]
        arrays = load_file(folder / f"{stem}.safetensors")
        graph = Graph(nodes, tuple(data["outputs"]), arrays)
        verify(graph)
        return graph, dict(data["extra"])
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or path} is missing; build it again") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, GraphError) as error:
        raise UserError(f"{path} is damaged ({error}); build it again") from error
