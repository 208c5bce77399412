"""Faults that come from outside: neurons die, the network is cut, others take memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.simulate.link import KEEPALIVE_SECONDS, Link
from bench.simulate.requests import Requests
from bench.simulate.world import Run


class FaultInjector:
    """Lets the faults of a run's scenario happen.

    Args:
        run: what they happen in.
        requests: told of those that die with a neuron.
        links: every neuron's, by its name.
        restart: puts a new registry in the place of the one that runs.
    """

    def __init__(
        self,
        run: Run,
        requests: Requests,
        links: Mapping[str, Link],
        restart: Callable[[], None],
    ) -> None:
        self._run, self._requests, self._links = run, requests, links
        self._restart = restart

    def schedule(self) -> None:
        """Draws how many of each there are, and when; each then happens by itself."""
        faults, dice = self._run.scenario.faults, self._run.world.random
        kinds: tuple[tuple[float, Callable[[], None]], ...] = (
            (faults.deaths, self._kill_one),
            (faults.partitions, self._cut_one),
            (faults.squeezes, self._squeeze_one),
            (faults.restarts, self._restart),
        )
        for expected, fault in kinds:
            for _ in range(round(dice.uniform(0, 2 * expected))):
                self._run.world.after(dice.uniform(1, self._run.scenario.seconds), fault)

    def _some_link(self) -> Link:
        return self._links[self._run.world.random.choice(sorted(self._links))]

    def _kill_one(self) -> None:
        link, world = self._some_link(), self._run.world
        if not link.neuron.is_up:
            return
        self._run.counts["killed"] += 1
        self._requests.died(link.neuron.die())
        # a killed process closes its connections; a killed host does not
        noticed = world.random.choice((0.002, 0.002, KEEPALIVE_SECONDS))
        world.after(noticed, link.broke)

        def back() -> None:
            link.neuron.boot()
            link.attach()

        world.after(noticed + world.random.uniform(0.5, 20), back)

    def _cut_one(self) -> None:
        link, world = self._some_link(), self._run.world
        seconds = world.random.uniform(1, 40)
        link.cut_until = max(link.cut_until, world.now + seconds)
        if seconds > KEEPALIVE_SECONDS:
            world.after(KEEPALIVE_SECONDS, link.broke)
            world.after(seconds, link.attach)

    def _squeeze_one(self) -> None:
        neuron, world = self._some_link().neuron, self._run.world
        device = world.random.choice(sorted(neuron.devices))
        taken = max(0, round(neuron.free(device) * world.random.uniform(0.2, 1.0)))
        neuron.squeezed[device] += taken
        neuron.on_change()

        def released() -> None:
            neuron.squeezed[device] -= taken
            neuron.on_change()

        world.after(world.random.uniform(5, 60), released)
