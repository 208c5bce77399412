"""An event loop in a thread of its own, for what must not wait for the clients of the same run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Apart:
    """Contexts that live in the other loop, until this object's own context ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncGenerator[Self]:
        """Starts the thread; ends what was entered, and then the thread."""
        apart = cls()
        thread = threading.Thread(target=apart._loop.run_forever, daemon=True)
        thread.start()
        try:
            yield apart
        finally:
            await apart._run(apart._stack.aclose())
            apart._loop.call_soon_threadsafe(apart._loop.stop)
            await asyncio.to_thread(thread.join)
            apart._loop.close()

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enters a context there; returns what it yields."""
        return await self._run(self._stack.enter_async_context(context))

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Has a function called there, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
