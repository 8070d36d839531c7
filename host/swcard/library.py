"""``card.so`` by ctypes: one instance of the generated kernels with their FIFOs."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

DONE = 0
DEADLOCK = 1
LEFTOVER = 2
TOO_SMALL = 3

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_uint64


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path.resolve()))
        library.lda_card_new.restype = _POINTER
        library.lda_card_new.argtypes = []
        library.lda_card_free.restype = None
        library.lda_card_free.argtypes = [_POINTER]
        library.lda_card_step.restype = ctypes.c_int
        for name in ("lda_card_error", "lda_card_report"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [_POINTER]
        library.lda_card_cycles.restype = ctypes.c_uint64
        library.lda_card_cycles.argtypes = [_POINTER]
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"{path}: not a software card ({error})") from error
    return library


class CardLibrary:
    """One software card. Not to be used by two threads at once.

    Raises:
        RuntimeError: the shared object is missing or not a software card.
    """

    def __init__(self, path: Path) -> None:
        self._library = _load(path)
        self._card: int | None = self._library.lda_card_new()
        if not self._card:
            raise RuntimeError(f"{path}: no memory for the software card")

    def step(self, buffers: Sequence[Bytes]) -> int:
        """Run the layer program once over the contiguous buffers of every rank in turn (weights,
        dynamic, latent, result); return 0 or a fault code.
        """
        arguments: list[ctypes.c_void_p | ctypes.c_uint64] = []
        for buffer in buffers:
            arguments += [_POINTER(buffer.ctypes.data), _SIZE(buffer.nbytes)]
        return int(self._library.lda_card_step(_POINTER(self._card), *arguments))

    @property
    def error(self) -> str:
        """What went wrong in the last step, or an empty string."""
        return (self._library.lda_card_error(self._card) or b"").decode()

    @property
    def cycles(self) -> int:
        """Modelled clock cycles of the last step."""
        return int(self._library.lda_card_cycles(self._card))

    @property
    def report(self) -> str:
        """The card's own report of the last step."""
        return (self._library.lda_card_report(self._card) or b"").decode()

    def close(self) -> None:
        """Give the card's memory back."""
        if self._card:
            self._library.lda_card_free(self._card)
            self._card = None

    def __del__(self) -> None:
        if getattr(self, "_card", None):
            self.close()
