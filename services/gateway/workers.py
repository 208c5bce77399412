"""Several gateway processes behind one socket (`gateway.workers`), and their keeper.

Each worker is a complete gateway with its own sessions; the kernel gives each new connection to one
of them. The keeper, their parent process, binds the socket, so that no connection is refused while
a worker is replaced, and adds up their metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pathlib
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, multiprocess

from services.backplane.address import Address
from services.backplane.backoff import delays
from services.backplane.first_ended import first_ended
from services.backplane.metrics import exposition
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import EX_CONFIG, Shutdown, reloading
from services.backplane.timeouts import timeout
from services.gateway.handover import Handover, read_byte
from services.gateway.server import BACKLOG
from services.gateway.settings import GatewaySettings
from services.gateway.telemetry.vllm import VllmNames

# What a worker may take beyond its drain to end.
_GRACE_SECONDS: Final = 5.0
# A worker that lived this long had started well.
_HEALTHY_SECONDS: Final = 10.0
# How often a worker looks whether its keeper lives.
_LOOK_SECONDS: Final = 1.0

log = structlog.get_logger()


class Keeper:
    """Starts the workers, replaces those that die, and ends all of them."""

    def __init__(self, settings: GatewaySettings, handover: Handover) -> None:
        """Prepares; nothing is started.

        Args:
            settings: where to listen, and how many.
            handover: whose command line every worker gets as well.
        """
        self._settings = settings
        self._handover = handover
        self._ending = signal.SIGTERM
        self._grace_seconds = settings.drain_seconds + _GRACE_SECONDS
        self._exit_code = 0
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._serving: set[int] = set()  # indices of workers that have said that they serve

    async def run(self, shutdown: Shutdown) -> int:
        """Keeps the workers running until the shutdown is requested; returns the exit code.

        Raises:
            OSError: an address cannot be listened on.
        """
        settings = self._settings
        metrics = Address.parse(settings.metrics_listen) if settings.metrics_listen else None
        registry = CollectorRegistry()
        faults = Faults(registry, "gateway_keeper")
        with (
            tempfile.TemporaryDirectory(prefix="cortex-metrics-") as folder,
            self._listener() as listener,
            contextlib.ExitStack() as following,
        ):
            counts = multiprocess.MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
            if settings.vllm_metrics:
                registry.register(VllmNames(counts.collect))
            following_on = self._handover.following(
                functools.partial(exposition, registry, metrics),
                is_ready=lambda: len(self._serving) == settings.workers,
                listener=listener.fileno(),
                shutdown=shutdown,
                leave=self._be_patient,
            )
            async with following_on, asyncio.TaskGroup() as group:
                following.enter_context(reloading(self._pass_on_hangup))
                for index in range(settings.workers):
                    life = functools.partial(
                        self._live, index, listener, pathlib.Path(folder), shutdown
                    )
                    group.create_task(self._keep(index, life, shutdown, faults))
        return self._exit_code

    async def _keep(
        self,
        index: int,
        life: Callable[[], Awaitable[int]],
        shutdown: Shutdown,
        faults: Faults,
    ) -> None:
        pauses = delays(first=0.2, cap=5.0)
        loop = asyncio.get_running_loop()
        while not shutdown.requested:
            began = loop.time()
            code: int | None = None
            # what goes wrong with one worker, no process left for it say, is not the others' end
            with faults.contained("worker", worker=index):
                code = await life()
            if shutdown.requested:
                return
            if code == EX_CONFIG:
                self._exit_code = code
                shutdown.request("a worker refused its settings")
                return
            log.error("worker.died", worker=index, code=code)
            if loop.time() - began > _HEALTHY_SECONDS:
                pauses = delays(first=0.2, cap=5.0)
            with contextlib.suppress(TimeoutError):
                async with timeout(next(pauses)):
                    await shutdown.wait()

    def _pass_on_hangup(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    def _be_patient(self) -> None:
        """Has the workers' coming end wait for all requests under way."""
        self._ending = signal.SIGUSR2
        self._grace_seconds = self._settings.handover_seconds + _GRACE_SECONDS

    def _listener(self) -> socket.socket:
        """Opens the listening socket, or takes the one that was passed to this process."""
        if self._handover.take_socket is not None:
            return socket.socket(fileno=self._handover.take_socket)
        return _bind(self._settings.listen)

    async def _live(
        self, index: int, listener: socket.socket, folder: pathlib.Path, shutdown: Shutdown
    ) -> int:
        """Runs one worker until its end; its exit code."""
        ready, theirs = os.pipe()
        try:
            process = self._processes[index] = await self._start(listener, folder, theirs)
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(theirs)
        log.info("worker.started", worker=index, pid=process.pid)
        announced = asyncio.create_task(read_byte(ready))

        def note(said: asyncio.Task[bool]) -> None:
            if not said.cancelled() and said.result():  # else it has ended without a word
                self._serving.add(index)

        announced.add_done_callback(note)
        try:
            return await self._outlive(process, shutdown)
        finally:
            announced.cancel()
            self._serving.discard(index)
            multiprocess.mark_process_dead(process.pid, path=str(folder))  # type: ignore[no-untyped-call]

    async def _start(
        self, listener: socket.socket, folder: pathlib.Path, ready: int
    ) -> asyncio.subprocess.Process:
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "services.gateway", *self._handover.arguments]
        return await asyncio.create_subprocess_exec(
            *command,
            "--listen-descriptor",
            str(descriptor),
            "--keeper",
            str(os.getpid()),
            "--ready-descriptor",
            str(ready),
            pass_fds=(descriptor, ready),
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            # a Ctrl-C on the terminal is the keeper's to pass on
            start_new_session=True,
        )

    async def _outlive(self, process: asyncio.subprocess.Process, shutdown: Shutdown) -> int:
        ended = asyncio.create_task(process.wait())
        try:
            await first_ended(shutdown.wait(), kept=(ended,))
            if not ended.done():
                process.send_signal(self._ending)
                await asyncio.wait({ended}, timeout=self._grace_seconds)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        return await ended


async def as_worker(gateway: Coroutine[Any, Any, int], shutdown: Shutdown, *, keeper: int) -> int:
    """Runs a worker's gateway, which drains and ends when its keeper has gone.

    Args:
        gateway: the worker itself.
        shutdown: what ends it.
        keeper: the keeper's process id, which may have gone while this process was starting.
    """

    async def follow() -> None:
        while os.getppid() == keeper:  # noqa: ASYNC110 - nobody tells an orphan
            await asyncio.sleep(_LOOK_SECONDS)
        shutdown.request("the keeper has gone")

    following = asyncio.create_task(follow())
    try:
        return await gateway
    finally:
        following.cancel()


def _bind(listen: str) -> socket.socket:
    """The socket that all workers accept from.

    Raises:
        OSError: the address is taken, forbidden or unknown.
    """
    address = Address.parse(listen)
    if address.is_unix:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address.host)
        listener.listen(BACKLOG)
        return listener
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port or 0), family=family, backlog=BACKLOG)
