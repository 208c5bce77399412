"""Which devices a built extension runs on, by the architectures in its folder's name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

Capability = tuple[int, int]
"""A device's compute capability: major, minor."""

_BUILT: Final = re.compile(r"(\d+)(\d)([af]?)(PTX)?")


def arch_list(capabilities: Sequence[Capability]) -> str:
    """TORCH_CUDA_ARCH_LIST for devices of these capabilities."""
    return ";".join(f"{major}.{minor}" for major, minor in sorted(set(capabilities)))


def folder_part(archs: str) -> str:
    """TORCH_CUDA_ARCH_LIST as a part of a folder's name: `8.6;9.0+PTX` becomes `86-90PTX`."""
    return "-".join(re.split(r"[;, ]+", archs.strip())).replace(".", "").replace("+", "")


def covers(part: str, capabilities: Iterable[Capability]) -> bool:
    """True if what was built for these architectures runs on devices of all capabilities.

    1. Machine code runs on its own major version, from its minor version on; an architecture with
       a letter (`90a`) on its own alone.
    2. PTX runs on everything from its own version on, where the driver compiles it.

    Args:
        part: of a folder's name, as `folder_part` makes it.
        capabilities: of the devices.
    """
    built = [match for match in map(_BUILT.fullmatch, part.split("-")) if match is not None]
    return all(any(_runs(one, capability) for one in built) for capability in capabilities)


def _runs(built: re.Match[str], capability: Capability) -> bool:
    own = (int(built[1]), int(built[2]))
    if built[4] and capability >= own:
        return True
    if built[3]:
        return capability == own
    return capability[0] == own[0] and capability[1] >= own[1]
