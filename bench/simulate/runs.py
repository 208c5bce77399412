"""Runs seeds of a scenario, on several processes where asked."""

from __future__ import annotations

import multiprocessing
from typing import NamedTuple

from bench.simulate.fleet import Result, SimulatedFleet
from bench.simulate.scenario import APART, FIFTY, SMALL, WEEK, Scenario
from bench.simulate.world import Broken

SCENARIOS = {"apart": APART, "fifty": FIFTY, "small": SMALL, "week": WEEK}


class SeedResult(NamedTuple):
    """One seed's end."""

    seed: int
    result: Result | None
    broken: str


def run(scenario: Scenario, seed: int) -> SeedResult:
    """Runs one seed."""
    try:
        return SeedResult(seed, SimulatedFleet(scenario, seed).run(), "")
    except Broken as broken:
        return SeedResult(seed, None, str(broken))


def run_named(job: tuple[str, int]) -> SeedResult:
    """Runs one seed of a scenario by name, for a pool."""
    return run(SCENARIOS[job[0]], job[1])


def run_many(name: str, seeds: range, processes: int) -> list[SeedResult]:
    """Runs many seeds on several processes."""
    jobs = [(name, seed) for seed in seeds]
    if processes == 1:
        return [run_named(job) for job in jobs]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(run_named, jobs, chunksize=10)
