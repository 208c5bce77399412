"""The neuron as a process: what it keeps running beside its calls, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import structlog

from services.backplane.address import Address
from services.backplane.process.faults import Faults
from services.backplane.process.service_manager import notify
from services.backplane.rpc.server import Server
from services.backplane.timeouts import timeout
from services.neuron.access import NEURON_SERVICE
from services.neuron.devices.inventory import Devices
from services.neuron.instances.instances import Instances, State, shutting_down
from services.neuron.instances.load import Loader
from services.neuron.instances.recover import Recovery
from services.neuron.instances.unload import Unloader
from services.neuron.membership.membership import Membership
from services.neuron.membership.report import StatusBoard
from services.neuron.rendering.renderer import Renderers
from services.neuron.storage.fetches import Fetches
from services.neuron.storage.listing import DiskListing
from services.neuron.storage.servicer import STORAGE_SERVICE
from services.neuron.supervisor.supervisor import Supervisor

_MEASURE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 1.0
_LIST_SECONDS: Final = 2.0
_GRACE_SECONDS: Final = 1.0

log = structlog.get_logger()


class Daemon:
    """One neuron. Built by `wire`; serves while `serving` is open."""

    def __init__(
        self,
        *,
        server: Server,
        close_sessions: Callable[[], None],
        instances: Instances,
        loader: Loader,
        unloader: Unloader,
        recovery: Recovery,
        supervisor: Supervisor,
        renderers: Renderers,
        membership: Membership,
        board: StatusBoard,
        devices: Devices,
        listing: DiskListing,
        fetches: Fetches,
        measure: Callable[[], Awaitable[None]],
        drain_seconds: float,
        faults: Faults,
    ) -> None:
        self._faults = faults
        self._server = server
        self._close_sessions = close_sessions
        self._instances = instances
        self._loader = loader
        self._unloader = unloader
        self._recovery = recovery
        self._supervisor = supervisor
        self._renderers = renderers
        self._membership = membership
        self._board = board
        self._devices = devices
        self._listing = listing
        self._fetches = fetches
        self._measure = measure
        self._drain_seconds = drain_seconds
        self._healthy: dict[str, bool] = {}

    @contextlib.asynccontextmanager
    async def serving(
        self, listen: Address, advertised: Callable[[Address], str]
    ) -> AsyncGenerator[Address]:
        """Serves while the context is open; leaving it drains and stops, in bounded time.

        Args:
            listen: where; port 0 asks the system for one.
            advertised: the address that others are told, made from the real one.

        Yields: the real address.

        Raises:
            PortTakenError: it cannot listen there.
        """
        await self._measure()
        await self._listing.begin()
        address = await self._server.start(listen)
        self._board.note_address(advertised(address))
        keeping = [
            self._faults.repeat("measure", self._measure, _MEASURE_SECONDS),
            self._faults.repeat("device-watch", self._supervisor.look_at_devices, _LOOK_SECONDS),
            self._faults.repeat("list", self._listing.look_in_turn, _LIST_SECONDS),
            self._faults.vital(self._tell_health(), name="health"),
        ]
        self._membership.start()
        log.info("neuron.serving", address=str(address), name=self._board.identity.name)
        notify("READY=1")
        try:
            yield address
        finally:
            try:
                await self._end()
            finally:
                for task in keeping:
                    task.cancel()
                await asyncio.gather(*keeping, return_exceptions=True)
                self._devices.close()

    async def _end(self) -> None:
        """Stops admitting, lets running work end, says farewell, ends the workers."""
        log.info("neuron.draining", running=self._instances.running)
        self._board.note_draining()
        self._instances.close()
        for name in ("", NEURON_SERVICE, STORAGE_SERVICE, *self._healthy):
            await self._server.set_health(name, serving=False)
        await self._loader.stop()
        await self._fetches.stop()
        with contextlib.suppress(TimeoutError):
            async with timeout(self._drain_seconds):
                while self._instances.running:
                    await self._instances.changes.after(self._instances.changes.version)
        for instance in self._instances:
            for generation in list(instance.running):
                with self._faults.contained("drain"):
                    generation.fail(shutting_down())
        await self._membership.leave()
        self._close_sessions()
        await self._server.stop(_GRACE_SECONDS)
        await self._unloader.stop()
        await self._recovery.stop()
        await self._supervisor.stop()
        await self._renderers.stop()
        log.info("neuron.stopped")

    async def _tell_health(self) -> None:
        """Keeps one health entry per model: SERVING while an instance of it is READY."""
        while True:
            version = self._instances.changes.version
            with self._faults.contained("health"):
                await self._set_health()
            await self._instances.changes.after(version)

    async def _set_health(self) -> None:
        now: dict[str, bool] = {}
        for instance in self._instances:
            name = f"model/{instance.model}"
            now[name] = now.get(name, False) or instance.state is State.READY
        for name in {*now, *self._healthy}:
            if now.get(name) != self._healthy.get(name):
                await self._server.set_health(name, serving=now.get(name))
        self._healthy = now
