"""Passes the listening socket to a successor process: an upgrade that refuses nobody.

At SIGUSR2 the gateway starts its own program again, as it is installed now, and passes it the
socket. Once the successor serves, the old one accepts nothing more, lets running answers end and
leaves. A successor that does not come up in time is ended, and the old one goes on as it was.

The socket may also come from the service manager (systemd's socket activation), which keeps it
through a restart: clients then wait in its queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import structlog

from services.backplane.address import PortTakenError
from services.backplane.backoff import delays
from services.backplane.first_ended import first_ended
from services.backplane.process.lifecycle import DIE_WITH_PARENT, Shutdown, succeeding
from services.backplane.process.service_manager import notify

# A successor loads the program, hears of the fleet and says so; on a slow disk that takes a while.
READY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
HANDED_OVER: Final = "handed over"
_OWN_TO_A_PROCESS: Final = frozenset({"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"})

log = structlog.get_logger()


class Handover:
    """How this process takes a socket, and ends in favour of another with the same command line.

    Attributes:
        arguments: of that command line.
        take_socket: file descriptor of the listening socket that was passed to this process.
    """

    def __init__(
        self, arguments: Sequence[str], *, ready_descriptor: int | None, take_socket: int | None
    ) -> None:
        """Starts nothing.

        Args:
            arguments: of the command line, without those that a predecessor added.
            ready_descriptor: a pipe on which the predecessor waits; None where there is none.
            take_socket: file descriptor of the listening socket that was passed, if one was.
        """
        self.take_socket = take_socket
        self.arguments = tuple(arguments)
        self._ready_descriptor = ready_descriptor
        self._begun: asyncio.Task[None] | None = None
        self._letting_go: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def following(
        self,
        exposition: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        *,
        is_ready: Callable[[], bool],
        listener: int,
        shutdown: Shutdown,
        leave: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[None]:
        """Succeeds a predecessor, if there is one, and follows SIGUSR2 while the context is open.

        Args:
            exposition: serves the metrics. Their port is the predecessor's until it has left; with
                a successor it is let go at once.
            is_ready: whether new requests can be answered.
            listener: file descriptor of the listening socket.
            shutdown: requested once a successor serves.
            leave: called before that, so that running answers are not hurried.

        Raises:
            PortTakenError: nobody is succeeded, and the metrics' port is taken.
        """
        async with contextlib.AsyncExitStack() as exposed:
            taking_over: asyncio.Task[None] | None = None

            def let_go() -> None:
                leave()
                self._letting_go = asyncio.create_task(exposed.aclose())

            try:
                with succeeding(lambda: self._begin(listener, shutdown, let_go)):
                    if self._ready_descriptor is None:
                        await exposed.enter_async_context(exposition())
                        self._say_ready()
                    else:
                        taking_over = asyncio.create_task(
                            self._take_over(is_ready, exposition, exposed)
                        )
                    yield
            finally:
                for task in (taking_over, self._begun):
                    if task is not None:
                        task.cancel()
                if self._begun is not None:
                    await asyncio.wait({self._begun})

    async def _take_over(
        self,
        is_ready: Callable[[], bool],
        exposition: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        exposed: contextlib.AsyncExitStack,
    ) -> None:
        await _until(is_ready)
        self._say_ready()
        pauses = delays(first=_LOOK_SECONDS, cap=1.0)
        while True:
            try:
                await exposed.enter_async_context(exposition())
            except PortTakenError as error:
                log.info("handover.metrics_wait", detail=str(error))
                await asyncio.sleep(next(pauses))
            else:
                return

    def _say_ready(self) -> None:
        descriptor, self._ready_descriptor = self._ready_descriptor, None
        if descriptor is not None:
            write_byte(descriptor)
        notify("READY=1")

    def _begin(self, listener: int, shutdown: Shutdown, leave: Callable[[], None]) -> None:
        """Starts a successor in a task; returns at once."""
        if os.environ.get(DIE_WITH_PARENT):
            log.warning("handover.refused", detail="The parent process keeps this one; restart it.")
        elif shutdown.requested or (self._begun is not None and not self._begun.done()):
            log.warning("handover.refused", detail="One is under way.")
        else:
            self._begun = asyncio.create_task(self._hand_over(listener, shutdown, leave))

    async def _hand_over(
        self, listener: int, shutdown: Shutdown, leave: Callable[[], None]
    ) -> None:
        try:
            successor = await self._start(listener, shutdown)
        except OSError:
            log.exception("handover.failed", detail="The successor cannot be started.")
            return
        if successor is None:
            return
        log.info("handover.done", successor=successor.pid)
        notify(f"MAINPID={successor.pid}")
        leave()
        shutdown.request(HANDED_OVER)

    async def _start(self, listener: int, shutdown: Shutdown) -> subprocess.Popen[bytes] | None:
        """Starts the successor and waits until it serves; None if it never does.

        Whoever asks for the end meanwhile wants no successor: it is ended.

        By `subprocess` and not the event loop: uvloop forks, and the child runs gRPC's handlers of
        a fork, which can crash it. `subprocess` uses vfork(2), which runs none.
        """
        theirs, ours = os.pipe()
        try:
            command = [sys.executable, "-m", "services.gateway", *self.arguments]
            process = await _started(
                [*command, "--listen-descriptor", str(listener), "--ready-descriptor", str(ours)],
                descriptors=(listener, ours),
            )
        except BaseException:
            os.close(theirs)
            raise
        finally:
            os.close(ours)
        log.info("handover.begun", successor=process.pid)
        is_ready = False
        try:
            reading = asyncio.create_task(read_byte(theirs))
            await first_ended(shutdown.wait(), reading, seconds=READY_SECONDS)
            is_ready = not shutdown.requested and not reading.cancelled() and reading.result()
        finally:
            if not is_ready:
                process.kill()
        if is_ready:
            return process
        log.error(
            "handover.failed",
            detail="The successor did not serve; this process goes on.",
            code=await asyncio.to_thread(process.wait),
        )
        return None


async def _started(
    command: Sequence[str], *, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Starts a process; one that has started when this is cancelled is ended."""
    starting = asyncio.create_task(
        asyncio.to_thread(
            subprocess.Popen,
            command,
            pass_fds=descriptors,
            env={k: v for k, v in os.environ.items() if k not in _OWN_TO_A_PROCESS},
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})  # the thread cannot be stopped
        if starting.exception() is None:
            starting.result().kill()
        raise


