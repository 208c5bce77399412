"""Reads `/ui/events` and the other event streams of the console as a page does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import httpx

SECONDS = 60.0


class EventReader:
    """One open stream of events.

    Attributes:
        response: its head.
        ids: of the events that had one.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.ids: list[str] = []
        self._events = self._read()

    async def next(self) -> tuple[str, Any]:
        """The next event: its name and its data. Raises StopAsyncIteration at the end."""
        async with asyncio.timeout(SECONDS):
            return await anext(self._events)

    async def until(self, name: str, holds: Callable[[Any], object] = lambda _: True) -> Any:
        """The data of the next event of this name that satisfies the condition."""
        while True:
            event, data = await self.next()
            if event == name and holds(data):
                return data

    async def rest(self) -> list[tuple[str, Any]]:
        """All events until the stream ends."""
        async with asyncio.timeout(SECONDS):
            return [event async for event in self._events]

    async def _read(self) -> AsyncIterator[tuple[str, Any]]:
        name = ""
        async for line in self.response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "id":
                self.ids.append(value)
            elif field == "data":
                yield name, json.loads(value)


@contextlib.asynccontextmanager
async def events(
    client: httpx.AsyncClient, path: str = "/ui/events", **request: Any
) -> AsyncGenerator[EventReader]:
    """An open stream; with `json` of an operation."""
    method = "POST" if "json" in request else "GET"
    async with client.stream(method, path, **request) as response:
        yield EventReader(response)
