"""From a diffusers U-Net to a typed graph, by torch.export.

Nothing here knows a diffusers block: the graph comes out of ATen nodes and the op table alone.
"""

from __future__ import annotations

import copy
import logging
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node as FxNode

from gen import graph as graphs
from gen.errors import UserError
from gen.graph import Graph, Node
from gen.ops import BY_ATEN, TensorType
from gen.ops.base import dtype_name
from gen.trace_inputs import example_inputs

# arguments that change where or how a tensor lies in memory, or nothing at all
IGNORED = frozenset(
    (
        "device",
        "layout",
        "pin_memory",
        "memory_format",
        "non_blocking",
        "copy",
        "cudnn_enabled",
        "cudnn_enable",
        "implicit",
    )
)
# calls without a result that only assert what the trace already knows
ASSERTIONS = frozenset(("aten._assert_tensor_metadata.default", "aten._assert_scalar.default"))
SPLITS = frozenset(
    ("aten.chunk.default", "aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default")
)


@dataclass
class Traced:
    """A U-Net as a typed graph for one fixed batch and size.

    Inputs are named as the U-Net's own arguments; nested ones are joined by an underscore
    (``added_cond_kwargs_text_embeds``). ``tokens`` is 0 for a U-Net without a prompt. Arrays share
    the memory of the U-Net's float32 weights.
    """

    graph: Graph
    batch: int
    height: int
    width: int
    tokens: int

    def save(self, folder: Path) -> None:
        """Write trace.json and trace.safetensors."""
        extra = {k: getattr(self, k) for k in ("batch", "height", "width", "tokens")}
        graphs.save(self.graph, folder, "trace", extra)

    @staticmethod
    def load(folder: Path) -> Traced:
        """What ``save`` wrote. Raises UserError for missing or damaged files."""
        graph, extra = graphs.load(folder, "trace")
        return Traced(graph, *(int(extra[k]) for k in ("batch", "height", "width", "tokens")))


def trace_unet(
    unet: torch.nn.Module, *, batch: int, height: int, width: int, tokens: int = 0
) -> Traced:
    """Trace a ``UNet2DConditionModel`` or ``UNet2DModel``, with weights or on the meta device.

    ``batch`` counts latents (2 for guidance), ``height`` and ``width`` are in latent pixels,
    ``tokens`` in prompt tokens. The timestep input is a scalar, float32 (int64 where it indexes a
    learned table). Raises UserError for configurations or ops that are not supported, naming the
    module path.
    """
    shadow = _without_values(unet)
    args, kwargs = example_inputs(shadow, batch, height, width, tokens)
    chatty = logging.getLogger("torch.export")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with torch.no_grad():
            program = torch.export.export(shadow, args, kwargs, strict=False)
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"torch.export cannot trace {type(unet).__name__} for a {height}x{width} latent: "
            f"{lines[0]}"
        ) from error
    finally:
        chatty.setLevel(level)
    graph = _Converter(program, _values(unet)).graph()
    graphs.verify(graph)
    if not any(node.name == "sample" for node in graph.inputs()):
        raise UserError(f"{type(unet).__name__} does not take a sample; is it a U-Net?")
    return Traced(graph, batch, height, width, tokens)


