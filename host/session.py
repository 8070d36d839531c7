"""An opened card with the engine's buffers and runs: raw steps over bytes, and the self-test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gen.errors import UserError
from host.card import Buffer, Card, Command
from host.codec import RankBuffers
from host.faults import CardFault
from host.selftest import KnownStart, KnownStep

Bytes = NDArray[np.uint8]
Values = Callable[[Sequence[Bytes]], NDArray[np.int16]]
RELOAD, STEPS = "reload", "steps"  # scalar arguments


@dataclass
class Rank:
    """One engine on the card, with the buffers that never change place."""

    store: Command
    wload: Command
    weights: Buffer
    latent: Buffer
    result: Buffer
    spill: Buffer | None


class Session:
    """Buffers, runs and weights of every rank, set up once.

    Args:
        card: an opened card.
        buffers: what buffers each rank has.

    Raises:
        UserError: another number of ranks than the card has, or no room.
    """

    def __init__(self, card: Card, buffers: Sequence[RankBuffers]) -> None:
        self.card = card
        stores, wloads = card.commands("store"), card.commands("wload")
        if not len(stores) == len(wloads) == len(buffers):
            raise UserError(
                f"{card.path} has {len(stores)} engines but the layer program is for "
                f"{len(buffers)}; build both for the same number of ranks"
            )
        self._layout = buffers
        self.ranks = [
            Rank(
                store,
                wload,
                card.buffer(wload, 0, each.weights.nbytes),
                card.buffer(store, 0, max(each.latent_bytes, each.latent_room)),
                card.buffer(store, 1, max(each.result_bytes, each.result_room)),
                card.buffer(store, 2, each.spill_bytes) if each.spill_bytes else None,
            )
            for store, wload, each in zip(stores, wloads, buffers, strict=True)
        ]
        for rank, each in zip(self.ranks, buffers, strict=True):
            rank.weights.array[: each.weights.nbytes] = each.weights
            rank.store.bind(0, rank.latent)
            rank.store.bind(1, rank.result)
            if rank.spill:
                rank.store.bind(2, rank.spill)
            rank.wload.bind(0, rank.weights)
        # the consumers first, as the kernels feed each other
        self._commands = [rank.store for rank in self.ranks] + [rank.wload for rank in self.ranks]
        self.latents = [rank.latent.array for rank in self.ranks]
        self.results = [rank.result.array for rank in self.ranks]
        used = list(zip(self.ranks, buffers, strict=True))
        self._pushed = [(rank.latent, each.latent_bytes) for rank, each in used if each.latent]
        self._pulled = [(rank.result, each.result_bytes) for rank, each in used if each.result]
        self._bound: list[Buffer] | None = None
        self._scalars: dict[str, int] = {}
        self.several = STEPS in self.ranks[0].store.scalars
        self.send_weights()

    def send_weights(self) -> None:
        """Copy the weights to the card. The next step reads all of them, also those that then stay
        in the engines.
        """
        for rank in self.ranks:
            rank.weights.push()
        self._loaded = False

    def _set(self, name: str, value: int) -> None:
        """Set a scalar argument of every kernel that has it."""
        if self._scalars.get(name) != value:
            for command in self._commands:
                if name in command.scalars:
                    command.set_scalar(command.scalars[name], value)
            self._scalars[name] = value

    def dynamic(self, more_bytes: int = 0) -> list[Buffer]:
        """New dynamic buffers, one per rank, with room for some bytes more than one step takes."""
        return [
            self.card.buffer(rank.wload, 1, each.dynamic_bytes + more_bytes)
            for rank, each in zip(self.ranks, self._layout, strict=True)
        ]

    def step(self, dynamic: list[Buffer]) -> None:
        """Run the layer program once: ``latents`` to ``results``.

        Raises:
            CardFault: the card failed; it is to be opened again.
        """
        for latent, size in self._pushed:
            latent.push(size)
        self._run(dynamic, 1)
        for result, size in self._pulled:
            result.pull(size)

    def start(
        self, dynamic: list[Buffer], steps: int, latent_bytes: int, result_bytes: int
    ) -> None:
        """Run the layer program ``steps`` times in one start. All ranks take the latent, as all
        update it; those that hold the result return it, with the sampler's state.

        Raises:
            CardFault: the card failed; it is to be opened again.
        """
        for rank in self.ranks:
            rank.latent.push(latent_bytes)
        self._run(dynamic, steps)
        for rank, each in zip(self.ranks, self._layout, strict=True):
            if each.result:
                rank.result.pull(result_bytes)

    def _run(self, dynamic: list[Buffer], steps: int) -> None:
        if self._bound is not dynamic:
            for rank, buffer in zip(self.ranks, dynamic, strict=True):
                rank.wload.bind(1, buffer)
            self._bound = dynamic
        self._set(RELOAD, int(not self._loaded))
        if self.several:
            self._set(STEPS, steps)
        # only a start that has ended has left its weights in the engines
        self._loaded = False
        self.card.execute(self._commands, steps)
        self._loaded = True

    def _test_several(
        self, dynamic: list[Buffer], known: KnownStart, latent_bytes: int, values: Values
    ) -> None:
        """A start of several steps: the last result, and every rank's state."""
        size = known.buffers.shape[1]
        self.start(dynamic, known.steps, latent_bytes, size)
        wrong = int((values(self.results) != known.result).sum())
        for rank, expected, each in zip(self.ranks, known.buffers, self._layout, strict=True):
            rank.result.pull(size)
            state = slice(each.result_bytes, size)
            wrong += int((rank.result.array[state] != expected[state]).sum())
        self._check(wrong, f"over {known.steps} steps of one start")

    def _check(self, wrong: int, where: str) -> None:
        if wrong:
            raise CardFault(
                f"card {self.card.which} computes wrongly: {wrong} values of its self-test "
                f"{where} differ; reset it (`xbutil reset -d {self.card.address}`), and if that "
                "does not help take another card by --device"
            )

    def self_test(self, known: KnownStep, values: Values) -> None:
        """Run a step whose result is known, with weights from DDR and then with those that the
        engines have kept, and with a sampler a start of several steps; compare all results.
        ``values`` finds them in the ranks' buffers.

        Raises:
            CardFault: any value differs, or a step failed.
        """
        dynamic = self.dynamic(known.inputs[0].dynamic.size - self._layout[0].dynamic_bytes)
        for latent, buffer, inputs in zip(self.latents, dynamic, known.inputs, strict=True):
            latent[: inputs.latent.size] = inputs.latent
            buffer.array[: inputs.dynamic.size] = inputs.dynamic
            buffer.push()
        for weights in ("in DDR", "kept in the engines"):
            self.step(dynamic)
            wrong = int((values(self.results) != known.result).sum())
            self._check(wrong, f"with weights {weights}")
        if known.several is not None:
            self._test_several(dynamic, known.several, known.inputs[0].latent.size, values)
        for latent in self.latents:
            latent[:] = 0
