"""Waiting for whichever of several things ends first, without leaving the others behind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any


async def first_ended(
    *waits: Coroutine[Any, Any, Any] | asyncio.Future[Any],
    kept: Collection[asyncio.Future[Any]] = (),
    seconds: float | None = None,
) -> asyncio.Future[Any] | None:
    """Waits until one of them has ended, and then cancels the others and sees them end.

    Args:
        waits: what is cancelled when it is not the first, or when the caller is cancelled.
        kept: also waited for, and never cancelled: it belongs to the caller.
        seconds: longest wait; None sets no limit.

    Returns: the first that has ended, in the order given where several have; its `result()`
        raises what it raised. None when the time was over.
    """
    tasks = [asyncio.ensure_future(each) for each in waits]
    everything = [*tasks, *kept]
    try:
        done, _ = await asyncio.wait(
            everything, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        return next((each for each in everything if each in done), None)
    finally:
        for task in tasks:
            task.cancel()
        # errors of those that were cancelled concern nobody
        await asyncio.gather(*tasks, return_exceptions=True)
