"""What a GPU's driver says of its faults (Xid), and what they mean for the workers on it.

Source: NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors), r580: the tables of common Xids
and of the actions to take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

LOST: Final = 79
"""The Xid of a device that has fallen off the bus."""

_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        13: "a kernel's exception in the graphics engine",
        31: "a memory page fault: an access to an invalid address",
        43: "the GPU stopped processing",
        45: "a process was cleaned up after an earlier error",
        48: "an uncorrectable memory error",
        61: "an internal microcontroller's breakpoint",
        62: "an internal microcontroller halted",
        63: "a memory row was remapped",
        64: "a memory row could not be remapped",
        69: "a class error in the graphics engine",
        74: "an error of the NVLink",
        LOST: "the GPU has fallen off the bus",
        92: "many correctable memory errors",
        94: "a contained memory error",
        95: "an uncontained memory error",
        109: "a context switch took too long",
        119: "the GPU's system processor did not answer",
        120: "an error of the GPU's system processor",
        140: "an unrecovered memory error",
    }
)
# After these a device works again only when it has been reset, or never.
_LASTING: Final = frozenset({48, 62, 64, 74, LOST, 95, 119, 120, 140})


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceFault:
    """One critical event of a device.

    Attributes:
        device_id: its UUID.
        xid: the driver's number.
    """

    device_id: str
    xid: int

    @property
    def is_lasting(self) -> bool:
        """True if no process can use the device before an administrator has reset it.

        The other kinds are a process's own: it hears of them through its library or dies, and the
        event does not say which one it was.
        """
        return self.xid in _LASTING

    def __str__(self) -> str:
        name = _NAMES.get(self.xid, "see NVIDIA's list")
        return f"Xid {self.xid} on {self.device_id}: {name}"
