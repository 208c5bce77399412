"""How many gateways have sent a request on: upstreams of each other make no circle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

HEADER: Final = "x-cortex-hops"
MOST: Final = 4
"""So many gateways may send one request on; the next one answers it itself or not at all."""


def hops_of(headers: Mapping[str, str]) -> int:
    """How many have sent it on; what is no such number counts as the most.

    Args:
        headers: of the request, in lower case.
    """
    told = headers.get(HEADER)
    if told is None:
        return 0
    return int(told) if len(told) == 1 and told.isascii() and told.isdigit() else MOST
