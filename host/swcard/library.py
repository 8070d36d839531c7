"""``card.so``: one instance of the generated kernels of all ranks with their FIFOs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gen.card_library import DEADLOCK, DONE, STEP, Bytes, card_buffers, load_card

__all__ = ["DEADLOCK", "DONE", "CardLibrary"]


class CardLibrary:
    """One software card. Not to be used by two threads at once.

    Raises:
        RuntimeError: the shared object is missing or not a software card.
    """

    def __init__(self, path: Path) -> None:
        self._library = load_card(path, STEP)
        self._card: int | None = self._library.lda_card_new()
        if not self._card:
            raise RuntimeError(f"{path}: no memory for the software card")

    def step(self, ranks: Sequence[Sequence[Bytes]], reload: int, steps: int = 1) -> int:
        """Run the layer program ``steps`` times over the contiguous buffers of every rank (weights,
        dynamic, latent, result, spill if there are moves); return 0 or a fault code. ``reload`` and
        ``steps`` are the arguments of the kernels.
        """
        buffers = card_buffers(ranks)
        return int(self._library.lda_card_step(self._card, buffers, len(ranks), reload, steps))

    @property
    def error(self) -> str:
        """What went wrong in the last start, or an empty string."""
        return (self._library.lda_card_error(self._card) or b"").decode()

    @property
    def cycles(self) -> int:
        """Modelled clock cycles of the last start."""
        return int(self._library.lda_card_cycles(self._card))

    @property
    def report(self) -> str:
        """The card's own report of the last start."""
        return (self._library.lda_card_report(self._card) or b"").decode()

    def close(self) -> None:
        """Give the card's memory back."""
        if self._card:
            self._library.lda_card_free(self._card)
            self._card = None

    def __del__(self) -> None:
        if getattr(self, "_card", None):
            self.close()
