"""`python -m bench.attacks`: what a bystander notices of one client that attacks.

A whole fleet with a scripted model. Somebody streams short answers through its gateway, one after
the other. For each attack the longest silence that it hears is measured alone, during the attack,
and beside valid requests on as many connections. Attacker, valid client and bystander are processes
of their own; all of them share the machine with the fleet.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from bench.attacks.attackers import NAMES, connections, run, run_valid
from bench.attacks.bystander import Heard, listening
from bench.attacks.target import Target
from tests.doubles import scripted
from tests.system import local_fleet

_MODEL = "scripted"
_KEYS = {"bystander": "key-of-the-bystander", "attacker": "key-of-the-attacker"}
_LONGEST_SECONDS = 0.5
_LONGEST_RATIO = 2.0
_REST_SECONDS = 1.0


@dataclass(slots=True)
class Row:
    """The longest silences of one attack, in seconds, and the gateway's memory after it in MiB."""

    name: str
    connections: int
    quiet: float
    attacked: float
    beside: float
    memory: int
    answers: dict[str, int]
    failures: list[str]

    @property
    def is_met(self) -> bool:
        """True if the bystander hardly noticed."""
        return self.attacked <= max(_LONGEST_SECONDS, _LONGEST_RATIO * self.beside)

    def __str__(self) -> str:
        verdict = "met" if self.is_met and not self.failures else "MISSED"
        silences = f"{self.quiet:.2f} | {self.attacked:.2f} | {self.beside:.2f}"
        told = " ".join(f"{key}×{count}" for key, count in sorted(self.answers.items()))
        named = f"| {self.name} | {self.connections} | {silences}"
        return f"{named} | {self.memory} | {told} | {verdict} |"


def main() -> int:
    """Measures and prints; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fleet = _start(Path(folder))
        try:
            rows = _measure(fleet, asked.only, asked.seconds)
        finally:
            fleet.end()
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")
    return int(not all(row.is_met and not row.failures for row in rows))


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


def _measure(fleet: local_fleet.RunningFleet, only: str, seconds: float) -> list[Row]:
    where = urllib.parse.urlsplit(fleet.url)
    target = Target(host=where.hostname or "", port=where.port or 0, model=_MODEL, keys=_KEYS)
    print("| attack | connections | alone, s | attacked, s | beside valid, s | MiB | answers | |")
    print("|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    for name in (name for name in NAMES if only in name):
        with listening(target) as quiet:
            time.sleep(seconds)
        with listening(target) as attacked:
            answers = run(target, name, seconds)
        memory = fleet.child("gateway").memory_info().rss >> 20
        time.sleep(_REST_SECONDS)
        with listening(target) as beside:
            run_valid(target, connections(name), seconds)
        rows.append(
            _row(
                name,
                quiet=quiet,
                attacked=attacked,
                beside=beside,
                memory=memory,
                answers=answers,
            )
        )
        print(rows[-1], flush=True)
    return rows


def _row(
    name: str,
    *,
    quiet: Heard,
    attacked: Heard,
    beside: Heard,
    memory: int,
    answers: dict[str, int],
) -> Row:
    for failure in attacked.failures:
        print(f"{name}: the bystander was told {failure}", file=sys.stderr)
    return Row(
        name,
        connections=connections(name),
        quiet=quiet.longest,
        attacked=attacked.longest,
        beside=beside.longest,
        memory=memory,
        answers=answers,
        failures=attacked.failures,
    )


if __name__ == "__main__":
    sys.exit(main())
