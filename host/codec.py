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
from gen.hostints import prompt_weights, step_affines, step_biases
from gen.program import DynamicBuffer, Program
from gen.program.layout import ROW, WORD
from gen.program.program import HostWeight, StepAffine, StepBias
from gen.program.sampler import (
    lane_words,
    latent_buffers,
    latent_words,
    result_state,
    result_words,
    samples,
)
from gen.qlayers import QGraph
from gen.reference.sampler import Coefficients, Int32
from host.packing import LatentPacker, ResultReader
from host.settings import MAX_STEPS

Bytes = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Range = tuple[int, int]
# arrays [batch, ...] by name
Extra = Mapping[str, NDArray[np.generic]]
NO_EXTRA: Extra = MappingProxyType({})

# Timesteps whose biases are kept; a sampler takes the same ones for every picture.
STEPS_KEPT = 256


@dataclass(frozen=True)
class RankBuffers:
    """Buffers of one rank, sizes in bytes; ``weights`` is the static one, uint8.

    ``latent`` and ``result`` say whether values of them lie on this rank; if not, the buffer exists
    but holds padding only. ``spill`` is scratch memory of a program with moves. ``latent_room`` and
    ``result_room``: what the buffers have room for, where starts of several steps take more than
    one step.
    """

    weights: Bytes
    dynamic_bytes: int
    latent_bytes: int
    result_bytes: int
    latent: bool = True
    result: bool = True
    spill_bytes: int = 0
    latent_room: int = 0
    result_room: int = 0


@dataclass(frozen=True)
class SamplerFormat:
    """Latents of a start of several steps: ``samples`` of them; where ``partner`` is not 0, item
    s + partner is the other one of sample s in a guided pair. Values of one unit of the input and
    of the result.
    """

    samples: int
    partner: int
    input_scale: float
    result_scale: float
    replicas: int


