"""`python -m bench.simulate`: runs seeds of a scenario and says what broke, with its seed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from bench.simulate.runs import SCENARIOS, run_many


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
    turned = sum(r.result.redirects for r in runs if r.result)
    print(f"{steps} steps, {loads} loads, {swaps} evictions, {turned} drains not waited for")
    charged = sum(sum(r.result.charged.values()) for r in runs if r.result)
    busy = sum(r.result.busy_seconds for r in runs if r.result)
    share = f" ({charged / busy:.2%})" if busy else ""
    print(f"devices worked for {busy:.2f} s, of which {charged:.2f} s are charged to keys{share}")
    print(dict(outcomes.most_common()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
