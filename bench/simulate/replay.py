"""Replays a trace of requests and compares strategies with an offline optimum.

A trace is a list of (second, model); `read` takes one a line, as `second model`. The fleet is the
plainest one in which strategies differ: one device with room for so many models, all of one size
and class, loads of a fixed time. The optimum knows the future (Belady): it evicts whichever model
is asked for again last, and loads are counted, which no strategy can make fewer.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import random
from collections import Counter
from collections.abc import Iterable

from bench.simulate.neuron import Neuron
from bench.simulate.world import World
from services.backplane.errors import FleetError
from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.leases import Leases
from services.registry.fleet.policy import Policy, Strategy
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import Event, LoadOrder, UnloadOrder, UpdateOrder
from services.registry.placement.progress import Placed, Step

Trace = list[tuple[float, str]]
_SIZE = 1 << 30
LOAD_SECONDS = 4.0
_WORK_SECONDS = 1.0


@dataclasses.dataclass
class Figures:
    """One strategy on one trace.

    Attributes:
        loads: every load, the first of each model too; cold_starts: requests that waited for one.
        waited: mean seconds that a request waited; longest: the worst.
    """

    loads: int = 0
    swaps: int = 0
    answered: int = 0
    cold_starts: int = 0
    waits: list[float] = dataclasses.field(default_factory=list[float])

    @property
    def waited(self) -> float:
        """Mean wait in seconds."""
        return sum(self.waits) / max(1, len(self.waits))

    @property
    def longest(self) -> float:
        """Longest wait in seconds."""
        return max(self.waits, default=0.0)


class _Replay:
    """One run: the control, one neuron, and requests as the trace has them."""

    def __init__(
        self, trace: Trace, slots: int, strategy: str, policy: Policy, *, classes: bool
    ) -> None:
        self.world = World(0)
        self.figures = Figures()
        self._trace = trace
        models = sorted({model for _, model in trace})
        # the most asked for are of a higher class; one slot is left to the others, so that all run
        counts = Counter(model for _, model in trace)
        high = {model for model, _ in counts.most_common(slots - 1)} if classes else set[str]()
        profiles = {
            m: Profile(
                m,
                LoadTerms(source=f"path:/{m}"),
                1,
                memory_bytes=_SIZE,
                residency_class=200 if m in high else 100,
            )
            for m in models
        }
        policy = dataclasses.replace(policy, strategy=Strategy(strategy))
        self.fleet_state = FleetState(
            self.world.clock, policy, catalogue=Catalogue(profiles, {}, 1)
        )
        self.control = ControlPlane(
            self.fleet_state, self, Leases(lease_seconds=1e9, forget_seconds=1e9)
        )
        self.neuron = Neuron(
            self.world,
            "n",
            {"gpu": slots * _SIZE},
            labels={},
            stored=(),
            true_memory=lambda order, _free: (dict.fromkeys(order.device_ids, _SIZE), 0),
            load_seconds=lambda _: LOAD_SECONDS,
            load_fault=lambda _: None,
        )
        self._epoch = self.control.membership.attach(self.neuron.identity)
        self.neuron.on_change = self._report
        self._report()

    def run(self) -> Figures:
        for number, (at, model) in enumerate(self._trace):
            self.world.after(at, functools.partial(self._ask, number, model, at))
        self.world.run(
            self._trace[-1][0] + 1e6,
            next_due=self.control.next_due,
            advance=self.control.advance,
            is_over=lambda: self.figures.answered == len(self._trace),
        )
        return self.figures

    def _report(self) -> None:
        self.control.membership.report("n", self._epoch, self.neuron.report())
        self.world.after(0.0, self.control.advance)

    def _ask(self, number: int, model: str, came: float) -> None:
        for instance in self.neuron.instances.values():
            if instance.model == model and self._send(instance.instance_id, number, model, came):
                return
        self.figures.cold_starts += 1
        caller = _Caller(self, number, model, came)
        self.control.ensure(model, caller)

    def placed(self, caller: _Caller, placed: Placed) -> None:
        if not self._send(placed.instance_id, caller.number, caller.model, caller.came):
            self.control.ensure(caller.model, caller)

    def _send(self, instance_id: str, number: int, model: str, came: float) -> bool:
        if not self.neuron.admit(instance_id, model, number):
            return False
        self.figures.waits.append(self.world.now - came)
        self.figures.answered += 1
        self.world.after(_WORK_SECONDS, functools.partial(self._finish, instance_id, number))
        return True

    def _finish(self, instance_id: str, number: int) -> None:
        self.neuron.finish(instance_id, number)

    # -- effects ------------------------------------------------------------------------------

    def load(self, order: LoadOrder) -> None:
        self.figures.loads += 1
        self.neuron.load(
            order,
            progress=lambda p: self.control.on_load_progress(order.order_id, p),
            ready=lambda i: self.control.on_load_ready(order.order_id, i),
            failed=lambda e: self.control.on_load_failed(order.order_id, e),
        )

    def cancel_load(self, order_id: int) -> None:
        self.neuron.cancel_load(order_id)

    def unload(self, order: UnloadOrder) -> None:
        self.figures.swaps += 1
        self.neuron.unload(
            order,
            done=lambda freed: self.control.on_unloaded(order.order_id, freed),
            failed=lambda e: self.control.on_unload_failed(order.order_id, e),
        )

    def update(self, order: UpdateOrder) -> None:
        """Neurons of the simulation sample nothing."""

    def record(self, event: Event) -> None:
        """Nothing is recorded."""


@dataclasses.dataclass(eq=False)
class _Caller:
    replay: _Replay
    number: int
    model: str
    came: float

    def on_step(self, step: Step) -> None:
        if isinstance(step, Placed):
            self.replay.placed(self, step)

    def on_failed(self, error: FleetError) -> None:
        raise AssertionError(f"{self.model} was refused: {error}")


def run(
    trace: Trace,
    *,
    slots: int,
    strategy: str,
    policy: Policy | None = None,
    classes: bool = False,
) -> Figures:
    """Replays a trace.

    Args:
        trace: requests by time.
        slots: models that fit at once.
        strategy: `lru` or `priority`.
        policy: other rules; patient ones by default, so that no request is refused.
        classes: give the most asked for models a higher class, all but one slot's worth of them.
    """
    rules = policy or Policy(max_wait=1e9)
    return _Replay(trace, slots, strategy, rules, classes=classes).run()


def optimum(trace: Iterable[tuple[float, str]], *, slots: int) -> int:
    """The fewest loads with which a trace can be served in its order (Belady 1966)."""
    models = [model for _, model in trace]
    following: list[float] = [0.0] * len(models)
    next_at: dict[str, int] = {}
    for index in range(len(models) - 1, -1, -1):
        following[index] = next_at.get(models[index], float("inf"))
        next_at[models[index]] = index
    loaded: dict[str, float] = {}
    loads = 0
    for index, model in enumerate(models):
        if model not in loaded:
            loads += 1
            if len(loaded) == slots:
                del loaded[max(loaded, key=lambda m: loaded[m])]
        loaded[model] = following[index]
    return loads


def synthetic(*, seed: int, models: int, requests: int) -> Trace:
    """Requests that come in sessions: somebody works with one model for a while."""
    dice = random.Random(seed)
    names = [f"m{i}" for i in range(models)]
    weights = [1 / (i + 1) for i in range(models)]
    trace: Trace = []
    now = 0.0
    while len(trace) < requests:
        model = dice.choices(names, weights)[0]
        for _ in range(dice.randint(1, 8)):
            trace.append((now, model))
            now += dice.expovariate(1 / 3.0)
    return trace[:requests]


def one_user(*, models: int, requests: int) -> Trace:
    """One user who takes turns with models and asks again when the last answer is there."""
    spacing = 2 * LOAD_SECONDS
    return [(spacing * number, f"m{number % models}") for number in range(requests)]


def read(path: pathlib.Path) -> Trace:
    """A trace from a file of `second model` lines."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line)
    return sorted((float(at), model) for at, model in lines)


