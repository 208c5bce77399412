"""Hypercorn's server of one connection, which counts those of each address, and lets them go."""

from __future__ import annotations

import contextlib
from typing import Final

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated
from typing_extensions import override

from services.backplane.timeouts import timeout
from services.gateway.http1.hypercorn.codec import CodecConfig
from services.gateway.http1.limits import Refused, Unanswered

_TOO_MANY: Final = 429
# How long a client that is one too many may take to hear why.
_FAREWELL_SECONDS: Final = 1.0
_READ_BYTES: Final = 1 << 16


class CountedServer(TCPServer):
    """Serves a connection, or refuses it where its address has too many."""

    _has_ended = False

    @override
    async def run(self) -> None:
        config, peer = self.config, self.writer.get_extra_info("peername")
        if not isinstance(config, CodecConfig) or config.shares is None or not peer:
            await super().run()
            return
        # of a Unix socket there is a path or nothing, and all its clients are on this machine
        address = peer[0] if isinstance(peer, tuple) else ""
        with config.shares.connections.one(address) as is_within:
            if is_within or not address:
                await super().run()
            else:
                await self._refuse(config)

    @override
    async def _read_data(self) -> None:
        await super()._read_data()
        # the client has left: `run` would wait for the idle task's time to be up
        self._has_ended = True
        await self.idle_task.stop()

    @override
    async def protocol_send(self, event: Event) -> None:
        if not (self._has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _refuse(self, config: CodecConfig) -> None:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with timeout(_FAREWELL_SECONDS):
                if config.refusals is not None and self._speaks_http1():
                    refused = Refused(
                        _TOO_MANY,
                        "this address has too many open connections"
                        " (gateway.connections_per_address)",
                    )
                    self.writer.write(config.refusals.refusal(refused, Unanswered()))
                    if self.writer.can_write_eof():
                        self.writer.write_eof()
                    # the reset that unread bytes cause would overtake the answer
                    while await self.reader.read(_READ_BYTES):
                        pass
        self.writer.close()

    def _speaks_http1(self) -> bool:
        tls = self.writer.get_extra_info("ssl_object")
        return tls is None or tls.selected_alpn_protocol() != "h2"
