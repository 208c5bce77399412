"""`python -m bench.attacks`: what a bystander notices of one client that attacks.

A whole fleet with a scripted model. Somebody streams short answers through its gateway, one after
the other. For each attack the longest silence that it hears is measured alone, and then in rounds
during the attack and beside as many valid requests; the median of the rounds counts. Attacker,
valid client and bystander are processes of their own; all of them share the machine with the fleet.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.attacks.attackers import NAMES, connections, run, run_valid
from bench.attacks.bystander import listening
from bench.attacks.target import Target
from bench.conditions import Conditions
from tests.doubles import scripted
from tests.system import local_fleet

_MODEL = "scripted"
_KEYS = {"bystander": "key-of-the-bystander", "attacker": "key-of-the-attacker"}
_LONGEST_SECONDS = 0.5
_LONGEST_RATIO = 2.0
_REST_SECONDS = 1.0


@dataclass(slots=True)
class Row:
    """The longest silence of each round of one attack, in seconds.

    Attributes:
        name: of the attack.
        quiet: the longest silence without it.
        attacked: during it, by round.
        beside: beside as many valid requests, by round.
        memory: of the gateway after the last attack, in MiB.
        answers: that the attacker got, by status.
        failures: what the bystander was told instead of an answer.
    """

    name: str
    quiet: float
    attacked: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    memory: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        """True if the bystander hardly noticed."""
        allowed = max(_LONGEST_SECONDS, _LONGEST_RATIO * statistics.median(self.beside))
        return statistics.median(self.attacked) <= allowed and not self.failures

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        silences = f"{self.quiet:.2f} | {_told(self.attacked)} | {_told(self.beside)}"
        told = " ".join(f"{key}×{count}" for key, count in sorted(self.answers.items()))
        named = f"| {self.name} | {connections(self.name)} | {silences}"
        return f"{named} | {self.memory} | {told} | {verdict} |"


def _told(silences: list[float]) -> str:
    """The median, and all of them."""
    each = " ".join(f"{one:.2f}" for one in silences)
    return f"{statistics.median(silences):.2f} ({each})"


def main() -> int:
    """Measures and prints; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    asked = parser.parse_args()
    conditions = Conditions(python=sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        fleet = _start(Path(folder))
        try:
            rows = _measure(fleet, asked.only, rounds=asked.rounds, seconds=asked.seconds)
        finally:
            fleet.end()
    print(conditions.describe(rounds=asked.rounds, seconds=asked.seconds))
    return int(not all(row.is_met for row in rows))


def _start(folder: Path) -> local_fleet.RunningFleet:
    data = folder / "data"
    (data / "models").mkdir(parents=True)
    path = data / "models" / "scripted.gguf"
    script = scripted.Script(words=["Hello", " there"], name=_MODEL, is_endless=True)
    scripted.build(path, script)
    (data / "models.toml").write_text(f'[[models]]\nid = "{_MODEL}"\nsource = "path:{path}"\n')
    settings = folder / "cortex.toml"
    keys = (f'[[auth.keys]]\nname = "{name}"\nkey = "{key}"\n' for name, key in _KEYS.items())
    settings.write_text("".join(keys))
    return local_fleet.start(data, "--model", _MODEL, "--config", str(settings), environment={})


def _measure(
    fleet: local_fleet.RunningFleet, only: str, *, rounds: int, seconds: float
) -> list[Row]:
    where = urllib.parse.urlsplit(fleet.url)
    target = Target(host=where.hostname or "", port=where.port or 0, model=_MODEL, keys=_KEYS)
    print("| attack | connections | alone, s | attacked, s | beside valid, s | MiB | answers | |")
    print("|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    for name in (name for name in NAMES if only in name):
        with listening(target) as quiet:
            time.sleep(seconds)
        row = Row(name, quiet.longest)
        for _ in range(rounds):
            _add_round(row, fleet, target, seconds)
        rows.append(row)
        print(row, flush=True)
    return rows


def _add_round(row: Row, fleet: local_fleet.RunningFleet, target: Target, seconds: float) -> None:
    with listening(target) as attacked:
        row.answers.update(run(target, row.name, seconds))
    row.memory = fleet.child("gateway").memory_info().rss >> 20
    row.attacked.append(attacked.longest)
    row.failures += attacked.failures
    for failure in attacked.failures:
        print(f"{row.name}: the bystander was told {failure}", file=sys.stderr)
    time.sleep(_REST_SECONDS)
    with listening(target) as beside:
        run_valid(target, row.name, seconds)
    row.beside.append(beside.longest)
    time.sleep(_REST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
