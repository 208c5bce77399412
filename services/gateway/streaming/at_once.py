"""Runs the choices of one request beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine


async def some_at_once(
    run: Callable[[int], Coroutine[object, object, None]], count: int, *, most: int
) -> None:
    """Runs the choices of a request, at most `most` of them at a time.

    Raises:
        FleetError: of the first that failed; the others are cancelled.
    """
    places = asyncio.Semaphore(most)
    try:
        async with asyncio.TaskGroup() as group:
            for index in range(count):
                await places.acquire()
                group.create_task(run(index)).add_done_callback(lambda _: places.release())
    except BaseExceptionGroup as failures:
        # `except*` would put what is raised here into a group again before Python 3.11.4
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended a group: those behind it came while the others were cancelled."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
