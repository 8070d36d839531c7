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
from host.selftest import KnownStep

Bytes = NDArray[np.uint8]
Values = Callable[[Sequence[Bytes]], NDArray[np.int16]]
RELOAD = 2  # argument of wload


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
                card.buffer(store, 0, each.latent_bytes),
                card.buffer(store, 1, each.result_bytes),
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
        self._pushed = [rank.latent for rank, each in used if each.latent]
        self._pulled = [rank.result for rank, each in used if each.result]
        self._bound: list[Buffer] | None = None
        self._reload: bool | None = None
        self.send_weights()

    def send_weights(self) -> None:
        """Copy the weights to the card. The next step reads all of them, also those that then stay
        in the engines.
        """
        for rank in self.ranks:
            rank.weights.push()
        self._loaded = False

    def _set_reload(self, reload: bool) -> None:
        if self._reload != reload:
            for rank in self.ranks:
                rank.wload.set_scalar(RELOAD, int(reload))
            self._reload = reload

    def dynamic(self) -> list[Buffer]:
        """New dynamic buffers, one per rank."""
        return [
            self.card.buffer(rank.wload, 1, each.dynamic_bytes)
            for rank, each in zip(self.ranks, self._layout, strict=True)
        ]

    def step(self, dynamic: list[Buffer]) -> None:
        """Run the layer program once: ``latents`` to ``results``.

        Raises:
            CardFault: the card failed; it is to be opened again.
        """
        if self._bound is not dynamic:
            for rank, buffer in zip(self.ranks, dynamic, strict=True):
                rank.wload.bind(1, buffer)
            self._bound = dynamic
        for latent in self._pushed:
            latent.push()
        self._set_reload(not self._loaded)
        # only a step that has ended has left its weights in the engines
        self._loaded = False
        self.card.execute(self._commands)
        self._loaded = True
        for result in self._pulled:
            result.pull()

    def self_test(self, known: KnownStep, values: Values) -> None:
        """Run a step whose result is known, with weights from DDR and then with those that the
        engines have kept; compare both results. ``values`` finds them in the ranks' buffers.

        Raises:
            CardFault: any value differs, or a step failed.
        """
        dynamic = self.dynamic()
        for latent, buffer, inputs in zip(self.latents, dynamic, known.inputs, strict=True):
            latent[: inputs.latent.size] = inputs.latent
            buffer.array[: inputs.dynamic.size] = inputs.dynamic
            buffer.push()
        for weights in ("in DDR", "kept in the engines"):
            self.step(dynamic)
            wrong = int((values(self.results) != known.result).sum())
            if wrong:
                raise CardFault(
                    f"card {self.card.which} computes wrongly: {wrong} values of its self-test "
                    f"with weights {weights} differ; reset it (`xbutil reset -d "
                    f"{self.card.address}`), and if that does not help take another card by "
                    "--device"
                )
        for latent in self.latents:
            latent[:] = 0
