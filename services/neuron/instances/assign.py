"""Assigns loads to workers by what is free now, less what other loads under way will still take."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from cortex.v1 import model_pb2 as model
from services.neuron.devices.inventory import copied
from services.neuron.instances import fit
from services.neuron.instances.division import GgufRules
from services.neuron.instances.fit import FitResult
from services.neuron.weights.inspect import Weights


@dataclasses.dataclass(slots=True)
class _Promise:
    """Memory of a load under way, on all of its devices together."""

    placement: FitResult
    done_bytes: int = 0


class Assignments:
    """Chooses a worker for each load, and reserves the memory that the load will take."""

    def __init__(
        self,
        *,
        engines: Sequence[str],
        default_engine: str,
        devices: Callable[[], Sequence[model.Device]],
        measure: Callable[[], Awaitable[None]],
        settled: Callable[[model.LoadSpec, Weights], model.LoadSpec],
        gguf: GgufRules,
    ) -> None:
        """Has promised nothing yet.

        Args:
            engines: those that are here.
            default_engine: used where a load names none; empty chooses by the files.
            devices: as they were measured last.
            measure: measures them anew.
            settled: fills in what a load of weights leaves open.
            gguf: how GGUF models are divided here.
        """
        self._gguf = gguf
        self._engines = engines
        self._default_engine = default_engine
        self._devices = devices
        self._measure = measure
        self.settled = settled
        self._promises: dict[str, _Promise] = {}

    async def assign(self, instance_id: str, spec: model.LoadSpec, weights: Weights) -> FitResult:
        """The worker of a load, and its memory, which is promised until `release`.

        Raises:
            FleetError: it cannot run here; see `fit.place`.
        """
        placement, _ = await self.consider(spec, weights)
        # No await between the choice and the promise: nobody else may choose meanwhile.
        self._promises[instance_id] = _Promise(placement)
        return placement

    async def consider(
        self, spec: model.LoadSpec, weights: Weights
    ) -> tuple[FitResult, Sequence[model.Device]]:
        """Where a load would go now, and the devices as they were judged for it.

        Raises:
            FleetError: it cannot run here.
        """
        spec = self.settled(spec, weights)
        await self._measure()
        devices = [copied(device) for device in self._devices()]
        for promise in self._promises.values():
            _take(promise, devices)
        placement = fit.place(
            spec,
            weights,
            engines=self._engines,
            devices=devices,
            default_engine=self._default_engine,
            gguf=self._gguf,
        )
        return placement, devices

    def note(self, instance_id: str, done_bytes: int) -> None:
        """Records the bytes of a load that are in place: the devices show them as used."""
        promise = self._promises.get(instance_id)
        if promise is not None:
            promise.done_bytes = max(promise.done_bytes, done_bytes)

    def release(self, instance_id: str) -> None:
        """Ends a load's reservation; what it took shows in the devices' figures."""
        self._promises.pop(instance_id, None)


def _take(promise: _Promise, devices: Sequence[model.Device]) -> None:
    """Subtracts what a promise has still to take, by its division, else by what is free."""
    names = promise.placement.shares or promise.placement.key.device_ids
    ours = [one for one in devices if one.device_id in names]
    to_come = max(0, promise.placement.most_bytes - promise.done_bytes)
    shares = {device.device_id: device.memory_free_bytes for device in ours}
    if promise.placement.shares:
        shares = {name: promise.placement.shares[name] for name in shares}
    total = sum(shares.values())
    for device in ours:
        share = to_come * shares[device.device_id] // total if total else 0
        device.memory_free_bytes -= min(share, device.memory_free_bytes)
