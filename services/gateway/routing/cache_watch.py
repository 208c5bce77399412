"""Follows what the neurons' caches hold, where there is a choice among instances."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import structlog

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.backoff import delays
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.homes import Homes
from services.gateway.transports.pool import NeuronLinks

_FEATURE: Final = "cache"
_LONGEST_PAUSE_SECONDS: Final = 5.0
_MOST_INSTANCES: Final = 256
"""Of one neuron: what it tells of more is not kept."""

log = structlog.get_logger()


class CacheWatch:
    """One stream from each neuron that has an instance of a model with several.

    While a neuron's stream is away, nothing is known of what it holds: its conversations have the
    homes that this gateway has given them.

    Attributes:
        homes: where this gateway has sent conversations.
        holdings: what the neurons tell.
    """

    def __init__(self, view: FleetView, links: NeuronLinks, faults: Faults) -> None:
        self.homes = Homes()
        self.holdings = Holdings(self.homes.forget)
        self._view = view
        self._links = links
        self._faults = faults
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._revision: int | None = None

    async def follow(self) -> None:
        """Opens and closes streams to match the fleet; called about once a second."""
        for key in [key for key, task in self._tasks.items() if task.done()]:
            del self._tasks[key]
            self._revision = None
        if self._view.revision == self._revision:
            return
        self._revision = self._view.revision
        wanted = self._wanted()
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for name, address in wanted - self._tasks.keys():
            self._tasks[name, address] = asyncio.create_task(self._watch(name, address))

    async def close(self) -> None:
        """Ends all streams."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _wanted(self) -> set[tuple[str, str]]:
        """Name and address of each neuron that is to be followed."""
        present = [one for one in self._view.neurons.values() if not one.lost]
        counts = Counter(i.spec.model for one in present for i in one.report.instances)
        return {
            (one.identity.name, one.identity.address)
            for one in present
            if _FEATURE in one.identity.features
            and any(counts[instance.spec.model] > 1 for instance in one.report.instances)
        }

    async def _watch(self, name: str, address: str) -> None:
        """Takes in what one neuron tells, until cancelled; after a failure from the beginning."""
        pauses = delays(first=0.2, cap=_LONGEST_PAUSE_SECONDS)
        while True:
            told: set[str] = set()
            try:
                call = self._links.to(address, name).stub.WatchCache(neuron.WatchCacheRequest())
                async with streaming(call, unavailable=Reason.NEURON_LOST) as answers:
                    async for answer in answers:
                        pauses = delays(first=0.2, cap=_LONGEST_PAUSE_SECONDS)
                        for change in answer.changes:
                            self._take_in(change, told)
            except FleetError as error:
                log.info("cache_watch.ended", neuron=name, reason=error.message)
            except Exception as error:  # noqa: BLE001 - the next attempt may do better
                self._faults.note("cache_watch", error)
            finally:
                for instance_id in told:
                    self.holdings.forget(instance_id)
            await asyncio.sleep(next(pauses))

    def _take_in(self, change: neuron.CacheChange, told: set[str]) -> None:
        """Takes one change in; `told` are the instances of which its neuron has told."""
        name = change.instance_id
        if name not in told and len(told) >= _MOST_INSTANCES:
            return
        self.holdings.apply(change)
        if self.holdings.knows(name):
            told.add(name)
        else:
            told.discard(name)