def _values(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, tied ones under every name."""
    return {
        **dict(unet.named_parameters(remove_duplicate=False)),
        **dict(unet.named_buffers(remove_duplicate=False)),
    }


def _without_values(unet: torch.nn.Module) -> torch.nn.Module:
    """A copy in eval mode whose weights are float32 on the meta device: tracing takes no memory
    and computes nothing.
    """
    memo: dict[int, Any] = {}
    for value in _values(unet).values():
        dtype = torch.float32 if value.dtype.is_floating_point else value.dtype
        empty = torch.empty_like(value, dtype=dtype, device="meta")
        if isinstance(value, torch.nn.Parameter):
            empty = torch.nn.Parameter(empty, requires_grad=False)
        memo[id(value)] = empty
    return copy.deepcopy(unet, memo).eval()


class _Converter:
    """Turns an exported program into a graph, node by node; ``values`` are its arrays."""

    def __init__(
        self, program: torch.export.ExportedProgram, values: dict[str, torch.Tensor]
    ) -> None:
        self.program = program
        self.values = values
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self.parameters: dict[str, torch.Tensor] = {}
        self.places: set[int] = set()  # addresses of the arrays
        # results of chunk and split: fx name -> slices
        self.pieces: dict[str, list[str]] = {}

    def graph(self) -> Graph:
        outputs: list[str] = []
        for fx in self.program.graph.nodes:
            if fx.op == "placeholder":
                self._placeholder(fx)
            elif fx.op == "call_function":
                self._call(fx)
            elif fx.op == "output":
                outputs = [n.name for n in fx.args[0] if isinstance(n, FxNode)]
        whole = Graph(self.nodes, tuple(outputs), self.parameters)
        return whole.pruned(whole.nodes)

    def _add(self, node: Node) -> None:
        self.nodes.append(node)
        self.types[node.name] = node.type

    def _placeholder(self, fx: FxNode) -> None:
        signature = self.program.graph_signature
        value = fx.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return  # a flag such as return_dict
        kind = _type(value)
        key = (
            signature.inputs_to_parameters.get(fx.name)
            or signature.inputs_to_buffers.get(fx.name)
            or signature.inputs_to_lifted_tensor_constants.get(fx.name)
        )
        attrs: dict[str, Any] = {"shape": list(kind.shape), "dtype": kind.dtype}
        if key is None:
            self._add(Node(fx.name, "input", (), attrs, kind.shape, kind.dtype))
            return
        array = self.values.get(key, self.program.constants.get(key))
        assert isinstance(array, torch.Tensor), key
        array = array.detach()
        if not array.is_meta:
            array = array.to("cpu", getattr(torch, kind.dtype))
            # tied weights must not share memory in the array file
            array = array.clone() if array.data_ptr() in self.places else array
            self.places.add(array.data_ptr())
        self.parameters[key] = array
        attrs["key"] = key
        self._add(Node(fx.name, "parameter", (), attrs, kind.shape, kind.dtype))

    def _call(self, fx: FxNode) -> None:
        target, path = str(fx.target), _module_path(fx)
        if target in ASSERTIONS:
            return
        if fx.target is operator.getitem:
            source, index = fx.args
            assert isinstance(source, FxNode) and isinstance(index, int)
            if source.name not in self.pieces:
                raise UserError(f"{path}: results of {source.target} are not supported")
            self._alias(fx, self.pieces[source.name][index])
            return
        row = BY_ATEN.get(target)
        if row is None and target not in SPLITS:
            raise UserError(
                f"{path or 'the U-Net'}: {target.rpartition('.')[0] or target} is not supported; "
                f"add a row to gen/ops or choose a model without it"
            )
        inputs, arguments = self._arguments(fx, path)
        if row is None:
            self._split(fx, inputs[0], arguments, path)
            return
        extra = {
            name: value
            for name, (value, default) in arguments.items()
            if name not in row.attrs and name not in IGNORED and value != default
        }
        if extra:
            listed = ", ".join(f"{k}={v}" for k, v in extra.items())
            raise UserError(f"{path}: {target} with {listed} is not supported")
        kind = _type(fx.meta["val"])
        types = [self.types[name] for name in inputs]
        attrs = {k: _plain(v) for k, (v, _) in arguments.items() if k in row.attrs}
        attrs = row.canonical(attrs, types, kind)
        self._add(Node(fx.name, row.name, tuple(inputs), attrs, kind.shape, kind.dtype, path))

    def _arguments(self, fx: FxNode, path: str) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
        """Names of the tensor inputs, and the other arguments as name -> (value, default)."""
        assert isinstance(fx.target, torch._ops.OpOverload)
        inputs: list[str] = []
        others: dict[str, tuple[Any, Any]] = {}
        absent = ""
        for position, argument in enumerate(fx.target._schema.arguments):
            name, default = argument.name, argument.default_value
            given = position < len(fx.args) or name in fx.kwargs
            value: Any = default
            if given:
                value = fx.args[position] if position < len(fx.args) else fx.kwargs[name]
            tensors = [value] if isinstance(value, FxNode) else value
            if isinstance(tensors, (list, tuple)) and any(isinstance(v, FxNode) for v in tensors):
                if absent:
                    raise UserError(f"{path}: {fx.target} without {absent} is not supported")
                for v in tensors:
                    assert isinstance(v, FxNode)
                    inputs.append(v.name)
            elif "Tensor" in str(argument.type) and value is None:
                absent = name
            else:
                others[name] = (value, default)
        return inputs, others

    def _split(
        self, fx: FxNode, source: str, arguments: dict[str, tuple[Any, Any]], path: str
    ) -> None:
        """Make slices of chunk and split, so that every node has one result."""
        shape = self.types[source].shape
        dim = arguments["dim"][0] % len(shape)
        self.pieces[fx.name] = []
        start = 0
        for index, piece in enumerate(fx.meta["val"]):
            kind = _type(piece)
            end = start + kind.shape[dim]
            attrs = {"dim": dim, "start": start, "end": end, "step": 1}
            name = f"{fx.name}_piece{index}"
            self._add(Node(name, "slice", (source,), attrs, kind.shape, kind.dtype, path))
            self.pieces[fx.name].append(name)
            start = end

    def _alias(self, fx: FxNode, source: str) -> None:
        kind = self.types[source]
        self._add(
            Node(fx.name, "identity", (source,), {}, kind.shape, kind.dtype, _module_path(fx))
        )


def _module_path(fx: FxNode) -> str:
    stack = fx.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def _type(value: torch.Tensor) -> TensorType:
    return TensorType(tuple(int(s) for s in value.shape), dtype_name(value.dtype))


def _plain(value: Any) -> Any:
    """An ATen argument as JSON holds it."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
