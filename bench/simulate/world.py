"""Virtual time, and what the parts of one simulated run share."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

from bench.simulate.device_time import Bookkeeping
from bench.simulate.scenario import Scenario
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.state import FleetState


class Broken(Exception):  # noqa: N818 - it is the finding, not an error of the program
    """An invariant does not hold; the message says which, when and where."""


class World:
    """A heap of events. Nothing here reads a real clock; one seed gives one history."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.steps = 0

    def clock(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Lets something happen later."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), event))

    def latency(self) -> float:
        """Seconds that one message takes."""
        return self.random.uniform(0.0005, 0.01)

    def run(
        self,
        until: float,
        *,
        next_due: Callable[[], float],
        advance: Callable[[], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Lets events happen, and the control's own time pass between them.

        Args:
            until: when to stop.
            next_due: when the control has something to do by itself.
            advance: lets it do that.
            is_over: asked after each step; ends the run early.
        """
        while not is_over():
            event_at = self._heap[0][0] if self._heap else float("inf")
            due_at = max(self.now, next_due())
            if min(event_at, due_at) > until:
                self.now = until
                return
            self.steps += 1
            if event_at <= due_at:
                self.now, _, event = heapq.heappop(self._heap)
                event()
            else:
                self.now = due_at
                advance()


@dataclasses.dataclass
class Run:
    """One seed's run, as all its parts see it. A restart of the registry replaces its two parts.

    Attributes:
        world: time and chance.
        scenario: what is simulated.
        fleet_state: what the registry believes.
        control: the registry's own control plane, which is what is tested.
        bookkeeping: what the registry makes of the devices' time; its tables outlive it.
        counts: how often each thing happened, by a name of its own.
    """

    world: World
    scenario: Scenario
    fleet_state: FleetState
    control: ControlPlane
    bookkeeping: Bookkeeping = dataclasses.field(default_factory=Bookkeeping)
    counts: Counter[str] = dataclasses.field(default_factory=Counter[str])
