"""Every private name of Hypercorn and asyncio that the codec leans on, in one place.

Hypercorn builds a `TCPServer` per connection: a task that owns a StreamReader and a
StreamWriter, a TaskGroup for the app's tasks, and an idle task. The codec finds it behind
the bound method that it is given as `send`, takes the transport's protocol over, and leaves
the rest alone. `tests/integration/http1/test_seam.py` pins all of it to hypercorn 0.18.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class TcpSeam:
    """One connection of Hypercorn's TCPServer, seen from the codec."""

    def __init__(self, send: Callable[..., Awaitable[None]]) -> None:
        self._server: Any = getattr(send, "__self__")  # noqa: B009 - untyped by design
        self._streams: Any = None

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport: a socket's, or TLS over one."""
        transport: asyncio.Transport = self._server.writer.transport
        return transport

    def take_over(
        self, protocol: asyncio.Protocol, until_closed: Callable[[], Awaitable[None]]
    ) -> tuple[bytes, bool]:
        """Makes `protocol` the receiver of the transport's events.

        Args:
            protocol: gets them from now on.
            until_closed: runs in the place of Hypercorn's idle task, which the server starts
                next and owns: it would close a connection that looks idle to it.

        Returns:
            The bytes that had arrived before, and whether the client had ended its side.
        """
        server = self._server
        transport = self.transport
        reader = server.reader
        early = bytes(reader._buffer)  # noqa: SLF001 - see the module's docstring
        reader._buffer.clear()  # noqa: SLF001
        reader._maybe_resume_transport()  # noqa: SLF001
        self._streams = transport.get_protocol()
        transport.set_protocol(protocol)
        server._idle_timeout = until_closed  # noqa: SLF001
        return early, reader.at_eof()

    def connection_lost(self) -> None:
        """Tells Hypercorn that the transport is gone, so that its task ends.

        The cause is kept from it: its clean-up would raise some of them once more.
        """
        self._streams.connection_lost(None)

    async def stop_watch(self) -> None:
        """Ends the task that runs in the idle task's place; the TaskGroup waits for it."""
        await self._server.idle_task.stop()

    def give_back(self, data: bytes, *, write_paused: bool) -> None:
        """Puts Hypercorn's own streams back, with bytes that they have not seen."""
        server = self._server
        server.writer.transport.set_protocol(self._streams)
        if write_paused:
            self._streams.pause_writing()
        del server._idle_timeout  # noqa: SLF001 - the class's own method shows again
        watch = server.idle_task._handle  # noqa: SLF001
        # Without a watch the server is about to start its idle task. In its place it is started
        # now, not by a task: the request that is fed below stops it, and may do so first.
        if watch is not None:
            watch.cancel()
            group = server._task_group._task_group  # noqa: SLF001
            idle = group.create_task(server._idle_timeout())  # noqa: SLF001
            server.idle_task._handle = idle  # noqa: SLF001
        server.reader.feed_data(data)
