"""One address before several gateways, as a load balancer gives it: by TCP, with health checks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from bench.chaos.network import HOST, Network, listening

_LOOK_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 1.0


class Balancer:
    """Takes turns among the gateways whose `/readyz` says yes.

    A connection that one refuses goes to the next. One that stands stays where it is, whatever
    becomes of its gateway's health.
    """

    def __init__(self, gateways: Mapping[str, int], network: Network) -> None:
        """Listens nowhere yet.

        Args:
            gateways: their ports by name.
            network: between it and them.
        """
        self._gateways = dict(gateways)
        self._network = network
        self._turn = list(gateways)
        self.ready: set[str] = set(gateways)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[str]:
        """Yields the URL while the context is open."""
        looking = [asyncio.create_task(self._look(name)) for name in self._gateways]
        try:
            async with listening(self._enter) as port:
                yield f"http://{HOST}:{port}"
        finally:
            for one in looking:
                one.cancel()
            await asyncio.wait(looking)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for name in self._in_turn():
            with contextlib.suppress(OSError):
                await self._network.carry(frozenset({name}), self._gateways[name], reader, writer)
                break
        writer.close()

    def _in_turn(self) -> list[str]:
        """Those that are ready before the others; each is the first as often as any."""
        self._turn.append(self._turn.pop(0))
        return sorted(self._turn, key=lambda name: name not in self.ready)

    async def _look(self, name: str) -> None:
        while True:
            is_ready = False
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                is_ready = await asyncio.wait_for(self._ask(name), _ANSWER_SECONDS)
            (self.ready.add if is_ready else self.ready.discard)(name)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ask(self, name: str) -> bool:
        await self._network.passed(frozenset({name}))
        reader, writer = await asyncio.open_connection(HOST, self._gateways[name])
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
