"""Calls that wait for a worker's answer: a bounded number, shared by principal."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any, Final

from services.backplane.errors import FleetError, Reason

_RETRY_SECONDS: Final = 1.0


@dataclasses.dataclass(slots=True, eq=False)
class _Call:
    """One call that waits; `is_displaced` once it has to make room for another principal's."""

    principal: str
    task: asyncio.Task[Any]
    is_displaced: bool = False


class WaitingCalls:
    """The calls that wait now.

    Where there are as many as may be, the newest of the principal that has most makes room for one
    of a principal that then has no more than it.

    Args:
        most: so many wait at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: list[_Call] = []

    @contextlib.asynccontextmanager
    async def one(self, principal: str) -> AsyncGenerator[None]:
        """Counts a call of this task while the context is open.

        Raises:
            FleetError: QUEUE_FULL: as many wait, or it had to make room.
        """
        task = asyncio.current_task()
        assert task is not None, "a call is answered by a task"
        if len(self._calls) >= self._most:
            self._make_room(principal)
        call = _Call(principal, task)
        self._calls.append(call)
        try:
            yield
        except asyncio.CancelledError:
            # a caller that left meanwhile has cancelled it too
            if not call.is_displaced or task.uncancel():
                raise
            raise _full() from None
        finally:
            self._forget(call)

    def _make_room(self, principal: str) -> None:
        held = collections.Counter(call.principal for call in self._calls)
        heaviest = max(held, key=held.__getitem__)
        if held[heaviest] - 1 < held[principal] + 1:
            raise _full()
        newest = next(call for call in reversed(self._calls) if call.principal == heaviest)
        self._forget(newest)
        newest.is_displaced = True
        newest.task.cancel()

    def _forget(self, call: _Call) -> None:
        if call in self._calls:
            self._calls.remove(call)


def _full() -> FleetError:
    return FleetError(
        Reason.QUEUE_FULL, "Too many calls wait for an answer.", retry_after_seconds=_RETRY_SECONDS
    )
