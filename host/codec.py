"""Between numbers and bytes: what the host computes around a run of the layer program."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from gen.hostgraph import HostGraph
from gen.hostints import prompt_weights, step_biases
from gen.program import DynamicBuffer, Program
from gen.qlayers import QGraph
from host.packing import LatentPacker, ResultReader

Bytes = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Patches = list[tuple[int, Bytes]]
# arrays [batch, ...] by name
Extra = Mapping[str, NDArray[np.generic]]
NO_EXTRA: Extra = MappingProxyType({})

# Timesteps whose biases are kept; a sampler takes the same ones for every picture.
STEPS_KEPT = 256


@dataclass(frozen=True)
class RankBuffers:
    """Buffers of one rank, sizes in bytes; ``weights`` is the static one, uint8.

    ``step_range`` and ``prompt_range``: (size, offset) of what changes in the dynamic buffer per
    step and per prompt.
    """

    weights: Bytes
    dynamic_bytes: int
    latent_bytes: int
    result_bytes: int
    step_range: tuple[int, int]
    prompt_range: tuple[int, int]


class Codec:
    """Encodes latents, timesteps and prompts for one layer program, and decodes its result.

    ``ranks`` says what buffers every rank has; the methods take one array for each of them.
    ``weights`` is the static buffer, uint8.
    """

    def __init__(
        self,
        program: Program,
        qgraph: QGraph,
        host: HostGraph,
        weights: Bytes,
    ) -> None:
        self._program, self._qgraph, self._host = program, qgraph, host
        self._dynamic = DynamicBuffer(program)
        self._steps: OrderedDict[tuple[object, ...], Patches] = OrderedDict()
        info = qgraph.graph.tensors[qgraph.graph.input]
        self.batch = program.batch
        self.latent_shape = (
            info.channels // qgraph.input_replicas,
            info.height,
            info.width,
        )
        self.prompt_shape = _prompt_shape(host)
        self.extra_inputs = host.extra_inputs()
        output = qgraph.graph.tensors[qgraph.graph.output]
        self.result_shape = (output.channels, output.height, output.width)
        self.clock_mhz = program.engine.clock_mhz
        self.ranks = (
            RankBuffers(
                weights=weights,
                dynamic_bytes=self._dynamic.data.nbytes,
                latent_bytes=program.input_rows * 64,
                result_bytes=program.output_rows * 64,
                step_range=_span([(e.word, e.words) for e in program.step_biases]),
                prompt_range=_span([(e.word, e.words) for e in program.host_weights]),
            ),
        )
        self._latent = LatentPacker(program, qgraph)
        self._result = ResultReader(program, qgraph)

    def write_step(
        self, dynamic: Sequence[Bytes], timesteps: tuple[float, ...], extra: Extra = NO_EXTRA
    ) -> None:
        """Write the biases of one timestep per sample into the ranks' dynamic buffers.

        ``extra``: what the U-Net takes besides (``extra_inputs``), arrays [batch, ...] by name.
        """
        key = (timesteps, *(value.tobytes() for value in extra.values()))
        patches = self._steps.get(key)
        if patches is None:
            values = self._host_step(timesteps, _tensors(extra))
            ranges = self._dynamic.set_step(step_biases(self._qgraph, values))
            patches = [(at, self._dynamic.data[at : at + size].copy()) for at, size in ranges]
            self._steps[key] = patches
            if len(self._steps) > STEPS_KEPT:
                self._steps.popitem(last=False)
        for at, data in patches:
            dynamic[0][at : at + data.size] = data

    def _host_step(
        self, timesteps: tuple[float, ...], extra: dict[str, torch.Tensor]
    ) -> dict[str, Float32]:
        """Host tensors of one timestep per sample."""
        values = {
            each: _arrays(self._host.evaluate_step(each, self.batch, extra))
            for each in dict.fromkeys(timesteps)
        }
        if len(values) == 1:
            return values[timesteps[0]]
        return {
            name: np.stack([values[each][name][item] for item, each in enumerate(timesteps)])
            for name in values[timesteps[0]]
        }

    def write_prompt(
        self, dynamic: Sequence[Bytes], prompt: Float32, extra: Extra = NO_EXTRA
    ) -> None:
        """Write the keys and values of a prompt [batch, tokens, width] into the ranks' dynamic
        buffers.
        """
        embedding = torch.from_numpy(prompt)
        values = _arrays(self._host.evaluate_prompt(embedding, _tensors(extra)))
        for at, size in self._dynamic.set_prompt(prompt_weights(self._qgraph, values)):
            dynamic[0][at : at + size] = self._dynamic.data[at : at + size]

    def write_latent(self, buffers: Sequence[Bytes], latent: Float32) -> None:
        """Write the latent [batch, channels, height, width] into the ranks' latent buffers."""
        self._latent.write(buffers[0], latent)

    def read_result(self, buffers: Sequence[Bytes]) -> Float32:
        """The noise prediction, new float32 [batch, channels, height, width]."""
        return self._result.read(buffers[0])


def _span(words: list[tuple[int, int]]) -> tuple[int, int]:
    """(size, offset) in bytes of the smallest range over all (first word, words)."""
    first = min((start for start, _ in words), default=0)
    end = max((start + count for start, count in words), default=0)
    return (end - first) * 64, first * 64


def _prompt_shape(host: HostGraph) -> tuple[int, int] | None:
    """(tokens, width) of one prompt's embedding, or None."""
    for node in host.graph.inputs():
        if node.name == "encoder_hidden_states":
            _, tokens, width = node.shape
            return tokens, width
    return None


def _tensors(extra: Extra) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in extra.items()}


def _arrays(values: dict[str, torch.Tensor]) -> dict[str, Float32]:
    return {name: value.numpy() for name, value in values.items()}
