"""Enumerations of the binding, with its values.

They are as pybind11's: ``int(member)`` is its value; members of C's enumerations equal integers.
"""

from __future__ import annotations

from enum import Enum

XCL_BO_FLAGS_NONE = 0


class Values(Enum):
    """An enumeration whose members convert to integers."""

    def __int__(self) -> int:
        return int(self.value)


class CValues(Values):
    """One of C: members equal integers."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, int) and self.value == other)

    def __hash__(self) -> int:
        return hash(self.value)


class xclBOSyncDirection(CValues):
    """Direction of ``bo.sync``."""

    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1


class ert_cmd_state(CValues):
    """State of a command. 3 (running) has no name in the binding either."""

    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9
    ERT_CMD_STATE_SKERROR = 10
    ERT_CMD_STATE_SKCRASHED = 11


class xrt_info_device(Values):
    """Keys of ``device.get_info``."""

    bdf = 0
    interface_uuid = 1
    kdma = 2
    max_clock_frequency_mhz = 3
    m2m = 4
    name = 5  # type: ignore[assignment]
    nodma = 6
    offline = 7
    electrical = 8
    thermal = 9
    mechanical = 10
    memory = 11
    platform = 12
    pcie_info = 13
    host = 14
    dynamic_regions = 15
    vmr = 16
