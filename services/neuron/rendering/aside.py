"""Runs work on large input in a thread, so that it does not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# A hop to a thread costs as much as looking at what is smaller.
LARGE_BYTES: Final = 64 << 10


async def aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, done in a thread where what it looks at has many bytes.

    `size` is of the protobuf; asking one for it costs as much as writing it, so ask once.
    """
    if size <= LARGE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
