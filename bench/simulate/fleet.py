"""A whole simulated fleet: a real `ControlPlane`, simulated neurons, clients and faults."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from bench.simulate import scenario as scenarios
from bench.simulate.invariants import Invariants
from bench.simulate.link import KEEPALIVE_SECONDS, Link
from bench.simulate.neuron import Neuron
from bench.simulate.requests import Requests
from bench.simulate.scenario import Scenario
from bench.simulate.world import World
from services.backplane.errors import FleetError, Reason
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.leases import Leases
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import (
    Event,
    LoadEnded,
    LoadOrder,
    Redirected,
    UnloadOrder,
    UnloadReason,
)

_LEASE_SECONDS = 9.0


@dataclasses.dataclass
class Result:
    """What happened in one run."""

    steps: int
    outcomes: Counter[str]
    swaps: int
    loads: int
    waits: list[float]
    redirects: int


class SimulatedFleet:
    """One seed's run."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.world = World(seed)
        dice = self.world.random
        self.fleet_state = FleetState(
            self.world.clock,
            scenario.policy,
            catalogue=scenarios.catalogue(self.world, scenario.models, scenario.neurons),
        )
        leases = Leases(lease_seconds=_LEASE_SECONDS, forget_seconds=30.0)
        self.control = ControlPlane(self.fleet_state, self, leases)
        self.invariants = Invariants(self)
        self.excess = {
            m: dice.uniform(1.1, 1.4) if dice.random() < scenario.faults.short else 1.0
            for m in self.fleet_state.catalogue.profiles
        }
        self.links: dict[str, Link] = {}
        for index in range(scenario.neurons):
            self._add(f"n{index}", dice.choice("abc"))
        self.requests = Requests(self)
        self.counts: Counter[str] = Counter()

    def _add(self, name: str, zone: str) -> None:
        neuron = Neuron(
            self.world,
            name,
            scenarios.devices(self.world),
            labels={"zone": zone},
            true_bytes=self._true_bytes,
            load_seconds=self._load_seconds,
            load_fault=self._load_fault,
        )
        link = self.links[name] = Link(self, neuron)
        neuron.on_change = link.report
        self.world.after(self.world.random.uniform(0, 2), link.attach)

    def run(self) -> Result:
        """Runs to the end.

        Raises:
            Broken: an invariant did not hold.
        """
        self.requests.schedule()
        self._schedule_faults()
        until = self.scenario.seconds + self.scenario.quiet_seconds
        self.world.run(
            until,
            next_due=self.control.next_due,
            advance=self._advance,
            is_over=lambda: self.requests.is_over and self.world.now > self.scenario.seconds,
        )
        self.invariants.at_the_end()
        outcomes = Counter(self.requests.outcomes.values())
        return Result(
            self.world.steps,
            outcomes,
            self.counts["evicted"],
            self.counts["loads"],
            self.requests.waits,
            self.counts["redirected"],
        )

    def _advance(self) -> None:
        self.control.advance()
        self.invariants.after_advance()

    # -- what is true -------------------------------------------------------------------------

    def _true_bytes(self, model: str, devices: int) -> int:
        profile = self.fleet_state.catalogue.profiles[model]
        return round(profile.memory_bytes * self.excess[model] / devices)

    def _load_seconds(self, model: str) -> float:
        size = self.fleet_state.catalogue.profiles[model].memory_bytes / scenarios.GIB
        slow = 10 if self.world.random.random() < self.scenario.faults.slow else 1
        return (0.5 + size * 0.1) * self.world.random.uniform(0.8, 1.2) * slow

    def _load_fault(self, model: str) -> FleetError | None:
        if self.world.random.random() < self.scenario.faults.fail:
            return FleetError(Reason.LOAD_FAILED, f"{model} failed to load.")
        return None

    # -- faults -------------------------------------------------------------------------------

    def _schedule_faults(self) -> None:
        faults, dice = self.scenario.faults, self.world.random
        kinds: tuple[tuple[float, Callable[[], None]], ...] = (
            (faults.deaths, self._kill_one),
            (faults.partitions, self._cut_one),
            (faults.squeezes, self._squeeze_one),
        )
        for expected, fault in kinds:
            for _ in range(round(dice.uniform(0, 2 * expected))):
                self.world.after(dice.uniform(1, self.scenario.seconds), fault)

    def _some_link(self) -> Link:
        return self.links[self.world.random.choice(sorted(self.links))]

    def _kill_one(self) -> None:
        link, world = self._some_link(), self.world
        if not link.neuron.is_up:
            return
        self.requests.died(link.neuron.die())
        # a killed process closes its connections; a killed host does not
        noticed = world.random.choice((0.002, 0.002, KEEPALIVE_SECONDS))
        world.after(noticed, link.broke)

        def back() -> None:
            link.neuron.boot()
            link.attach()

        world.after(noticed + world.random.uniform(0.5, 20), back)

    def _cut_one(self) -> None:
        link, world = self._some_link(), self.world
        seconds = world.random.uniform(1, 40)
        link.cut_until = max(link.cut_until, world.now + seconds)
        if seconds > KEEPALIVE_SECONDS:
            world.after(KEEPALIVE_SECONDS, link.broke)
            world.after(seconds, link.attach)

    def _squeeze_one(self) -> None:
        neuron, world = self._some_link().neuron, self.world
        device = world.random.choice(sorted(neuron.devices))
        taken = max(0, round(neuron.free(device) * world.random.uniform(0.2, 1.0)))
        neuron.squeezed[device] += taken
        neuron.on_change()

        def released() -> None:
            neuron.squeezed[device] -= taken
            neuron.on_change()

        world.after(world.random.uniform(5, 60), released)

    # -- effects ------------------------------------------------------------------------------

    def load(self, order: LoadOrder) -> None:
        """Carries a load over the simulated network."""
        self.counts["loads"] += 1
        link = self.links[order.neuron]
        control = self.control

        def failed(error: FleetError) -> None:
            self._answer(link, lambda: control.on_load_failed(order.order_id, error))

        def begin() -> None:
            if not self._reaches(link, order.incarnation_id):
                lost = FleetError(Reason.NEURON_LOST, f"{order.neuron} does not answer.")
                wait = KEEPALIVE_SECONDS if link.is_cut else 0.01
                self.world.after(wait, lambda: control.on_load_failed(order.order_id, lost))
                return
            self.invariants.load_begins(order, link.neuron)
            link.neuron.load(
                order,
                progress=lambda p: self._answer(
                    link, lambda: control.on_load_progress(order.order_id, p)
                ),
                ready=lambda i: self._answer(
                    link, lambda: control.on_load_ready(order.order_id, i)
                ),
                failed=failed,
            )

        self.world.after(self.world.latency(), begin)

    def cancel_load(self, order_id: int) -> None:
        """Tells every neuron that could have it; only one has."""
        for link in self.links.values():
            if link.neuron.is_up:
                link.neuron.cancel_load(order_id)

    def unload(self, order: UnloadOrder) -> None:
        """Carries an unload over the simulated network."""
        self.invariants.unload_ordered(order)
        self.counts["evicted"] += order.why is UnloadReason.EVICTED
        link, control = self.links[order.neuron], self.control

        def begin() -> None:
            if not self._reaches(link, order.incarnation_id):
                lost = FleetError(Reason.NEURON_LOST, f"{order.neuron} does not answer.")
                wait = KEEPALIVE_SECONDS if link.is_cut else 0.01
                self.world.after(wait, lambda: control.on_unload_failed(order.order_id, lost))
                return
            link.neuron.unload(
                order,
                done=lambda freed: self._answer(
                    link, lambda: control.on_unloaded(order.order_id, freed)
                ),
                failed=lambda e: self._answer(
                    link, lambda: control.on_unload_failed(order.order_id, e)
                ),
            )

        self.world.after(self.world.latency(), begin)

    def record(self, event: Event) -> None:
        """Counts."""
        if isinstance(event, LoadEnded):
            self.counts[event.failure or "ready"] += 1
        self.counts["redirected"] += isinstance(event, Redirected)

    def _reaches(self, link: Link, incarnation_id: str) -> bool:
        neuron = link.neuron
        return neuron.is_up and not link.is_cut and str(neuron.incarnation) == incarnation_id

    def _answer(self, link: Link, then: Callable[[], None]) -> None:
        """A message from a neuron; while the link is cut it waits, as TCP makes it."""
        held = max(0.0, link.cut_until - self.world.now)
        self.world.after(held + self.world.latency(), then)
