"""The registry's own Control under virtual time and seeded faults."""

from __future__ import annotations

import dataclasses
import os

import pytest

from bench.simulate import replay
from bench.simulate.fleet import Result, SimulatedFleet
from bench.simulate.runs import run, run_many
from bench.simulate.scenario import FIFTY, QUICK, SMALL, Faults
from bench.simulate.world import Broken
from services.registry.control.decide import Decider
from services.registry.control.returning import Settling
from services.registry.fleet.policy import Policy
from services.registry.scheduler import eviction


@pytest.mark.parametrize("seed", range(25))
def test_a_small_fleet_under_all_faults_breaks_no_invariant(seed):
    assert run(SMALL, seed).broken == ""


@pytest.mark.parametrize("seed", range(3))
def test_fifty_neurons_under_all_faults_break_no_invariant(seed):
    assert run(FIFTY, seed).broken == ""


def test_the_same_seed_is_the_same_history():
    first, second = SimulatedFleet(SMALL, 7).run(), SimulatedFleet(SMALL, 7).run()

    assert first == second


def test_without_faults_every_feasible_request_is_answered():
    calm = dataclasses.replace(SMALL, neurons=10, faults=Faults())

    result = SimulatedFleet(calm, 1).run()

    assert set(result.outcomes) <= {"answered", "client left", "MODEL_UNKNOWN", "NO_ROOM"}
    assert result.outcomes["answered"] > calm.requests * 0.8


def test_a_planted_bug_that_ignores_work_in_flight_is_caught(monkeypatch):
    honest = eviction.may_go_now

    def careless(holding, incoming):
        return honest(dataclasses.replace(holding, in_flight=0), incoming)

    monkeypatch.setattr(eviction, "may_go_now", careless)

    broken = [run(SMALL, seed).broken for seed in range(20)]

    assert any("requests in flight and is evicted" in b for b in broken)


def test_a_planted_bug_that_ignores_pins_is_caught(monkeypatch):
    monkeypatch.setattr(eviction, "immunity", lambda *_: "")
    crowded = dataclasses.replace(FIFTY, neurons=12, models=60, faults=Faults())

    broken = [run(crowded, seed).broken for seed in range(6)]

    assert any("pinned" in b or "higher class" in b for b in broken)


def test_a_planted_bug_that_loads_while_a_device_loads_is_caught(monkeypatch):
    from services.registry.scheduler.cache import SchedulerCache

    monkeypatch.setattr(SchedulerCache, "occupy", lambda *_: None)

    broken = [run(SMALL, seed).broken for seed in range(20)]

    assert any("two loads" in b or "over-committed" in b or "twice" in b for b in broken)


def test_a_planted_bug_that_places_before_returning_neurons_are_back_is_caught(monkeypatch):
    monkeypatch.setattr(Settling, "is_over", lambda *_: True)

    broken = [run(SMALL, seed).broken for seed in range(20)]

    assert any("which the registry waits for after its restart" in b for b in broken)


def test_what_falls_idle_goes_in_the_place_of_a_long_drain(monkeypatch):
    """The same seeds with and without it: whoever waits behind long answers waits less."""
    patient = dataclasses.replace(QUICK, patience=2.0)
    behind_long_answers = dataclasses.replace(
        SMALL, neurons=4, requests=120, long=0.1, faults=Faults(), policy=patient
    )

    def results() -> list[Result]:
        return [SimulatedFleet(behind_long_answers, seed).run() for seed in range(20)]

    reconsidered = results()
    monkeypatch.setattr(Decider, "reconsider", lambda *_: None)
    committed = results()

    assert sum(r.redirects for r in reconsidered) > 0
    assert sum(r.redirects for r in committed) == 0
    assert max(max(r.waits) for r in reconsidered) <= max(max(r.waits) for r in committed)
    assert sum(sum(r.waits) for r in reconsidered) < sum(sum(r.waits) for r in committed)


def test_a_swap_for_one_user_waits_for_nothing_but_the_load():
    """Two models in turn, each asked for when the other has been answered."""
    trace = replay.one_user(models=2, requests=40)

    figures = replay.run(trace, slots=1, strategy="lru", policy=Policy(max_wait=1e9))

    assert figures.cold_starts == len(trace)
    assert figures.longest < replay.LOAD_SECONDS + 0.5


def test_what_protects_from_thrash_costs_the_fleet_no_loads():
    """The same trace; the figures with protection from the first second of every instance."""
    trace = replay.synthetic(seed=1, models=8, requests=2000)

    figures = {
        seconds: replay.run(
            trace,
            slots=3,
            strategy="lru",
            policy=Policy(max_wait=1e9, minimum_residency=seconds),
        )
        for seconds in (5.0, 10.0)
    }

    assert figures[5.0].loads <= 430
    assert round(figures[5.0].waited, 2) <= 1.52
    assert figures[10.0].loads <= 325
    assert round(figures[10.0].waited, 2) <= 1.12


def test_strategies_are_compared_with_an_optimum_that_none_can_beat():
    trace = replay.synthetic(seed=3, models=6, requests=400)

    figures = {name: replay.run(trace, slots=3, strategy=name) for name in ("lru", "priority")}
    best = replay.optimum(trace, slots=3)

    for figure in figures.values():
        assert figure.answered == len(trace)
        assert figure.loads >= best


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_seeds_of_fifty_neurons_break_no_invariant():
    runs = run_many("fifty", range(1000), os.cpu_count() or 1)

    assert [(r.seed, r.broken) for r in runs if r.broken] == []


def test_a_broken_invariant_is_reported_with_its_seed():
    assert issubclass(Broken, Exception)
    assert run(SMALL, 5).seed == 5
