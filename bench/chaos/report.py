"""What came of each fault, as the table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.chaos.faults import Fault
from bench.chaos.parts import GATEWAYS
from bench.traffic.exchange import Exchange, Outcome

_COLUMNS: Final = (Outcome.REFUSED, Outcome.UNREACHED, Outcome.TOLD, Outcome.CUT, Outcome.SILENT,
                   Outcome.WRONG)  # fmt: skip
_NEVER: Final = "never"


@dataclass(slots=True)
class Row:
    """One fault and what its span saw.

    Attributes:
        fault: what was done.
        exchanges: that ended between it and the next fault.
        answered: seconds until the first words for one that had begun after it; None if none came.
        whole: seconds from its undoing until every process was known to all again; None if never.
    """

    fault: Fault
    exchanges: list[Exchange] = field(default_factory=list)
    answered: float | None = None
    whole: float | None = None

    @property
    def longest_pause(self) -> float:
        """Seconds between two pieces of one streamed answer."""
        return max((one.longest_gap for one in self.exchanges), default=0.0)

    def count(self, outcome: Outcome) -> int:
        """How many ended so."""
        return sum(one.outcome is outcome for one in self.exchanges)

    def unforgiven(self) -> int:
        """Those that a client may not see: lost, wrong, or cut by anything but its gateway's end.

        An answer is sent by its gateway: where that is killed, its connections end with it.
        """
        bad = self.count(Outcome.SILENT) + self.count(Outcome.WRONG)
        bad += self.count(Outcome.REFUSED) + self.count(Outcome.UNREACHED)
        if self.fault.what == "killed" and self.fault.whom in GATEWAYS:
            return bad
        return bad + self.count(Outcome.CUT) + self.count(Outcome.TOLD)

    def __str__(self) -> str:
        counts = " | ".join(str(self.count(one) or "–") for one in (Outcome.WHOLE, *_COLUMNS))
        times = f"{_seconds(self.answered)} | {_seconds(self.whole)} | {self.longest_pause:.1f}"
        return f"| {self.fault} | {counts} | {times} |"


def table(rows: Sequence[Row]) -> str:
    """All of them, and their sum."""
    heads = " | ".join(one.value for one in (Outcome.WHOLE, *_COLUMNS))
    lines = [
        f"| | {heads} | answered again, s | all there again, s | longest pause, s |",
        "|---" * (len(_COLUMNS) + 5) + "|",
        *map(str, rows),
    ]
    sums = (sum(row.count(one) for row in rows) for one in (Outcome.WHOLE, *_COLUMNS))
    told = " | ".join(f"**{one}**" for one in sums)
    longest = max((row.longest_pause for row in rows), default=0.0)
    return "\n".join([*lines, f"| **all** | {told} | | | {longest:.1f} |"])


def _seconds(value: float | None) -> str:
    return _NEVER if value is None else f"{value:.1f}"
