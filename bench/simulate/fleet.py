"""A whole simulated fleet: a real `ControlPlane`, simulated neurons, clients and faults."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from bench.simulate import scenario as scenarios
from bench.simulate.faults import FaultInjector
from bench.simulate.invariants import Invariants
from bench.simulate.link import KEEPALIVE_SECONDS, Link
from bench.simulate.neuron import Neuron
from bench.simulate.requests import Requests
from bench.simulate.scenario import Scenario
from bench.simulate.world import Run, World
from services.backplane.errors import FleetError, Reason
from services.registry.control.control_plane import ControlPlane
from services.registry.control.returning import neurons_to_wait_for
from services.registry.fleet.leases import Leases
from services.registry.fleet.records import CPU
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import (
    Event,
    LoadEnded,
    LoadOrder,
    Redirected,
    UnloadOrder,
    UnloadReason,
    UpdateOrder,
)

_LEASE_SECONDS = 9.0
_ORDERS_OF_ONE_LIFE = 1_000_000
# Seconds since the epoch, where the store has stamps.
_WALL_CLOCK = 1e9


@dataclasses.dataclass(kw_only=True)
class Result:
    """What happened in one run."""

    steps: int
    outcomes: Counter[str]
    swaps: int
    loads: int
    waits: list[float]
    redirects: int
    charged: dict[str, float]
    busy_seconds: float


class SimulatedFleet:
    """One seed's run."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        world = World(seed)
        dice = world.random
        fleet_state = FleetState(
            world.clock,
            scenario.policy,
            catalogue=scenarios.catalogue_of(dice, scenario),
        )
        self._life = 0
        self._run = Run(world, scenario, fleet_state, ControlPlane(fleet_state, self, _leases()))
        self._invariants = Invariants(self._run)
        self._excess = {
            m: dice.uniform(1.1, 1.4) if dice.random() < scenario.faults.short else 1.0
            for m in fleet_state.catalogue.profiles
        }
        self._files = scenarios.files(dice, fleet_state.catalogue)
        self._links: dict[str, Link] = {}
        for index in range(scenario.neurons):
            self._add(f"n{index}", dice.choice("abc"))
        self._requests = Requests(self._run, self._invariants, self._links)

    def _add(self, name: str, zone: str) -> None:
        world = self._run.world
        neuron = Neuron(
            world,
            name,
            scenarios.devices(world.random),
            labels={"zone": zone},
            stored=self._files.values(),
            true_memory=self._true_memory,
            load_seconds=self._load_seconds,
            load_fault=self._load_fault,
        )
        link = self._links[name] = Link(self._run, self._invariants, neuron)
        neuron.on_change = link.report
        world.after(world.random.uniform(0, 2), link.attach)

    def run(self) -> Result:
        """Runs to the end.

        Raises:
            Broken: an invariant did not hold.
        """
        scenario, world, counts = self._run.scenario, self._run.world, self._run.counts
        (requests := self._requests).schedule()
        FaultInjector(self._run, requests, self._links, self._restart_registry).schedule()
        self._keep_books()
        world.run(
            scenario.seconds + scenario.quiet_seconds,
            next_due=self._next_due,
            advance=self._advance,
            is_over=lambda: requests.is_over and world.now > scenario.seconds,
        )
        for link in self._links.values():
            link.tell_all()
        books, works = self._run.bookkeeping, [one.neuron.works for one in self._links.values()]
        books.write()
        busy, charged = sum(one.busy_seconds for one in works), books.stored.seconds
        self._invariants.charged(sum(charged.values()), busy, books.untold(works))
        self._invariants.at_the_end(
            is_over=requests.is_over,
            left=[r.model for r in requests.open.values()],
            outcomes=requests.outcomes,
        )
        return Result(
            steps=world.steps,
            outcomes=Counter(requests.outcomes.values()),
            swaps=counts["evicted"],
            loads=counts["loads"],
            waits=requests.waits,
            redirects=counts["redirected"],
            charged=dict(charged),
            busy_seconds=busy,
        )

    def _keep_books(self) -> None:
        """What neurons have told of the devices' time is written every so often."""
        self._run.bookkeeping.write()
        self._run.world.after(1.0, self._keep_books)

    def _restart_registry(self) -> None:
        """The registry's process ends, and another begins that knows what its store says.

        By chance the store is as good as lost, and the settings name the neurons instead.
        """
        run, old = self._run, self._run.fleet_state
        run.counts["restarts"] += 1
        self._life += 1
        for link in self._links.values():
            link.neuron.hang_up()  # loads end with the caller, unless they were detached
        members = sorted(old.fleet.members)
        is_lost = run.world.random.random() < 0.5
        seen = f"{_WALL_CLOCK:.0f} address"
        expected = neurons_to_wait_for(
            {} if is_lost else dict.fromkeys(members, seen),
            named=members if is_lost else (),
            now=_WALL_CLOCK,
        )
        run.fleet_state = FleetState(
            run.world.clock, old.policy, catalogue=old.catalogue, footprints=old.footprints
        )
        run.control = ControlPlane(run.fleet_state, self, _leases(), expected=expected)
        run.bookkeeping.registry_restarted()
        self._invariants.registry_restarted([self._links[name].neuron for name in sorted(expected)])
        for link in self._links.values():
            link.registry_restarted()
        self._requests.registry_restarted()

    def _next_due(self) -> float:
        return self._run.control.next_due()

    def _advance(self) -> None:
        self._run.control.advance()
        self._invariants.after_advance()

    def _true_memory(
        self, order: LoadOrder, free: Callable[[str], int]
    ) -> tuple[dict[str, int], int]:
        """What a load takes: a GGUF model puts as many layers on the GPU as have room there."""
        model, excess = order.profile.model, self._excess[order.profile.model]
        file = self._files.get(model)
        if file is None or file.gpu_layers is None:
            each = round(self._size(model) * excess / len(order.device_ids))
            return dict.fromkeys(order.device_ids, each), 0
        cache = file.cache_bytes_per_token * file.default_cache_tokens
        layers, gpu = file.gpu_layers.most, order.device_ids[0]
        layer = round((file.gpu_layers.gpu_bytes + cache) * excess / layers)
        fitting = min(layers, free(gpu) // layer)
        left = layers - fitting
        host = round(file.gpu_layers.host_bytes * excess) + left * layer
        return {gpu: fitting * layer, CPU: host}, left

    def _size(self, model: str) -> int:
        file = self._files.get(model)
        return (
            file.size_bytes
            if file
            else self._run.fleet_state.catalogue.profiles[model].memory_bytes
        )

    def _load_seconds(self, model: str) -> float:
        size = self._size(model) / scenarios.GIB
        slow = 10 if self._run.world.random.random() < self._run.scenario.faults.slow else 1
        return (0.5 + size * 0.1) * self._run.world.random.uniform(0.8, 1.2) * slow

    def _load_fault(self, model: str) -> FleetError | None:
        if self._run.world.random.random() < self._run.scenario.faults.fail:
            return FleetError(Reason.LOAD_FAILED, f"{model} failed to load.")
        return None

    def load(self, order: LoadOrder) -> None:
        """Carries a load over the simulated network."""
        self._invariants.load_ordered(order)
        self._run.counts["loads"] += 1
        link = self._links[order.neuron]
        control = self._run.control
        sent = dataclasses.replace(order, order_id=self._number(order.order_id))

        tell = self._line_to(control)

        def begin() -> None:
            if not self._reaches(link, order.incarnation_id):
                lost = FleetError(Reason.NEURON_LOST, f"{order.neuron} does not answer.")
                wait = KEEPALIVE_SECONDS if link.is_cut else 0.01
                tell(wait, lambda: control.on_load_failed(order.order_id, lost))
                return
            self._invariants.load_begins(order, link.neuron)
            link.neuron.load(
                sent,
                progress=lambda p: tell(
                    self._delay(link), lambda: control.on_load_progress(order.order_id, p)
                ),
                ready=lambda i: tell(
                    self._delay(link), lambda: control.on_load_ready(order.order_id, i)
                ),
                failed=lambda e: tell(
                    self._delay(link), lambda: control.on_load_failed(order.order_id, e)
                ),
            )

        tell(self._run.world.latency(), begin)

    def cancel_load(self, order_id: int) -> None:
        """Tells every neuron that could have it; only one has."""
        for link in self._links.values():
            if link.neuron.is_up:
                link.neuron.cancel_load(self._number(order_id))

    def _number(self, order_id: int) -> int:
        """An order's number for neurons: every life of the registry counts from one."""
        return self._life * _ORDERS_OF_ONE_LIFE + order_id

    def unload(self, order: UnloadOrder) -> None:
        """Carries an unload over the simulated network."""
        self._invariants.unload_ordered(order)
        self._run.counts["evicted"] += order.why is UnloadReason.EVICTED
        link, control = self._links[order.neuron], self._run.control
        tell = self._line_to(control)

        def begin() -> None:
            if not self._reaches(link, order.incarnation_id):
                lost = FleetError(Reason.NEURON_LOST, f"{order.neuron} does not answer.")
                wait = KEEPALIVE_SECONDS if link.is_cut else 0.01
                tell(wait, lambda: control.on_unload_failed(order.order_id, lost))
                return
            link.neuron.unload(
                order,
                done=lambda freed: tell(
                    self._delay(link), lambda: control.on_unloaded(order.order_id, freed)
                ),
                failed=lambda e: tell(
                    self._delay(link), lambda: control.on_unload_failed(order.order_id, e)
                ),
            )

        tell(self._run.world.latency(), begin)

    def update(self, order: UpdateOrder) -> None:
        """Neurons of the simulation sample nothing."""

    def record(self, event: Event) -> None:
        """Counts."""
        if isinstance(event, LoadEnded):
            self._run.counts[event.failure or "ready"] += 1
        self._run.counts["redirected"] += isinstance(event, Redirected)

    def _reaches(self, link: Link, incarnation_id: str) -> bool:
        neuron = link.neuron
        return neuron.is_up and not link.is_cut and str(neuron.incarnation) == incarnation_id

    def _delay(self, link: Link) -> float:
        """Seconds of a message from a neuron; while the link is cut it waits, as TCP makes it."""
        return max(0.0, link.cut_until - self._run.world.now) + self._run.world.latency()

    def _line_to(self, control: ControlPlane) -> Callable[[float, Callable[[], None]], None]:
        """The calls of one life of the registry: what comes after its end reaches nobody."""

        def tell(seconds: float, what: Callable[[], None]) -> None:
            self._run.world.after(seconds, lambda: what() if control is self._run.control else None)

        return tell


def _leases() -> Leases:
    return Leases(lease_seconds=_LEASE_SECONDS, forget_seconds=30.0)