class Codec:
    """Encodes latents, timesteps and prompts for one layer program, and decodes its result.

    ``ranks`` says what buffers every rank has; the methods take one array for each of them.
    ``step_range`` and ``prompt_range`` are (size, offset) in bytes of what changes per step and per
    prompt in every rank's dynamic buffer; what later steps of a start have of their own follows
    behind the former. ``weights`` is the static buffer, uint8, one rank's after the other.
    ``sampler`` describes the latents of linear samplers; ``several``: the card updates them itself.
    """

    def __init__(
        self,
        program: Program,
        qgraph: QGraph,
        host: HostGraph,
        weights: Bytes,
    ) -> None:
        self._program, self._qgraph, self._host = program, qgraph, host
        self._dynamic = DynamicBuffer(program, qgraph)
        self._steps: OrderedDict[tuple[object, ...], Bytes] = OrderedDict()
        info = qgraph.graph.tensors[qgraph.graph.input]
        self.batch = program.batch
        self.latent_shape = (
            info.channels // qgraph.input_replicas,
            info.height,
            info.width,
        )
        self.prompt_shape = host.prompt_shape
        self.extra_inputs = host.extra_inputs()
        output = qgraph.graph.tensors[qgraph.graph.output]
        self.result_shape = (output.channels, output.height, output.width)
        self.clock_mhz = program.engine.clock_mhz
        self._latent = LatentPacker(program, qgraph)
        self._result = ResultReader(program, qgraph)
        self.step_range = _span([*program.step_biases, *program.step_affines])
        self.prompt_range = _span(program.host_weights)
        count, partner = samples(qgraph.graph)
        self.sampler = SamplerFormat(
            count,
            partner,
            qgraph.tensors[qgraph.graph.input].scale,
            qgraph.tensors[qgraph.graph.output].scale,
            qgraph.input_replicas,
        )
        self.several = program.has_sampler
        self._lanes = [lane_words(program, qgraph, rank) for rank in range(program.ranks)]
        room = self.start_bytes(MAX_STEPS if self.several else 1)
        self.ranks = tuple(
            RankBuffers(
                weights=of_rank,
                dynamic_bytes=self._dynamic.data[rank].nbytes,
                latent_bytes=program.input_rows * ROW,
                result_bytes=program.output_rows * ROW,
                latent=rank in self._latent.ranks,
                result=rank in self._result.ranks,
                spill_bytes=program.spill_rows * ROW,
                latent_room=room[0],
                result_room=room[1],
            )
            for rank, of_rank in enumerate(weights.reshape(program.ranks, -1))
        )

    def start_bytes(self, steps: int) -> tuple[int, int]:
        """Bytes of latent and result of every rank in a start of so many steps."""
        return (
            latent_words(self._program, steps) * WORD,
            result_words(self._program, steps) * WORD,
        )

    def write_step(
        self,
        dynamic: Sequence[Bytes],
        timesteps: tuple[float, ...],
        extra: Extra = NO_EXTRA,
        step: int = 0,
    ) -> None:
        """Write what one timestep per sample changes into the ranks' dynamic buffers.

        ``extra``: what the U-Net takes besides (``extra_inputs``), arrays [batch, ...] by name.
        ``step``: of a start, which one has these timesteps.
        """
        key = (timesteps, *(value.tobytes() for value in extra.values()))
        kept = self._steps.get(key)
        if kept is None:
            values = self._host_step(timesteps, _tensors(extra))
            self._dynamic.set_step(step_biases(self._qgraph, values))
            self._dynamic.set_affine(step_affines(self._qgraph, values))
            kept = self._part(self.step_range).copy()
            self._steps[key] = kept
            if len(self._steps) > STEPS_KEPT:
                self._steps.popitem(last=False)
        size, offset = self.step_range
        _write(dynamic, kept, (size, offset + step * size))

    def _part(self, of: Range) -> Bytes:
        """A range of all dynamic buffers, [ranks, bytes]."""
        size, offset = of
        return self._dynamic.data[:, offset : offset + size]

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
        """Write the keys and values of a prompt [batch, tokens, width], which may have fewer tokens
        than ``prompt_shape`` says, into the ranks' dynamic buffers.
        """
        embedding = torch.from_numpy(prompt)
        values = _arrays(self._host.evaluate_prompt(embedding, _tensors(extra)))
        self._dynamic.set_prompt(prompt_weights(self._qgraph, values))
        _write(dynamic, self._part(self.prompt_range), self.prompt_range)

    def write_latent(self, buffers: Sequence[Bytes], latent: Float32) -> None:
        """Write the latent [batch, channels, height, width] into the ranks' latent buffers."""
        self._latent.write(buffers, latent)

    def write_start(
        self, buffers: Sequence[Bytes], state: Int32, updates: Sequence[Coefficients]
    ) -> None:
        """Write the state int32 [samples, channels, height, width] that a start begins with, and
        the update behind every step but its last, into the ranks' latent buffers.
        """
        made = latent_buffers(self._program, self._qgraph, state, updates, self._lanes)
        for buffer, words in zip(buffers, made, strict=True):
            buffer[: words.size] = words.reshape(-1)

    def read_state(self, buffers: Sequence[Bytes]) -> Int32:
        """The state that the last step of a start of several was computed from."""
        _, size = self.start_bytes(2)
        return result_state(self._program, buffers[0][:size])

    def read_result(self, buffers: Sequence[Bytes]) -> Float32:
        """The noise prediction, new float32 [batch, channels, height, width]."""
        return self._result.read(buffers)

    def result_values(self, buffers: Sequence[Bytes]) -> NDArray[np.int16]:
        """The same as the integers that the card stores, new int16."""
        values: NDArray[np.int16] = self._result.values(buffers).copy()
        return values


def _span(places: Sequence[StepBias | StepAffine | HostWeight]) -> Range:
    """(size, offset) in bytes of the smallest range over all places."""
    first = min((each.word for each in places), default=0)
    end = max((each.word + each.words for each in places), default=0)
    return (end - first) * WORD, first * WORD


def _write(dynamic: Sequence[Bytes], values: Bytes, where: Range) -> None:
    size, offset = where
    for buffer, of_rank in zip(dynamic, values, strict=True):
        buffer[offset : offset + size] = of_rank


def _tensors(extra: Extra) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in extra.items()}


def _arrays(values: dict[str, torch.Tensor]) -> dict[str, Float32]:
    return {name: value.numpy() for name, value in values.items()}
