"""``card.so`` by ctypes: its C functions (hls/card/card.hpp) and the buffers of a step."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

DONE, DEADLOCK, LEFTOVER, TOO_SMALL = 0, 1, 2, 3
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int] * 4)
BUFFERS = ("weights", "dynamic", "latent", "result", "spill")

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int
Functions = Mapping[str, tuple[Any, list[Any]]]
# what running a step takes
STEP: Functions = {
    "lda_card_new": (_POINTER, []),
    "lda_card_free": (None, [_POINTER]),
    "lda_card_step": (_INT, [_POINTER, _POINTER, _INT, _INT, _INT]),
    "lda_card_error": (ctypes.c_char_p, [_POINTER]),
    "lda_card_cycles": (ctypes.c_uint64, [_POINTER]),
    "lda_card_report": (ctypes.c_char_p, [_POINTER]),
}
# what looking inside takes besides
INSPECTION: Functions = {
    "lda_card_ranks": (_INT, [_POINTER]),
    "lda_card_on_entry": (None, [_POINTER, CALLBACK, _POINTER]),
    "lda_card_read_rows": (None, [_POINTER, _INT, _INT, _INT, _POINTER]),
    "lda_card_set_fifo_depth": (_INT, [_POINTER, ctypes.c_char_p, _INT]),
    "lda_card_measure_peaks": (None, [_POINTER, _INT]),
    "lda_card_poison": (None, [_POINTER, _INT]),
}
# of the generic card alone
PROGRAM: Functions = {"lda_card_set_program": (_INT, [_POINTER, ctypes.c_char_p, _SIZE])}


class CardBuffers(ctypes.Structure):
    """Buffers of one rank (hls/card/buffers.hpp)."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = [
        (name + suffix, kind)
        for name in BUFFERS
        for suffix, kind in (("", _POINTER), ("_bytes", _SIZE))
    ]


def card_buffers(ranks: Sequence[Sequence[Bytes]]) -> ctypes.Array[CardBuffers]:
    """The argument of ``lda_card_step``: contiguous arrays of every rank, in the order of
    ``BUFFERS``; a rank of a program without moves has no ``spill``. The arrays must outlive it.
    """
    return (CardBuffers * len(ranks))(
        *(
            CardBuffers(*(part for array in rank for part in (array.ctypes.data, array.nbytes)))
            for rank in ranks
        )
    )


def load_card(path: Path, *functions: Functions) -> ctypes.CDLL:
    """The shared object with the types of some of its functions set.

    Raises:
        RuntimeError: not a software card.
    """
    try:
        library = ctypes.CDLL(str(path.resolve()))
        for group in functions:
            for name, (result, arguments) in group.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"{path}: not a software card ({error})") from error
    return library
