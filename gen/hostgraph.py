"""The host's share of a U-Net: what does not depend on the latent.

The time embedding and its projections are computed once per timestep, the prompt's keys and values
once per prompt, in torch float32, by interpreting the graph with the op table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from gen import graph as graphs
from gen.errors import UserError
from gen.graph import Graph, Node
from gen.layers import HostTensor
from gen.ops import OPS, Attrs
from gen.ops.base import Tensors, torch_dtype

CACHED_STEPS = 256
STEM = "host"
TIMESTEP = "timestep"
PROMPT = "encoder_hidden_states"

_Instruction = tuple[str, Callable[[Attrs, Tensors], torch.Tensor], Attrs, tuple[str, ...]]


@dataclass(frozen=True)
class HostOutput:
    """A value that the card reads: its name there, the node that computes it, its shape."""

    name: str
    node: str
    shape: tuple[int, ...]
    when: Literal["step", "prompt"]


class HostGraph:
    """Evaluates host values. Inputs are named as in the traced graph (``gen.trace.Traced``)."""

    def __init__(self, graph: Graph, outputs: list[HostOutput]) -> None:
        self.graph = graph
        self.outputs = outputs
        self._parameters = {
            node.name: graph.parameters[node.attrs["key"]]
            for node in graph.nodes
            if node.op == "parameter"
        }
        self._inputs: dict[str, list[Node]] = {}
        self._programs: dict[str, list[_Instruction]] = {}
        for when in ("step", "prompt"):
            part = self._needed(tuple(o.node for o in outputs if o.when == when))
            self._inputs[when] = [node for node in part if node.op == "input"]
            self._programs[when] = [
                (node.name, OPS[node.op].evaluate, node.attrs, node.inputs)
                for node in part
                if node.op not in ("input", "parameter")
            ]
        self._cache: OrderedDict[tuple[object, ...], dict[str, torch.Tensor]] = OrderedDict()

    def tensors(self) -> dict[str, HostTensor]:
        """What the layer graph calls these values."""
        return {o.name: HostTensor(o.name, o.shape, o.when) for o in self.outputs}

    @property
    def prompt_shape(self) -> tuple[int, int] | None:
        """Tokens, at most, and width of one prompt's embedding; None if there are no prompts."""
        for node in self.graph.inputs():
            if node.name == PROMPT:
                return node.shape[1], node.shape[2]
        return None

    def extra_inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape of one sample, dtype) of the inputs besides timestep and prompt, such as
        class labels.
        """
        return {
            node.name: (node.shape[1:], node.dtype)
            for node in self.graph.inputs()
            if node.name not in (TIMESTEP, PROMPT)
        }

    def evaluate_step(
        self, timestep: float, batch: int, extra: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Name -> float32 [batch, out]. ``extra`` holds inputs besides the timestep, such as
        class labels. Results are cached by timestep; do not write to them.

        Raises UserError for missing or misshapen inputs, or a batch that the graph was not
        traced for when it has inputs per item.
        """
        extra = extra or {}
        key = (float(timestep), batch, *((k, v.numpy().tobytes()) for k, v in extra.items()))
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        values = self._run("step", {TIMESTEP: torch.tensor(float(timestep)), **extra})
        for name, value in values.items():
            if value.shape[0] == batch:
                continue
            if extra:
                raise UserError(f"{name} was traced for a batch of {value.shape[0]}, not {batch}")
            values[name] = value[:1].expand(batch, *value.shape[1:])
        self._cache[key] = values
        if len(self._cache) > CACHED_STEPS:
            self._cache.popitem(last=False)
        return values

    def evaluate_prompt(
        self,
        encoder_hidden_states: torch.Tensor | None,
        extra: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Name -> float32 [batch, tokens, heads * head_dim] for prompt embeddings
        [batch, tokens, width] of at most as many tokens as the graph was traced for. Keys and
        values of a token depend on this token alone. Raises UserError for missing or misshapen
        inputs.
        """
        given = dict(extra or {})
        if encoder_hidden_states is None or self.prompt_shape is None:
            return self._run("prompt", given)
        most, tokens = self.prompt_shape[0], encoder_hidden_states.shape[-2]
        given[PROMPT] = F.pad(encoder_hidden_states, (0, 0, 0, max(0, most - tokens)))
        values = self._run("prompt", given)
        if tokens == most:
            return values
        return {
            name: value[:, :tokens] if value.ndim == 3 else value for name, value in values.items()
        }

    def save(self, folder: Path) -> None:
        """Write host.json and host.safetensors."""
        graphs.save(self.graph, folder, STEM, {"outputs": [asdict(o) for o in self.outputs]})

    @staticmethod
    def load(folder: Path) -> HostGraph:
        """What ``save`` wrote. Raises UserError for missing or damaged files."""
        graph, extra = graphs.load(folder, STEM)
        try:
            outputs = [
                HostOutput(o["name"], o["node"], tuple(o["shape"]), o["when"])
                for o in extra["outputs"]
            ]
            return HostGraph(graph, outputs)
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / STEM}.json is damaged; build it again") from error

    def _needed(self, outputs: tuple[str, ...]) -> list[Node]:
        """The nodes that ``outputs`` depend on, in order."""
        part = self.graph.pruned(self.graph.nodes, outputs)
        used = {name for node in part.nodes for name in node.inputs} | set(outputs)
        return [node for node in part.nodes if node.name in used]

    @torch.no_grad()
    def _run(self, when: str, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values = dict(self._parameters)
        for node in self._inputs[when]:
            values[node.name] = _input(node, given)
        for name, evaluate, attrs, inputs in self._programs[when]:
            values[name] = evaluate(attrs, [values[i] for i in inputs])
        return {o.name: values[o.node] for o in self.outputs if o.when == when}


def _input(node: Node, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    name, shape = node.name, node.shape
    if name not in given:
        raise UserError(f"this U-Net needs {name} {list(shape)}, which was not given")
    value = given[name]
    if tuple(value.shape) != shape:
        raise UserError(f"{name} has shape {list(value.shape)}; this build needs {list(shape)}")
    return value.to(device="cpu", dtype=torch_dtype(node.dtype))
