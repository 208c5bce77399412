"""The fleet under chaos: two of everything, each behind a proxy of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.chaos.apart import Apart
from bench.chaos.balancer import Balancer
from bench.chaos.network import Network
from bench.traffic.load import MODELS
from tests.doubles.postgres_server import postgres
from tests.doubles.processes import free_port, workers_below
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet, Service

GATEWAYS: Final = ("gateway-1", "gateway-2")
REGISTRIES: Final = ("registry-1", "registry-2")
NEURONS: Final = ("left", "right")
SERVICES: Final = (*GATEWAYS, *REGISTRIES, *NEURONS)
KEY: Final = "sk-chaos"
_PATIENCE_SECONDS: Final = 90.0
_KEYS: Final = f'[[auth.keys]]\nname = "chaos"\nkey = "{KEY}"\n'


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is to break.

    Attributes:
        fleet: its processes.
        url: of the balancer before the gateways.
    """

    fleet: Fleet
    url: str
    _apart: Apart
    _network: Network
    _balancer: Balancer

    def cut(self, name: str) -> None:
        """Cuts one of SERVICES, or the database, off from all others."""
        self._apart.call(self._network.cut, name)

    def heal(self) -> None:
        """Plugs everybody in again."""
        self._apart.call(self._network.heal)

    def service(self, name: str) -> Service:
        """One of SERVICES."""
        return self.fleet[name]

    def worker(self, neuron: str) -> psutil.Process | None:
        """The process below a neuron that has the models; None where there is none now."""
        return next(iter(workers_below(self.fleet[neuron].process.pid)), None)

    def is_whole(self) -> bool:
        """Whether every process is there, known to the others, and has nothing left to do."""
        return (
            self._balancer.ready == set(GATEWAYS)
            and self.fleet.live() == set(NEURONS)
            and self.fleet.roles() == ["leader", "standby"]
        )


@contextlib.asynccontextmanager
async def fleet_of_two(
    folder: Path, *, is_succeeded: bool = False, gateway: str = ""
) -> AsyncGenerator[Parts]:
    """Starts everything, and ends it with the context.

    Args:
        folder: for settings, logs and models.
        is_succeeded: gateways may hand over, and so do not die with this process.
        gateway: more settings of `[gateway]`.
    """
    weights = folder / "weights"
    weights.mkdir()
    fleet = Fleet(folder, await asyncio.to_thread(build_models, weights, MODELS))

    def pids() -> dict[str, int]:
        return {name: one.process.pid for name, one in fleet.services.items() if one.is_running}

    network = Network(pids)
    async with contextlib.AsyncExitStack() as stack:
        store = await asyncio.to_thread(stack.enter_context, postgres())
        apart = await stack.enter_async_context(Apart.running())
        stack.push_async_callback(asyncio.to_thread, fleet.end)
        stack.callback(apart.call, network.heal)
        await _add_registries(apart, fleet, network, store)
        await _add_neurons(apart, fleet, network)
        ports = {name: _add_gateway(fleet, name, gateway, is_succeeded) for name in GATEWAYS}
        balancer = Balancer(ports, network)
        url = await apart.enter(balancer.serving())
        parts = Parts(fleet, url, apart, network, balancer)
        await holds(parts.is_whole)
        yield parts


async def holds(condition: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> None:
    """Waits beside whatever runs, which the condition may block.

    Raises:
        TimeoutError: it did not hold in time.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not await asyncio.to_thread(condition):
        if loop.time() > until:
            raise TimeoutError(f"{condition.__name__} did not hold within {seconds:g} s")
        await asyncio.sleep(0.05)


async def _add_registries(apart: Apart, fleet: Fleet, network: Network, store: str) -> None:
    head, _, tail = store.rpartition(":")
    port, _, database = tail.partition("/")
    for name in REGISTRIES:
        listen = free_port()
        seen = await apart.enter(network.proxy(name, listen))
        base = await apart.enter(network.proxy("postgres", int(port)))
        fleet.add_registry(
            name,
            store=f"{head.replace('127.0.0.1', '')}{base}/{database}",
            listen=f"127.0.0.1:{listen}",
            address=seen,
        )


async def _add_neurons(apart: Apart, fleet: Fleet, network: Network) -> None:
    for name in NEURONS:
        listen = free_port()
        seen = await apart.enter(network.proxy(name, listen))
        fleet.add_neuron(
            name,
            settings="drain_seconds = 5.0",
            listen=f"127.0.0.1:{listen}",
            advertise=seen,
        )


def _add_gateway(fleet: Fleet, name: str, settings: str, is_succeeded: bool) -> int:
    url = fleet.add_gateway(name, settings=f"{settings}\n{_KEYS}", is_succeeded=is_succeeded)
    return int(url.rsplit(":", 1)[1])
