"""Clients and their gateway: requests that come in bursts, try, are refused, and try again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from bench.simulate.invariants import Invariants
from bench.simulate.link import Link
from bench.simulate.world import Run
from services.backplane.errors import FleetError
from services.registry.fleet.records import InstanceState
from services.registry.placement.demand import Ticket
from services.registry.placement.progress import Placed, Step

_MOST_TRIES = 8
_KEYS = 7
# Seconds that a long answer takes.
_LONG = (20.0, 40.0)


@dataclasses.dataclass(eq=False)
class Request:
    """One client's request, which is also who waits for its placement."""

    requests: Requests
    number: int
    model: str
    seconds: float
    principal: str = ""
    came_at: float = 0.0
    tries: int = 0
    waiting_since: float | None = None
    ticket: Ticket | None = None
    excluded: set[str] = dataclasses.field(default_factory=set)

    def on_step(self, step: Step) -> None:
        """Goes where it was sent."""
        if isinstance(step, Placed):
            self.requests.placed(self, step)

    def on_failed(self, error: FleetError) -> None:
        """Ends with the reason."""
        self.requests.refused(self, error)


class Requests:
    """All of them, and how each ended."""

    def __init__(self, run: Run, invariants: Invariants, links: Mapping[str, Link]) -> None:
        self._run, self._invariants, self._links = run, invariants, links
        self.outcomes: dict[int, str] = {}
        self.open: dict[int, Request] = {}
        self.waits: list[float] = []
        self._expected = run.scenario.requests

    @property
    def is_over(self) -> bool:
        """True once every request has ended."""
        return len(self.outcomes) == self._expected

    def schedule(self) -> None:
        """Bursts: a few models are popular at a time."""
        world, scenario = self._run.world, self._run.scenario
        models = sorted(self._run.fleet_state.catalogue.profiles)
        for number in range(scenario.requests):
            at = world.random.uniform(1.0, scenario.seconds)
            popular = models[: max(3, len(models) // 3)]
            model = world.random.choice(popular if world.random.random() < 0.6 else models)
            is_long = world.random.random() < scenario.long
            seconds = world.random.uniform(*_LONG) if is_long else world.random.expovariate(1 / 3)
            principal = f"key {world.random.randrange(_KEYS)}"
            request = Request(self, number, model, seconds, principal)
            world.after(at, functools.partial(self._come, request))

    def _come(self, request: Request) -> None:
        request.came_at = self._run.world.now
        self.open[request.number] = request
        self.attempt(request)

    def attempt(self, request: Request) -> None:
        """As the gateway does: an instance that the view has, else the registry is asked."""
        fleet_state = self._run.fleet_state
        profile = fleet_state.catalogue.profiles[request.model]
        best: tuple[int, str, str] | None = None
        for member, instance in fleet_state.fleet.instances_of(request.model):
            if (
                instance.state is InstanceState.READY
                and fleet_state.is_routable(profile, member, instance)
                and instance.instance_id not in request.excluded
            ):
                found = (instance.in_flight, member.name, instance.instance_id)
                best = min(best, found) if best else found
        if best is not None:
            self._send(request, best[1], best[2])
        else:
            self.ask(request)

    def ask(self, request: Request) -> None:
        """Waits for a placement."""
        request.waiting_since = self._run.world.now
        self._invariants.asks(request.model, request.principal)
        try:
            ticket = self._run.control.ensure(
                request.model,
                request,
                excluded=frozenset(request.excluded),
                principal=request.principal,
            )
        except FleetError as error:
            self.refused(request, error)
            return
        if request.waiting_since is not None:
            request.ticket = ticket
            self._invariants.waits(request)
        if self._run.world.random.random() < 0.05:
            impatience = self._run.world.random.uniform(0.1, 5)
            self._run.world.after(impatience, lambda: self._leave(request))

    def _leave(self, request: Request) -> None:
        if request.ticket is not None and request.waiting_since is not None:
            self._run.control.leave(request.ticket)
            self._end(request, "client left")

    def registry_restarted(self) -> None:
        """Whoever waits for a placement asks the new registry; nothing else is disturbed."""
        for request in list(self.open.values()):
            if request.ticket is not None:
                request.waiting_since, request.ticket = None, None
                pause = self._run.world.random.uniform(0.0, 0.5)
                self._run.world.after(pause, functools.partial(self.attempt, request))

    def placed(self, request: Request, placed: Placed) -> None:
        """On its way to the instance."""
        self._waited(request)
        self._run.world.after(
            self._run.world.latency(),
            lambda: self._send(request, placed.neuron, placed.instance_id),
        )

    def refused(self, request: Request, error: FleetError) -> None:
        """Told why not."""
        self._waited(request)
        self._end(request, error.reason.value)

    def _waited(self, request: Request) -> None:
        if request.waiting_since is not None:
            self.waits.append(self._run.world.now - request.waiting_since)
            request.waiting_since, request.ticket = None, None

    def _send(self, request: Request, neuron_name: str, instance_id: str) -> None:
        link = self._links[neuron_name]
        if link.is_cut or not link.neuron.admit(
            instance_id, request.model, request.number, request.principal
        ):
            self._again(request, instance_id)
            return

        def finished() -> None:
            if link.neuron.finish(instance_id, request.number):
                self._end(request, "answered")

        self._run.world.after(request.seconds, finished)

    def _again(self, request: Request, instance_id: str) -> None:
        request.tries += 1
        request.excluded.add(instance_id)
        if request.tries > _MOST_TRIES:
            self._end(request, "tried too often")
        else:
            self._run.world.after(self._run.world.latency(), lambda: self.attempt(request))

    def died(self, numbers: list[int]) -> None:
        """Their neuron was killed under them: half had not begun to answer, and try again."""
        for number in numbers:
            request = self.open[number]
            if self._run.world.random.random() < 0.5:
                self._run.world.after(0.01, functools.partial(self.attempt, request))
            else:
                self._end(request, "neuron died")

    def _end(self, request: Request, outcome: str) -> None:
        if request.number not in self.outcomes:
            self.outcomes[request.number] = outcome
            self.open.pop(request.number, None)
            request.waiting_since, request.ticket = None, None
