"""Replaces Hypercorn's task group, so that an app that reads no more holds nobody up.

Hypercorn puts what a client sends into a queue of ten messages. Where the app has answered without
reading, the eleventh would wait for ever, and with it whoever reads the connection: all requests on
it, and its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from hypercorn.asyncio.task_group import TaskGroup
from typing_extensions import override

Message: TypeAlias = Mapping[str, Any]
# An app has to hear of them however much it has left unread.
_LAST: Final = frozenset({"http.disconnect", "websocket.disconnect"})


class AppMessages:
    """The ASGI messages that wait for one app: a bounded queue.

    A sender waits while it is full and the app still runs.

    Args:
        most: messages that may wait; a disconnect may come on top of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[Message] = deque()
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._is_over = False

    async def put(self, message: Message) -> None:
        """Adds one; what comes behind the end of the app is dropped."""
        is_last = message["type"] in _LAST
        while len(self._waiting) >= self._most and not (is_last or self._is_over):
            self._went.clear()
            await self._went.wait()
        if not self._is_over:
            self._waiting.append(message)
            self._came.set()

    async def get(self) -> Message:
        """Takes the next one."""
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        self._went.set()
        return self._waiting.popleft()

    def close(self) -> None:
        """The app has ended."""
        self._is_over = True
        self._waiting.clear()
        self._went.set()


class AppTaskGroup(TaskGroup):
    """Hypercorn's tasks of one connection, with `AppMessages` between it and each app."""

    @override
    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[..., Awaitable[None]]
    ) -> Callable[[Message], Awaitable[None]]:
        messages = AppMessages(config.max_app_queue_size)
        self.spawn(_run, app, config, scope, messages, send)
        return messages.put


async def _run(
    app: Any,
    config: Any,
    scope: Any,
    messages: AppMessages,
    send: Callable[..., Awaitable[None]],
) -> None:
    try:
        await app(scope, messages.get, send, _no_threads, _no_threads)
    except Exception:  # noqa: BLE001 - the root of the app's task
        await config.log.exception("Error in ASGI Framework")
    finally:
        messages.close()
        await send(None)


def _no_threads(*_: object) -> None:
    raise RuntimeError("only ASGI apps are served here")
