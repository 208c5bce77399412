"""Counting by hour, and reports that count once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import OTHERS
from services.gateway.limits import usage
from services.gateway.limits.usage import UsageCounts, Used

NOW = 1_767_225_600.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class Reporter:
    """Takes reports in, and may lose its answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.written: dict[int, list[pb.UsageRow]] = {}
        self.loses_answers = False

    async def report_usage(self, request: pb.ReportUsageRequest) -> None:
        assert request.holder == "me"
        self.asked.append((request.number, len(request.rows)))
        self.written.setdefault(request.number, list(request.rows))
        if self.loses_answers:
            raise FleetError(Reason.REGISTRY_UNAVAILABLE, "It is away.")


def ignored(rows: Iterable[pb.UsageRow]) -> None:
    """Nobody counts them."""


@pytest.fixture
def reporter() -> Reporter:
    return Reporter()


async def test_requests_are_added_up_by_hour_principal_and_model(reporter):
    clock, told = Clock(), list[pb.UsageRow]()
    counts = UsageCounts("me", clock)
    counts.note("ada", "tiny", Used(7, 3, 2, 1))
    counts.note("ada", "tiny", Used(1))
    counts.note("bob", "tiny", Used(1))
    clock.now += 3600
    counts.note("ada", "tiny", Used(1))

    await counts.flush(reporter, told.extend)

    first, second, third = reporter.written[1]
    assert first == pb.UsageRow(
        principal="ada",
        model="tiny",
        hour_unix_seconds=int(NOW),
        requests=2,
        prompt_tokens=8,
        cached_tokens=3,
        completion_tokens=2,
        reasoning_tokens=1,
    )
    assert (second.principal, third.hour_unix_seconds) == ("bob", NOW + 3600)
    assert told == reporter.written[1]


async def test_nothing_is_told_where_nothing_was_used(reporter):
    await UsageCounts("me").flush(reporter, ignored)

    assert reporter.asked == []


async def test_a_report_whose_answer_was_lost_comes_again_as_it_was(reporter):
    counts, told = UsageCounts("me", Clock()), list[pb.UsageRow]()
    counts.note("ada", "tiny", Used(7))
    reporter.loses_answers = True
    for _ in range(2):
        with pytest.raises(FleetError):
            await counts.flush(reporter, told.extend)
        counts.note("ada", "tiny", Used(1))
    reporter.loses_answers = False

    await counts.flush(reporter, told.extend)
    await counts.flush(reporter, told.extend)
    await counts.flush(reporter, told.extend)

    assert [number for number, _ in reporter.asked] == [1, 1, 1, 2]
    assert [row.prompt_tokens for rows in reporter.written.values() for row in rows] == [7, 2]
    assert [row.prompt_tokens for row in told] == [7, 2]


async def test_too_many_rows_are_added_up_for_all_others(reporter, monkeypatch):
    monkeypatch.setattr("services.gateway.limits.usage._MOST_ROWS", 2)
    counts = UsageCounts("me", Clock())
    for index in range(5):
        counts.note(f"p{index}", "tiny", Used(1))

    await counts.flush(reporter, ignored)

    assert [(row.principal, row.requests) for row in reporter.written[1]] == [
        ("p0", 1),
        ("p1", 1),
        (OTHERS, 3),
    ]


async def test_what_is_stored_is_known_unless_an_answer_was_lost(reporter):
    counts = UsageCounts("me", Clock())
    assert counts.stored() == (0, [])
    counts.note("ada", "tiny", Used(7))
    await counts.flush(reporter, ignored)
    counts.note("ada", "tiny", Used(1))
    reporter.loses_answers = True
    with pytest.raises(FleetError):
        await counts.flush(reporter, ignored)

    assert counts.stored() is None
    reporter.loses_answers = False
    await counts.flush(reporter, ignored)

    stored = counts.stored()
    assert stored is not None
    assert (2, [7, 1]) == (stored[0], [row.prompt_tokens for row in stored[1]])


async def test_no_more_rows_are_kept_than_of_one_report(reporter, monkeypatch):
    monkeypatch.setattr(usage, "_MOST_ROWS", 3)
    counts = UsageCounts("me", Clock())
    for number in range(5):
        counts.note(f"key {number}", "tiny", Used(1))
        await counts.flush(reporter, ignored)

    stored = counts.stored()
    assert stored is not None
    assert (5, 3) == (stored[0], len(stored[1]))
