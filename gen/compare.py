"""One step of the U-Net computed three times and compared layer by layer.

Float against the integer reference by signal to noise; the integer reference against the software
card by equality, after every execution of every entry, with what the store really holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gen import reference
from gen.csim import CsimCard
from gen.floatrun import run_float
from gen.hostints import prompt_weights, quantise_latent, step_affines, step_biases
from gen.layers import LayerGraph
from gen.program import DynamicBuffer, Program
from gen.program.parts import reference_logits, reference_part, stored_like, stored_part
from gen.program.program import Entry
from gen.qlayers import Affine, QGraph

Bytes = NDArray[np.uint8]
Values = NDArray[np.int8] | NDArray[np.int16]


class Diverged(Exception):
    """The card stored something else than the reference.

    The message names the layer, how much differs and the first difference.
    """

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(f"layer {layer}: {message}")
        self.layer = layer


@dataclass
class Noise:
    """Energies of a signal and of its error, summed over steps."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: NDArray[np.float32], approximate: NDArray[np.float64]) -> None:
        """Account for one tensor and its approximation."""
        wide = exact.astype(np.float64)
        self.signal += float(np.sum(wide * wide))
        self.noise += float(np.sum((wide - approximate) ** 2))

    @property
    def snr_db(self) -> float:
        """Signal to noise ratio in dB; infinite without noise."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(max(self.signal, 1e-300) / self.noise)


@dataclass
class Integers:
    """Integer inputs of one step, as the host makes them (``gen.hostints``)."""

    latent: NDArray[np.int8]
    step_bias: Mapping[str, NDArray[np.int32]]
    prompt: Mapping[str, NDArray[np.int8]]
    step_affine: Mapping[str, Affine] = field(default_factory=dict)

    @classmethod
    def of(cls, qgraph: QGraph, sample: torch.Tensor, host: Mapping[str, torch.Tensor]) -> Integers:
        """From a latent [batch, channels, height, width] and the host's values."""
        values = {name: value.to(torch.float32).numpy() for name, value in host.items()}
        return cls(
            quantise_latent(qgraph, sample.to(torch.float32).numpy()),
            step_biases(qgraph, values),
            prompt_weights(qgraph, values),
            step_affines(qgraph, values),
        )


def reference_step(
    qgraph: QGraph, integers: Integers
) -> tuple[NDArray[np.int16], dict[str, Values]]:
    """Result of the integer reference, and what every layer stores, by layer name.

    Logits, which can be larger than all other tensors together, are left out: see
    :func:`gen.reference.logits_of`.
    """
    stored: dict[str, Values] = {}
    result = reference.run(
        qgraph,
        integers.latent,
        integers.step_bias,
        integers.prompt,
        stored.__setitem__,
        integers.step_affine,
        logits=False,
    )
    return result, stored


def float_noise(
    graph: LayerGraph,
    qgraph: QGraph,
    sample: torch.Tensor,
    host: Mapping[str, torch.Tensor],
    stored: Mapping[str, Values],
    noise: dict[str, Noise],
) -> torch.Tensor:
    """Add this step's errors of every layer to ``noise``; returns the float result.

    ``sample`` [batch, channels, height, width] float32; ``stored`` as :func:`reference_step` gives
    it. Layers that are not in it are passed over.
    """
    layer_of = {layer.dest: layer.name for layer in graph.layers}

    def observe(kind: str, name: str, values: torch.Tensor) -> None:
        layer = layer_of.get(name)
        if kind != "tensor" or layer is None or layer not in stored:
            return
        approximate = qgraph.tensors[name].values(stored[layer])
        noise.setdefault(layer, Noise()).add(values.numpy(), approximate)

    return run_float(graph, sample, host, observe, parts=True)


@dataclass
class CardCheck:
    """A card whose every execution of every entry is compared with the reference, both products of
    a joined one.

    ``weights`` is the static buffer, one rank's after the other. ``compared`` counts comparisons of
    the last step. The first step reads all weights from it, later ones those that are not kept on
    the card.
    """

    card: CsimCard
    qgraph: QGraph
    weights: Bytes
    compared: int = 0
    _loaded: bool = False

    @property
    def program(self) -> Program:
        """The program that the card runs."""
        return self.card.program

    def step(self, integers: Integers, stored: Mapping[str, Values]) -> NDArray[np.int16]:
        """Run one step; ``stored`` holds what the reference stores, by layer.

        Raises:
            Diverged: at the first entry whose stored tensor differs.
            gen.csim.CsimError: the step did not finish.
        """
        dynamic = DynamicBuffer(self.program, self.qgraph)
        dynamic.set_step(dict(integers.step_bias))
        dynamic.set_affine(dict(integers.step_affine))
        dynamic.set_prompt(dict(integers.prompt))
        self.compared = 0
        result = self.card.step(
            self.weights.reshape(self.program.ranks, -1),
            dynamic.data,
            integers.latent,
            lambda entry, i0, i1, rows: self._compare(integers, stored, entry, i0, i1, rows),
            reload=not self._loaded,
        )
        self._loaded = True
        return result

    def _compare(
        self,
        integers: Integers,
        stored: Mapping[str, Values],
        entry: Entry,
        i0: int,
        i1: int,
        rows: Sequence[Bytes],
    ) -> None:
        item, head = entry.item + i0, entry.heads.at(i1)
        keys = self.program.tensors[entry.dest].logits
        if keys:
            logits = self._logits(integers, stored, entry.layer, item, head)
            expected = reference_logits(self.program, entry, logits)
        else:
            expected = reference_part(self.program, entry, i0, i1, stored[entry.layer])
        got = stored_like(stored_part(self.program, entry, rows), expected)
        self.compared += 1
        if np.array_equal(got, expected):
            return
        wrong = np.argwhere(got != expected)
        first = tuple(int(each) for each in wrong[0])
        where = f" in strip {entry.strip}" if entry.strip else ""
        if keys or entry.post.row_sums or entry.post.items < self.program.batch:
            where += f" in item {item}, head {head}"
        raise Diverged(
            entry.layer,
            f"{len(wrong)} of {got.size} stored values differ from the reference{where}, the first "
            f"at [item, channel, pixel] = {list(first)}: {got[first]} instead of {expected[first]}",
        )

    def _logits(
        self, integers: Integers, stored: Mapping[str, Values], layer: str, item: int, head: int
    ) -> Values:
        """The reference's logits [pixels, tokens] of one item and head."""
        qlayers = {q.layer.name: q for q in self.qgraph.layers}
        tensors = {q.layer.dest: stored[n] for n, q in qlayers.items() if n in stored}
        return reference.logits_of(
            self.qgraph, qlayers[layer], tensors, integers.prompt, item, head
        )
