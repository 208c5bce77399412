"""The registry's own Control under virtual time and seeded faults."""

from __future__ import annotations

import dataclasses
import os

import pytest

from bench.simulate import device_time, replay
from bench.simulate.fleet import Result, SimulatedFleet
from bench.simulate.runs import run, run_many
from bench.simulate.scenario import APART, FIFTY, QUICK, SMALL, WEEK, Faults
from bench.simulate.world import Broken
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.control.decide import Decider
from services.registry.control.returning import Settling
from services.registry.fleet.policy import Policy
from services.registry.placement import make_room
from services.registry.placement.demand import Demand
from services.registry.scheduler import clearing, evaluate, eviction


@pytest.mark.parametrize("seed", range(25))
def test_a_small_fleet_under_all_faults_breaks_no_invariant(seed):
    assert run(SMALL, seed).broken == ""


# in 719 a model goes to a GPU and the host while the layers of another go to that host
@pytest.mark.parametrize("seed", [*range(3), 719])
def test_fifty_neurons_under_all_faults_break_no_invariant(seed):
    assert run(FIFTY, seed).broken == ""


@pytest.mark.parametrize("seed", range(12))
def test_models_that_are_kept_apart_are_never_loaded_together(seed):
    assert run(APART, seed).broken == ""


def test_a_planted_bug_that_forgets_what_is_kept_apart_is_caught(monkeypatch):
    for module in (clearing, evaluate, make_room):
        monkeypatch.setattr(module, "rivals", lambda *_: {})

    broken = [run(APART, seed).broken for seed in range(6)]

    assert any("of the exclusive group" in b for b in broken)
    assert any("are both on" in b and "group" not in b for b in broken)


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

    monkeypatch.setattr(SchedulerCache, "occupy", lambda *_, **__: None)

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


HOUR = dataclasses.replace(
    WEEK,
    seconds=3600.0,
    requests=300,
    faults=dataclasses.replace(WEEK.faults, deaths=2, partitions=2, squeezes=2, restarts=2),
)


def test_all_that_devices_did_is_somebodys_and_once():
    result = SimulatedFleet(HOUR, 59).run()

    charged = sum(result.charged.values())
    assert result.busy_seconds > 100
    assert charged == pytest.approx(result.busy_seconds, rel=0.02)
    assert len(result.charged) > 3


@pytest.mark.slow
def test_a_week_of_devices_time_adds_up_under_all_faults():
    result = SimulatedFleet(WEEK, 59).run()

    assert sum(result.charged.values()) == pytest.approx(result.busy_seconds, rel=0.02)


def test_a_planted_bug_that_counts_totals_twice_is_caught(monkeypatch):
    monkeypatch.setattr(device_time, "growth", lambda _, totals, __: (totals, totals))

    assert "are charged" in run(SMALL, 1).broken


def test_a_planted_bug_that_forgets_what_was_told_is_caught(monkeypatch):
    monkeypatch.setattr(DeviceUseIntake, "take", lambda *_: None)

    assert "0.000 s are charged" in run(SMALL, 1).broken


def test_a_planted_bug_that_charges_strangers_is_caught(monkeypatch):
    monkeypatch.setattr(Demand, "principal", property(lambda _: "a stranger"))

    assert "never asked" in run(SMALL, 1).broken
