"""`python -m bench.chaos`: every process killed, stopped and cut off, and what clients saw of it.

Two gateways behind a balancer, two registries on a PostgreSQL, two neurons with llama.cpp and
scripted models, each a process of its own behind a proxy. Clients by the OpenAI and
Anthropic SDKs with their default retries ask all the while, streamed and whole, and check every
word. A table at the end; exit code 1 where a client saw what it may not see.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path

from bench.chaos.faults import Fault, every
from bench.chaos.parts import KEY, Parts, fleet_of_two
from bench.chaos.report import Row, table
from bench.chaos.run import torment
from bench.conditions import Conditions
from bench.traffic.clients import SdkClients
from bench.traffic.load import Habits, Load

_PATIENCE_SECONDS = 120.0


def main() -> int:
    """Runs, prints; 1 where a client saw what it may not see."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults, at least")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--only", default="", help="faults whose words contain this")
    parser.add_argument("--logs", type=Path, help="keep logs and settings here")
    asked = parser.parse_args()
    conditions = Conditions(python=sys.executable)
    with tempfile.TemporaryDirectory(prefix="cortex-chaos-") as spare:
        folder: Path = asked.logs or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        rows = asyncio.run(_run(asked, folder))
    print(table(rows))
    print(conditions.describe(rounds=1, seconds=asked.minutes * 60))
    return int(any(row.unforgiven() for row in rows))


async def _run(asked: argparse.Namespace, folder: Path) -> list[Row]:
    faults = [one for one in every() if asked.only in str(one)]
    async with (
        fleet_of_two(folder) as parts,
        SdkClients(parts.url, key=KEY, patience_seconds=_PATIENCE_SECONDS) as clients,
    ):
        load = Load(clients, Habits(tokens=(20, 300)))
        await load.load_models()  # before the clock runs
        load.seen.exchanges.clear()
        async with load.asking(asked.clients):
            return await _for(asked.minutes * 60, parts, load, faults)


async def _for(seconds: float, parts: Parts, load: Load, faults: list[Fault]) -> list[Row]:
    """Whole rounds of faults, or as many as the time allows, in turn."""
    rows: list[Row] = []
    until = time.monotonic() + seconds
    for fault in itertools.cycle(faults):
        if time.monotonic() >= until:
            return rows
        rows += await torment(parts, load, [fault])
    return rows


if __name__ == "__main__":
    sys.exit(main())
