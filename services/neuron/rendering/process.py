"""One process that renders, as the daemon sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from services.backplane.timeouts import timeout
from services.neuron.engine_api.frames import HEADER
from services.neuron.rendering.frames import ANSWERS, Answer
from services.neuron.supervisor.process import environment

_READ_BYTES: Final = 1 << 20


class LostError(Exception):
    """The process ended, or sent what is no answer."""


class RenderProcess:
    """A child of the daemon; the kernel ends it with its parent."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_end: Callable[[], None],
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.is_lost = False
        self._waiting = asyncio.create_task(self._wait(on_end))

    @classmethod
    async def start(cls, *, memory_bytes: int, on_end: Callable[[], None]) -> RenderProcess:
        """Starts a rendering process.

        Args:
            memory_bytes: most address space that it may have.
            on_end: called once it has ended.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                fd = theirs.fileno()
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "services.neuron.rendering"),
                    *("--fd", str(fd), "--memory-bytes", str(memory_bytes)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=[fd],
                    env=environment(os.environ, device_ids=()),
                    start_new_session=True,
                )
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_BYTES)
            undo.pop_all()
        return cls(process, reader, writer, on_end)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ask(self, question: bytes, seconds: float) -> Answer:
        """Sends a packed question and waits for its answer; one question at a time.

        Raises:
            TimeoutError: it took longer. The process is of no use then, nor after a cancellation.
            LostError: the process ended.
        """
        async with timeout(seconds):
            try:
                self._writer.write(question)
                await self._writer.drain()
                (length,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                answer: Answer = ANSWERS.decode(await self._reader.readexactly(length))
            except (OSError, EOFError, msgspec.DecodeError) as error:
                raise LostError from error
        return answer

    def kill(self) -> None:
        """Kills the process; `ended` tells when it is gone."""
        self.is_lost = True
        # While the process is not yet waited for, its id cannot be another's.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()

    async def ended(self) -> None:
        """Waits until the process is gone."""
        await asyncio.shield(self._waiting)

    async def _wait(self, on_end: Callable[[], None]) -> None:
        await self._process.wait()
        self.is_lost = True
        self._writer.close()
        on_end()