class WorkerHandover:
    """The handover of one process of several, which its keeper coordinates.

    Attributes:
        take_socket: file descriptor of the keeper's listening socket.
    """

    def __init__(self, *, ready_descriptor: int, take_socket: int) -> None:
        self.take_socket = take_socket
        self._ready_descriptor = ready_descriptor

    @contextlib.asynccontextmanager
    async def following(
        self,
        exposition: Callable[[], contextlib.AbstractAsyncContextManager[object]],
        *,
        is_ready: Callable[[], bool],
        listener: int,
        shutdown: Shutdown,
        leave: Callable[[], None],
    ) -> AsyncGenerator[None]:
        """Says once that requests can be answered, and leaves at SIGUSR2."""
        announcing = asyncio.create_task(self._announce(is_ready))

        def end() -> None:
            leave()
            shutdown.request(HANDED_OVER)

        try:
            async with exposition():
                with succeeding(end):
                    yield
        finally:
            announcing.cancel()

    async def _announce(self, is_ready: Callable[[], bool]) -> None:
        await _until(is_ready)
        write_byte(self._ready_descriptor)


async def _until(is_ready: Callable[[], bool]) -> None:
    while not is_ready():  # noqa: ASYNC110 - asked of several kinds of processes
        await asyncio.sleep(_LOOK_SECONDS)


def write_byte(descriptor: int) -> None:
    """Writes a byte to a pipe, if its reader is still there, and closes it."""
    with contextlib.suppress(OSError):
        os.write(descriptor, b"1")
    os.close(descriptor)


async def read_byte(descriptor: int) -> bool:
    """Waits for a byte on a pipe; False at its end. Closes the descriptor."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return bool(await reader.read(1))
    finally:
        transport.close()
