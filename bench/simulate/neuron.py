"""A simulated neuron: true memory, true work, and faults that its scenario orders."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import TypeAlias

from bench.simulate.device_time import Work, Works
from bench.simulate.instance import SimulatedInstance
from bench.simulate.world import Broken, World
from services.backplane.errors import FleetError, Reason
from services.neuron.supervisor.device_use import DeviceUse
from services.registry.fleet.records import (
    CPU,
    Device,
    Instance,
    InstanceState,
    LoadProgress,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
    Worker,
)
from services.registry.placement.orders import LoadOrder, UnloadOrder

TrueMemory: TypeAlias = Callable[[LoadOrder, Callable[[str], int]], tuple[dict[str, int], int]]
_incarnations = itertools.count(1)


class Neuron:
    """One host.

    Args:
        world: time and chance.
        name: unique.
        devices: capacity in bytes by device id.
        stored: files on its disk.
        true_memory: what a load really takes, by device, and how many layers found no room on a
            GPU; it is told what is free.
        load_seconds: how long its load takes here.
    """

    def __init__(
        self,
        world: World,
        name: str,
        devices: dict[str, int],
        *,
        labels: dict[str, str],
        stored: Iterable[StoredModel],
        true_memory: TrueMemory,
        load_seconds: Callable[[str], float],
        load_fault: Callable[[str], FleetError | None],
    ) -> None:
        self.world = world
        self.name = name
        self.devices = devices
        self.labels = labels
        self.squeezed = dict.fromkeys(devices, 0)
        self.is_up = True
        self.incarnation = 0
        self.instances: dict[str, SimulatedInstance] = {}
        self.cycles = 0
        self.on_change: Callable[[], None] = lambda: None
        self._stored = tuple(stored)
        self._true_memory = true_memory
        self._load_seconds = load_seconds
        self._load_fault = load_fault
        self._sequence = 0
        self._loading: dict[str, int] = {}
        self._orders: dict[int, SimulatedInstance] = {}
        self._cancelled: set[int] = set()
        self.works = Works()
        self.boot()

    def boot(self) -> None:
        """Starts a new process, which holds nothing."""
        self.is_up = True
        self.incarnation = next(_incarnations)
        self.works.use = DeviceUse()
        self.instances = {}
        self._loading, self._orders = {}, {}
        self._sequence = 0
        self.cycles = 0

    def die(self) -> list[int]:
        """Kills the process.

        Returns: the requests that die with it.
        """
        self.measure()
        self.works.killed.append((str(self.incarnation), self.works.use))
        self.is_up = False
        lost = [r for held in self.instances.values() for r in held.active]
        self.instances = {}
        return lost

    def measure(self) -> None:
        """Charges what was done until now; a worker does that every half a second."""
        for held in self.instances.values():
            held.measure(self.world.now)

    def _drop(self, held: SimulatedInstance) -> None:
        held.measure(self.world.now)
        self.instances.pop(held.instance_id, None)

    @property
    def identity(self) -> NeuronIdentity:
        """Who it says it is."""
        return NeuronIdentity(self.name, str(self.incarnation), f"{self.name}:1", self.labels)

    def report(self) -> NeuronReport:
        """What it says it holds."""
        self._sequence += 1
        return NeuronReport(
            self._sequence,
            devices=tuple(
                Device(d, "cpu" if d == CPU else "cuda", capacity, max(0, self.free(d)))
                for d, capacity in self.devices.items()
            ),
            instances=tuple(held.report() for held in self.instances.values()),
            stored=self._stored,
            workers=(Worker(tuple(self.devices), self.cycles),),
        )

    def free(self, device: str) -> int:
        """Bytes that are free."""
        used = sum(c.memory.get(device, 0) for c in self.instances.values())
        return self.devices[device] - used - self.squeezed[device]

    def load(
        self,
        order: LoadOrder,
        *,
        progress: Callable[[LoadProgress], None],
        ready: Callable[[Instance], None],
        failed: Callable[[FleetError], None],
    ) -> None:
        """Begins a load, and checks that it may begin."""
        if order.order_id in self._cancelled:
            return
        model = order.profile.model
        for device in order.device_ids:
            if device in self._loading:
                raise Broken(f"two loads at once on {self.name}/{device}: {model}")
        if any(c.model == model for c in self.instances.values()):
            raise Broken(f"{model} is loaded twice on {self.name}")
        fault = self._load_fault(model)
        memory, left = self._true_memory(order, self.free)
        if any(self.free(d) < need for d, need in memory.items()):
            fault = FleetError(Reason.OUT_OF_MEMORY, f"{model} does not fit on {self.name}.")
            memory = {}
        seconds = self._load_seconds(model)
        held = SimulatedInstance(
            instance_id=f"{self.name}/{self.incarnation}/{order.order_id}",
            model=model,
            memory=memory,
            revision=order.profile.revision,
            state=InstanceState.LOADING,
            device_ids=order.device_ids,
            load_seconds=seconds,
            is_detached=order.detach,
            layers_left=left,
            loaded_for=order.principal,
            work=Work(self.works, model, len(order.device_ids), self.world.now),
        )
        for device in order.device_ids:
            self._loading[device] = order.order_id
        self.instances[held.instance_id] = held
        self._orders[order.order_id] = held
        self.on_change()
        ends = seconds * (0.3 if fault else 1.0)
        incarnation = self.incarnation
        for part in (1, 2, 3):
            done = LoadProgress("loading", part, 4)
            told = functools.partial(progress, done)
            self.world.after(
                ends * part / 4, functools.partial(self._if_loading, order, incarnation, told)
            )
        self.world.after(
            ends,
            lambda: self._if_loading(
                order, incarnation, lambda: self._loaded(order, held, fault, ready, failed)
            ),
        )

    def _if_loading(self, order: LoadOrder, incarnation: int, then: Callable[[], None]) -> None:
        if self.is_up and self.incarnation == incarnation and order.order_id in self._orders:
            then()

    def _loaded(
        self,
        order: LoadOrder,
        held: SimulatedInstance,
        fault: FleetError | None,
        ready: Callable[[Instance], None],
        failed: Callable[[FleetError], None],
    ) -> None:
        self._end_load(order.order_id)
        if fault is not None:
            self._drop(held)
            self.on_change()
            failed(fault)
            return
        held.measure(self.world.now)
        held.state = InstanceState.READY
        held.last_used = self.world.now
        self.cycles += 1
        instance = held.report()
        self.on_change()
        ready(instance)

    def cancel_load(self, order_id: int) -> None:
        """Ends a load; its memory is free a moment later."""
        self._cancelled.add(order_id)
        held = self._orders.get(order_id)
        if held is None:
            return
        incarnation = self.incarnation

        def freed() -> None:
            if self.is_up and self.incarnation == incarnation and order_id in self._orders:
                self._end_load(order_id)
                self._drop(held)
                self.on_change()

        self.world.after(self.world.random.uniform(0.01, 0.5), freed)

    def hang_up(self) -> None:
        """The registry's calls are cut: a load that was not detached ends with its caller."""
        for order_id in [o for o, held in self._orders.items() if not held.is_detached]:
            self.cancel_load(order_id)

    def _end_load(self, order_id: int) -> None:
        self._orders.pop(order_id, None)
        self._loading = {d: o for d, o in self._loading.items() if o != order_id}

    def unload(
        self,
        order: UnloadOrder,
        *,
        done: Callable[[int], None],
        failed: Callable[[FleetError], None],
    ) -> None:
        """Drains an instance, then frees it; running requests end by themselves."""
        held = self.instances.get(order.instance_id)
        if held is None:
            failed(FleetError(Reason.INSTANCE_GONE, "It is gone."))
            return
        held.measure(self.world.now)
        held.state, held.unloaded_for = InstanceState.DRAINING, order.principal
        self.on_change()
        incarnation = self.incarnation

        def released() -> None:
            if self.is_up and self.incarnation == incarnation:
                self._drop(held)
                self.cycles += 1
                self.on_change()
                done(sum(held.memory.values()))

        def idle() -> None:
            held.measure(self.world.now)
            held.state, held.on_idle = InstanceState.UNLOADING, None
            self.on_change()
            self.world.after(self.world.random.uniform(0.02, 0.3), released)

        if held.active:
            held.on_idle = idle
        else:
            idle()

    def admit(self, instance_id: str, model: str, request: int, principal: str = "") -> bool:
        """Takes a request, unless the instance is not ready: the neuron is authoritative."""
        held = self.instances.get(instance_id)
        if not self.is_up or held is None or held.state is not InstanceState.READY:
            return False
        if held.model != model:
            raise Broken(f"{instance_id} is {held.model}, and {model} was sent there")
        held.measure(self.world.now)
        held.active[request] = principal
        held.last_used = self.world.now
        self.on_change()
        return True

    def finish(self, instance_id: str, request: int) -> bool:
        """Ends a request; False if it had died before."""
        held = self.instances.get(instance_id)
        if held is None or request not in held.active:
            return False
        held.measure(self.world.now)
        del held.active[request]
        held.last_used = self.world.now
        self.on_change()
        if not held.active and held.on_idle is not None:
            held.on_idle()
        return True