def main() -> None:
    """Prints a table for a trace, or for a synthetic one."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate.replay", description=__doc__)
    parser.add_argument("--trace", type=pathlib.Path)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    trace = (
        read(asked.trace)
        if asked.trace
        else synthetic(seed=asked.seed, models=asked.models, requests=asked.requests)
    )
    best = optimum(trace, slots=asked.slots)
    print(f"{len(trace)} requests, {asked.slots} slots; optimum: {best} loads")
    for strategy, classes in (("lru", False), ("lru", True), ("priority", True)):
        name = f"{strategy}{', classes' * classes}"
        for residency in (0.0, 5.0, 10.0, 20.0):
            policy = Policy(max_wait=1e9, minimum_residency=residency)
            f = run(trace, slots=asked.slots, strategy=strategy, policy=policy, classes=classes)
            print(
                f"{name:17} residency {residency:4.0f} s: {f.loads:5} loads "
                f"({f.loads / best:.2f} x optimum), {f.swaps:5} swaps, "
                f"cold {f.cold_starts / len(trace):6.1%}, wait {f.waited:6.2f} s mean, "
                f"{f.longest:6.1f} s most"
            )
    f = run(one_user(models=2, requests=40), slots=1, strategy="lru", policy=Policy(max_wait=1e9))
    print(
        f"one user, two models in turn, one slot: wait {f.waited:.2f} s mean, "
        f"{f.longest:.1f} s most, of which {LOAD_SECONDS:.0f} s load"
    )


if __name__ == "__main__":
    main()
