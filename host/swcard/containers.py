"""``uuid`` and ``xclbin``: metadata that is read without a card."""

from __future__ import annotations

import uuid as _uuid
from pathlib import Path

from gen.errors import UserError
from host.xclbin import Container, Mem, Unit, read_container


class uuid:
    """Identity of an xclbin. As in the binding, two with the same value are not equal: compare
    ``to_string()``.
    """

    def __init__(self, text: str, /) -> None:
        self._value = _uuid.UUID(text)

    def to_string(self) -> str:
        """The uuid as 8-4-4-4-12 hexadecimal digits."""
        return str(self._value)


NO_UUID = uuid("00000000-0000-0000-0000-000000000000")


class xclbin:
    """Metadata of a software card's container.

    Raises:
        RuntimeError: no such file, or not a container.
    """

    class xclbinkernel:
        """A kernel of the file."""

        def __init__(self, unit: Unit, /) -> None:
            self._unit = unit

        def get_name(self) -> str:
            """Name of the kernel."""
            return self._unit.kernel

        def get_num_args(self) -> int:
            """Number of arguments, streams included."""
            return len(self._unit.args)

    class xclbinmem:
        """A memory of the file."""

        def __init__(self, mem: Mem, /) -> None:
            self._mem = mem

        def get_tag(self) -> str:
            """Name of the memory, 15 characters at most."""
            return self._mem.tag[:15]

        def get_base_address(self) -> int:
            """First byte's physical address."""
            return self._mem.base

        def get_size_kb(self) -> int:
            """Size in KiB."""
            return self._mem.size_kb

        def get_used(self) -> bool:
            """Whether any kernel argument is wired to it."""
            return self._mem.used

        def get_index(self) -> int:
            """Memory index, as ``kernel.group_id`` returns it."""
            return self._mem.index

    def __init__(self, path: str, /) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise RuntimeError(f"failed to open file '{path}' for reading")
        try:
            self.container: Container = read_container(self.path)
        except UserError as error:
            raise RuntimeError(str(error)) from error

    def get_kernels(self) -> list[xclbinkernel]:
        """Kernels of the file, free-running ones included."""
        kernels = {unit.kernel: unit for unit in reversed(self.container.units)}
        return [xclbin.xclbinkernel(unit) for unit in reversed(kernels.values())]

    def get_mems(self) -> list[xclbinmem]:
        """Memories of the file."""
        return [xclbin.xclbinmem(mem) for mem in self.container.mems]

    def get_xsa_name(self) -> str:
        """Name of the platform."""
        return self.container.platform

    def get_uuid(self) -> uuid:
        """Identity of the file."""
        return uuid(self.container.uuid)
