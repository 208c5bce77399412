"""`python -m bench.simulate`: runs seeds of a scenario and says what broke, with its seed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import NamedTuple

from bench.simulate.fleet import Result, SimulatedFleet
from bench.simulate.neuron import Broken
from bench.simulate.scenario import FIFTY, SMALL, Scenario

SCENARIOS = {"fifty": FIFTY, "small": SMALL}


class Run(NamedTuple):
    """One seed's end."""

    seed: int
    result: Result | None
    broken: str


def run(scenario: Scenario, seed: int) -> Run:
    """Runs one seed."""
    try:
        return Run(seed, SimulatedFleet(scenario, seed).run(), "")
    except Broken as broken:
        return Run(seed, None, str(broken))


def run_named(job: tuple[str, int]) -> Run:
    """Runs one seed of a scenario by name, for a pool."""
    return run(SCENARIOS[job[0]], job[1])


def run_many(name: str, seeds: range, processes: int) -> list[Run]:
    """Runs many seeds on several processes."""
    jobs = [(name, seed) for seed in seeds]
    if processes == 1:
        return [run_named(job) for job in jobs]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(run_named, jobs, chunksize=10)


def main() -> int:
    """Runs and reports; exit code 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="fifty")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    began = time.perf_counter()
    seeds = range(asked.first, asked.first + asked.seeds)
    runs = run_many(asked.scenario, seeds, asked.processes)
    seconds = time.perf_counter() - began
    broken = [r for r in runs if r.broken]
    for one in broken[:20]:
        print(f"seed {one.seed}: {one.broken}")
    outcomes: Counter[str] = sum((r.result.outcomes for r in runs if r.result), Counter())
    steps = sum(r.result.steps for r in runs if r.result)
    loads = sum(r.result.loads for r in runs if r.result)
    swaps = sum(r.result.swaps for r in runs if r.result)
    print(f"{len(runs)} seeds of {asked.scenario}, {len(broken)} broken, {seconds:.1f} s")
    print(f"{steps} steps, {loads} loads, {swaps} evictions; {dict(outcomes.most_common())}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
