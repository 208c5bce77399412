"""Results for futures that may be gone already: nobody asked, or whoever did was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


def settle(future: asyncio.Future[T] | None, value: T) -> None:
    """Gives a future its result, unless there is none or it is done."""
    if future is not None and not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any] | None, error: Exception) -> None:
    """Gives a future an exception, unless there is none or it is done."""
    if future is not None and not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be waiting, and that is no mistake
