"""`python -m bench.tls`: what certificates between the parts take of a token.

Two fleets of real processes, one in plain text and one with certificates between all parts, stream
the same answers in turn. The figure is the CPU time of gateway and neuron for each token.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.conditions import Conditions
from bench.processes import cpu_seconds
from tests.system.fleet.clients import Clients
from tests.system.fleet.models import build_models
from tests.system.fleet.processes import Fleet, until
from tests.system.fleet.secure import SecureFleet

_MODEL = "alpha"
_PARTS = ("gateway", "neuron")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=500, help="of each stream")
    asked = parser.parse_args()
    conditions = Conditions(python=sys.executable)
    with tempfile.TemporaryDirectory(prefix="cortex-tls-") as folder, ExitStack() as stack:
        models = build_models(Path(folder), [_MODEL])
        fleets = {
            kind: stack.enter_context(_fleet(Path(folder), kind, models))
            for kind in ("plain", "tls")
        }
        wanted = [(_MODEL, asked.tokens)] * asked.streams
        found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in fleets}
        for number in range(asked.rounds + 1):
            for kind, fleet in fleets.items():
                taken = asyncio.run(_measure(fleet, wanted))
                if number:  # the first warms both up
                    found[kind].append(taken)
    _print(found)
    print(conditions.describe(rounds=asked.rounds, seconds=0))
    return 0


def _print(found: dict[str, list[tuple[float, ...]]]) -> None:
    print("| CPU µs per token | plain | with certificates | ratio, median of rounds |")
    print("|---|---|---|---|")
    for index, part in enumerate((*_PARTS, "both")):
        plain, tls = ([taken[index] for taken in found[kind]] for kind in ("plain", "tls"))
        ratio = statistics.median(b / a for a, b in zip(plain, tls, strict=True))
        told = f"{statistics.median(plain):.1f} | {statistics.median(tls):.1f}"
        print(f"| {part} | {told} | {ratio:.3f} |")


async def _measure(fleet: Fleet, wanted: list[tuple[str, int]]) -> tuple[float, ...]:
    """CPU µs per token of gateway, of neuron, and of both; workers know of no connection."""
    before = [cpu_seconds(fleet[part].process.pid) for part in _PARTS]
    async with Clients(fleet.url) as clients:
        answers = await clients.all(wanted)
    assert all(answer.is_whole for answer in answers), answers
    after = [cpu_seconds(fleet[part].process.pid) for part in _PARTS]
    tokens = sum(count for _, count in wanted)
    each = [(b - a) * 1e6 / tokens for a, b in zip(before, after, strict=True)]
    return (*each, sum(each))


@contextmanager
def _fleet(folder: Path, kind: str, models: str) -> Generator[Fleet]:
    own = folder / kind
    own.mkdir()
    secure = SecureFleet(own, models) if kind == "tls" else None
    fleet = secure or Fleet(own, models)
    try:
        fleet.add_registry(settings=f"{secure.authority}{secure.own}" if secure else "")
        until(fleet.state)
        fleet.add_neuron("neuron", settings=secure.joined("neuron") if secure else "")
        fleet.add_gateway(settings=secure.own if secure else "")
        fleet.wait("neuron")
        yield fleet
    finally:
        fleet.end()


if __name__ == "__main__":
    sys.exit(main())
