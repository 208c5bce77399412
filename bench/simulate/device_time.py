"""Whom simulated devices work for, and what the real ledger makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from typing_extensions import override

from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.engine_api.device_time import Charge
from services.neuron.supervisor.device_use import DeviceUse
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.accounting.usage import UsageLedger
from services.registry.store.device_growth import growth
from services.registry.store.ledger import (
    DeviceTotal,
    Ledger,
    ShareRow,
    UsageQuery,
    UsageRow,
)

_NANOSECONDS = 1_000_000_000
_MICROSECONDS = 1_000_000


class Works:
    """All work of one neuron.

    Attributes:
        use: what it tells of it; another process begins anew.
        busy_seconds: of all devices, whoever has heard of it.
        killed: the processes that were killed, each with all that it could have told.
    """

    def __init__(self) -> None:
        self.use = DeviceUse()
        self.busy_seconds = 0.0
        self.killed: list[tuple[str, DeviceUse]] = []


class Work:
    """What one device set does: an instance's requests, a load, or an unload.

    Args:
        works: where it is counted.
        model: of the instance.
        devices: that work together.
        now: when it begins.
    """

    def __init__(self, works: Works, model: str, devices: int, now: float) -> None:
        self._works = works
        self._model = model
        self._devices = max(1, devices)
        self._since = now

    def answered_for(self, principals: Sequence[str], now: float) -> None:
        """Until now answers were made for these, a token of each in every step."""
        elapsed = self._elapsed(now)
        if principals and elapsed:
            part = round(elapsed * _NANOSECONDS / len(principals))
            charges = [Charge(one, self._model, decode_ns=part) for one in principals]
            self._add(charges, elapsed)

    def loaded_for(self, principal: str, now: float) -> None:
        """Until now it was loaded."""
        elapsed = self._elapsed(now)
        self._add([Charge(principal, self._model, load_ns=round(elapsed * _NANOSECONDS))], elapsed)

    def unloaded_for(self, principal: str, now: float) -> None:
        """Until now its memory was freed."""
        elapsed = self._elapsed(now)
        charge = Charge(principal, self._model, unload_ns=round(elapsed * _NANOSECONDS))
        self._add([charge], elapsed)

    def _elapsed(self, now: float) -> float:
        elapsed, self._since = now - self._since, now
        return elapsed

    def _add(self, charges: Sequence[Charge], elapsed: float) -> None:
        self._works.busy_seconds += elapsed * self._devices
        busy_ns = round(elapsed * _NANOSECONDS)
        self._works.use.add(charges, busy_ns=busy_ns, devices=self._devices)


class StoredUse(Ledger):
    """The tables of the devices' time; they outlive the registry."""

    def __init__(self) -> None:
        self._totals: dict[str, dict[tuple[str, str], DeviceTotal]] = {}
        self.seconds: dict[str, float] = {}
        """By principal."""

    @override
    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        """As the stores do it; nothing here waits."""
        known = self._totals.setdefault(source, {})
        grown, newer = growth(known.values(), totals, most)
        known.update({(one.principal, one.model): one for one in newer})
        for one in grown:
            seconds = one.microseconds / _MICROSECONDS
            self.seconds[one.principal] = self.seconds.get(one.principal, 0.0) + seconds
        return grown

    @override
    async def device_use_told_at(self, source: str) -> int | None:
        return None

    # What gateways share and report has no part in this simulation.

    @override
    async def load_shares(self) -> Sequence[ShareRow]:
        return ()

    @override
    async def save_shares(self, rows: Sequence[ShareRow], *, ended_before: int | None) -> None:
        pass

    @override
    async def add_usage(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        return True

    @override
    async def forget_usage(self, before: int) -> None:
        pass

    @override
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return ()


class _Told:
    """What neurons have told, each total as the newest that has come: the plainest that works.

    It is what `untold` is counted by, so it shares nothing with the code that is tried.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str, str], float] = {}

    def take(self, incarnation_id: str, rows: Sequence[neuron.DeviceUse]) -> None:
        for row in rows:
            key = incarnation_id, row.principal, row.model
            self._seconds[key] = max(self._seconds.get(key, 0.0), _seconds_of(row))

    def join(self, newer: _Told) -> None:
        for key, seconds in newer._seconds.items():
            self._seconds[key] = max(self._seconds.get(key, 0.0), seconds)

    def missing(self, incarnation_id: str, use: DeviceUse) -> float:
        """Seconds of what a process could have told."""
        return sum(
            _seconds_of(row) - self._seconds.get((incarnation_id, row.principal, row.model), 0.0)
            for row in use.since(0)
        )


def _seconds_of(row: neuron.DeviceUse) -> float:
    microseconds = (
        row.prefill_microseconds
        + row.decode_microseconds
        + row.load_microseconds
        + row.unload_microseconds
    )
    return microseconds / _MICROSECONDS


class Bookkeeping:
    """The registry's side: a new one takes its place at each restart, the tables stay."""

    def __init__(self) -> None:
        self.stored = StoredUse()
        self._written, self._unwritten = _Told(), _Told()
        self._intake = self._new()

    def _new(self) -> DeviceUseIntake:
        usage = UsageLedger(self.stored, kept_days=400, clock=lambda: 0.0)
        # simulated models of one device all compute at once, which no clock would believe
        return DeviceUseIntake(usage, clock=itertools.count(0, 3600).__next__)

    def registry_restarted(self) -> None:
        """What was not written is lost."""
        self._unwritten = _Told()
        self._intake = self._new()

    def take(self, incarnation_id: str, rows: Sequence[neuron.DeviceUse]) -> None:
        """Takes in what a report tells."""
        self._unwritten.take(incarnation_id, rows)
        identity = neuron.NeuronIdentity(name=incarnation_id, incarnation_id=incarnation_id)
        report = neuron.NeuronReport(device_use=rows)
        self._intake.take(neuron.NeuronStatus(identity=identity, report=report))

    def write(self) -> None:
        """Writes what has come."""
        self._written.join(self._unwritten)
        self._unwritten = _Told()
        _at_once(self._intake.write())

    def untold(self, works: Iterable[Works]) -> float:
        """Seconds that killed processes had worked and of which nobody has written."""
        killed = [one for each in works for one in each.killed]
        return sum(self._written.missing(name, use) for name, use in killed)


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """Runs what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")
