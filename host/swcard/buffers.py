"""``bo``: a buffer with separate host and device memory, so that a forgotten sync shows."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.swcard.devices import Board, device, loaded
from host.swcard.enums import xclBOSyncDirection

Bytes = NDArray[np.uint8]
PAGE = 4096
ECC_WORD = 64


def _aligned(size: int) -> Bytes:
    """Zeroed bytes that start at a page boundary."""
    raw = np.zeros(size + PAGE, dtype=np.uint8)
    start = -raw.ctypes.data % PAGE
    return raw[start : start + size]


def _linear_bytes(buffer: Any) -> Bytes:
    """``itemsize * size`` bytes from a buffer's first element on, strides ignored.

    Bytes past the end of the underlying memory, which the binding would read, come as zeros.
    """
    array = np.asarray(buffer if isinstance(buffer, np.ndarray) else memoryview(buffer))
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    memory = root.reshape(-1, order="A").view(np.uint8)
    start = array.ctypes.data - root.ctypes.data
    out = np.zeros(array.nbytes, dtype=np.uint8)
    taken = memory[start : start + array.nbytes]
    out[: taken.size] = taken
    return out


class bo:
    """Buffer object: ``bo(device, size, flags, group)`` or a part, ``bo(parent, size, offset)``.

    Device memory that was never synced to may not be read, by a kernel or by a sync back: on a
    card with ECC memory that stops the process. Only syncs count as writes here, so a buffer for
    results must be synced once too.

    Raises:
        RuntimeError: no such bank, too large, or past the end of the parent.
        TypeError: other arguments.
    """

    class flags(Enum):
        """Kinds of buffers; the software card has normal ones."""

        normal = 0
        cacheable = 1 << 24
        svm = 1 << 27
        device_only = 1 << 28
        host_only = 1 << 29
        p2p = 1 << 30

    normal = flags.normal

    board: Board
    group: int
    host: Bytes
    card: Bytes
    written: NDArray[np.bool_]
    # address on the card, and offset of the first byte in ``written`` (shared with the parent)
    _address: int
    _first: int

    def __init__(
        self, owner: device | bo, size: int, third: bo.flags | int, group: int = -1, /
    ) -> None:
        if isinstance(owner, device) and isinstance(third, bo.flags) and group >= 0:
            self._allocate(owner.board, size, third, group)
        elif isinstance(owner, bo) and isinstance(third, int) and group == -1:
            if third + size > owner.host.nbytes:
                raise RuntimeError("sub buffer is past the end of its parent")
            self.board, self.group, self._address = owner.board, owner.group, owner._address + third
            part = slice(third, third + size)
            self.host, self.card, self.written = owner.host[part], owner.card[part], owner.written
            self._first = owner._first + third
        else:
            raise TypeError("__init__(): incompatible constructor arguments")

    def _allocate(self, board: Board, size: int, kind: bo.flags, group: int) -> None:
        container, _ = loaded(board)
        board.reach()
        mem = next((mem for mem in container.mems if mem.index == group and mem.used), None)
        if mem is None:
            raise RuntimeError(f"failed to allocate a buffer in bank {group}: Invalid argument")
        if kind is not bo.flags.normal:
            raise RuntimeError("the software card has normal buffers only")
        if size <= 0 or size > mem.size_kb << 10:
            raise RuntimeError(f"failed to allocate {size} bytes: Cannot allocate memory")
        self.board, self.group = board, group
        self._address = mem.base + board.next_address
        board.next_address += (size + PAGE - 1) // PAGE * PAGE
        self.host, self.card = _aligned(size), _aligned(size)
        self.written = np.zeros((size + ECC_WORD - 1) // ECC_WORD, dtype=np.bool_)
        self._first = 0

    def _check(self, size: int, offset: int) -> None:
        if offset + size > self.host.nbytes:
            raise RuntimeError(
                f"{size} bytes at {offset} are past the end of a buffer of {self.host.nbytes}"
            )

    def size(self) -> int:
        """Size in bytes, as requested."""
        return self.host.nbytes

    def address(self) -> int:
        """Physical address of the first byte on the card."""
        return self._address

    def write(self, buffer: Any, seek: int, /) -> None:
        """Copy a buffer's bytes to host memory at ``seek``; strides are ignored."""
        if seek < 0:
            raise TypeError("write(): incompatible function arguments")
        data = _linear_bytes(buffer)
        self._check(data.size, seek)
        self.host[seek : seek + data.size] = data

    def read(self, size: int, skip: int, /) -> NDArray[np.int8]:
        """Copy of ``size`` bytes of host memory from ``skip`` on."""
        if size < 0 or skip < 0:
            raise TypeError("read(): incompatible function arguments")
        self._check(size, skip)
        return np.array(self.host[skip : skip + size].view(np.int8))

    def map(self) -> memoryview:
        """The host memory itself, writable."""
        return self.host.data

    def sync(self, direction: xclBOSyncDirection, size: int, offset: int, /) -> None:
        """Copy between host and device memory.

        Raises:
            RuntimeError: past the end, or device memory that was never written.
        """
        if not isinstance(direction, xclBOSyncDirection) or size < 0 or offset < 0:
            raise TypeError("sync(): incompatible function arguments")
        self.board.reach()
        self._check(size, offset)
        part = slice(offset, offset + size)
        if direction is xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE:
            self.card[part] = self.host[part]
            self._mark(offset, size)
            return
        if not self._is_written(offset, size):
            raise RuntimeError(
                f"ECC error: bank {self.group} was read where it was never written "
                f"({size} bytes at {offset} of a buffer)"
            )
        self.host[part] = self.card[part]

    def _mark(self, offset: int, size: int) -> None:
        first, end = self._first + offset, self._first + offset + size
        whole = -(-first // ECC_WORD), end // ECC_WORD
        self.written[whole[0] : whole[1]] = True
        # the tail of a buffer whose size is no multiple of a word belongs to nobody else
        if end == self._first + self.host.nbytes and first <= end // ECC_WORD * ECC_WORD:
            self.written[end // ECC_WORD : -(-end // ECC_WORD)] = True

    def _is_written(self, offset: int, size: int) -> bool:
        first, end = self._first + offset, self._first + offset + size
        return bool(self.written[first // ECC_WORD : -(-end // ECC_WORD)].all())

    @property
    def ready(self) -> bool:
        """Whether a kernel may read all of it."""
        return self._is_written(0, self.host.nbytes)

    @property
    def aligned(self) -> bool:
        """Whether it starts at a 64-byte boundary, as kernels assume."""
        return self._address % ECC_WORD == 0
