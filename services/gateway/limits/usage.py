"""What this process has served, by hour, principal and model, and how the registry is told.

A report has a number and is kept until it is answered, so that one whose answer was lost counts
once. What comes meanwhile is the next report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.security.principals import OTHERS

HOUR: Final = 3600
# Rows of one report; what is beyond them is added up for all other principals together.
_MOST_ROWS: Final = 5000


class Used(msgspec.Struct, frozen=True, gc=False):
    """What requests have used; tokens as the neurons have counted them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens


class Reporter(Protocol):
    """Where usage is reported: the registry that leads."""

    async def report_usage(self, request: pb.ReportUsageRequest) -> None:
        """Sends a report; returns once it is stored.

        Raises:
            FleetError: it may have been written or not.
        """
        ...


class UsageCounts:
    """Counts requests at their end.

    Args:
        holder: names this process; new at every start.
        clock: seconds since the epoch.
    """

    def __init__(self, holder: str, clock: Callable[[], float] = time.time) -> None:
        self._holder = holder
        self._clock = clock
        # By the hour's number since 1970, and in it by principal and model.
        self._hours: dict[float, dict[tuple[str, str], list[int]]] = {}
        self._hour = -1.0
        self._rows: dict[tuple[str, str], list[int]] = {}  # of that hour
        self._number = 0
        self._report: pb.ReportUsageRequest | None = None
        self._stored: list[pb.UsageRow] = []
        self._stored_rows_left = _MOST_ROWS

    def note(self, principal: str, model: str, used: Used, requests: int = 1) -> None:
        """Counts what requests have used together."""
        if (hour := self._clock() // HOUR) != self._hour:
            self._hour, self._rows = hour, self._hours.setdefault(hour, {})
        row = self._rows.get((principal, model))
        if row is None:
            row = self._opened(principal, model)
        row[0] += requests
        row[1] += used.prompt_tokens
        row[2] += used.cached_tokens
        row[3] += used.completion_tokens
        row[4] += used.reasoning_tokens

    def _opened(self, principal: str, model: str) -> list[int]:
        """A new row of this hour, or the one of all others where there are too many."""
        is_full = sum(map(len, self._hours.values())) >= _MOST_ROWS
        key = (OTHERS, "") if is_full else (principal, model)
        return self._rows.setdefault(key, [0, 0, 0, 0, 0])

    async def flush(
        self, reporter: Reporter, told: Callable[[Iterable[pb.UsageRow]], None]
    ) -> None:
        """Tells what has come together; does nothing where nothing has.

        Args:
            reporter: who is told.
            told: is given the rows of each report once.

        Raises:
            FleetError: as `Reporter.report_usage`; the same report is sent the next time.
        """
        if self._report is None:
            hours, self._hours, self._hour = self._hours, {}, -1.0
            if not hours:
                return
            self._number += 1
            self._report = pb.ReportUsageRequest(
                holder=self._holder,
                number=self._number,
                rows=[
                    _message(int(hour) * HOUR, key, counts)
                    for hour, rows in hours.items()
                    for key, counts in rows.items()
                ],
            )
            told(self._report.rows)
        await reporter.report_usage(self._report)
        self._stored += self._report.rows[: self._stored_rows_left]
        self._stored_rows_left -= min(self._stored_rows_left, len(self._report.rows))
        self._report = None

    def stored(self) -> tuple[int, Sequence[pb.UsageRow]] | None:
        """The number of the last report that was stored, and the rows of the first ones.

        None while it is not known whether a report was stored.
        """
        return None if self._report is not None else (self._number, self._stored)


def _message(hour: int, key: tuple[str, str], counts: list[int]) -> pb.UsageRow:
    principal, model = key
    return pb.UsageRow(
        principal=principal,
        model=model,
        hour_unix_seconds=hour,
        requests=counts[0],
        prompt_tokens=counts[1],
        cached_tokens=counts[2],
        completion_tokens=counts[3],
        reasoning_tokens=counts[4],
    )
