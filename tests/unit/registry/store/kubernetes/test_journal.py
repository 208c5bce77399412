"""What was used, on its way from a journal to its months."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.store.kubernetes import journal as module
from services.registry.store.kubernetes.journal import Journal, MonthPart, added, answered, month_of
from services.registry.store.ledger import DeviceTotal, UsageQuery, UsageRow
from services.registry.store.store import StoreError

NOVEMBER = calendar.timegm((2026, 11, 30, 22, 0, 0))
HOUR = 3600


def row(hour: int, tokens: int = 1) -> UsageRow:
    return UsageRow(hour, "ada", "tiny", prompt_tokens=tokens)


def test_months_are_utcs_and_no_hour_is_too_far_away():
    assert month_of(NOVEMBER) == "202611"
    assert month_of(NOVEMBER + 2 * HOUR) == "202612"
    assert month_of(2**53) == "999912"


def test_rows_move_once_an_hour_or_when_they_are_many():
    journal = Journal()
    assert not journal.is_due(NOVEMBER)
    journal.add_report("g", 1, [row(NOVEMBER)], now=NOVEMBER)
    assert journal.is_due(NOVEMBER)
    journal.begin_move(NOVEMBER)
    journal.end_move({"202611": 100})
    journal.add_report("g", 2, [row(NOVEMBER)], now=NOVEMBER)
    assert not journal.is_due(NOVEMBER + 10)
    assert journal.is_due(NOVEMBER + HOUR)
    many = [row(HOUR * n) for n in range(5000)]
    journal.add_report("g", 3, many, now=NOVEMBER)
    assert journal.is_due(NOVEMBER + 10)


def test_each_row_moves_to_its_month_and_a_full_part_is_followed_by_another(monkeypatch):
    monkeypatch.setattr(module, "_PART_BYTES", 100)
    journal = Journal()
    journal.add_report("g", 1, [row(NOVEMBER), row(NOVEMBER + 2 * HOUR)], now=NOVEMBER)
    journal.begin_move(NOVEMBER)

    assert {month: (m.part, m.rows) for month, m in journal.moving.items()} == {
        "202611": (0, [row(NOVEMBER)]),
        "202612": (0, [row(NOVEMBER + 2 * HOUR)]),
    }
    assert not journal.rows
    journal.end_move({"202611": 90, "202612": 10})
    assert journal.moves == 1
    journal.add_report("g", 2, [row(NOVEMBER), row(NOVEMBER + 2 * HOUR)], now=NOVEMBER)
    journal.begin_move(NOVEMBER)
    assert {month: m.part for month, m in journal.moving.items()} == {"202611": 1, "202612": 0}


def test_months_that_are_too_large_are_told_with_a_way_out():
    journal = Journal(months={"202601": [module.MOST_MONTH_BYTES + 1]})
    journal.add_report("g", 1, [row(NOVEMBER)], now=NOVEMBER)

    with pytest.raises(StoreError, match=r"16 MiB.*registry\.usage_days lower"):
        journal.begin_move(NOVEMBER)
    assert journal.rows == [row(NOVEMBER)]


def test_what_is_old_is_forgotten_and_who_was_heard_of_lately_is_not():
    journal = Journal(months={"202609": [1, 1], "202611": [1]})
    journal.add_report("old", 1, [row(NOVEMBER - 100 * HOUR)], now=NOVEMBER - 40 * 24 * HOUR)
    journal.add_report("new", 1, [row(NOVEMBER)], now=NOVEMBER)

    gone = journal.forget(NOVEMBER - HOUR, now=NOVEMBER)

    assert gone == [("202609", 2)]
    assert journal.rows == [row(NOVEMBER)]
    assert list(journal.reports) == ["new"]
    journal.drop(["202609"])
    assert list(journal.months) == ["202611"]


def test_a_query_is_answered_as_sql_would():
    rows = [row(0), row(HOUR, 5), UsageRow(HOUR, "bob", "large", requests=2)]

    assert answered(UsageQuery(), []) == []
    assert answered(UsageQuery(("hour",), since=HOUR), rows) == [
        UsageRow(HOUR, "", "", requests=2, prompt_tokens=5)
    ]
    assert answered(UsageQuery(("model",), principal="ada", until=HOUR), rows) == [
        UsageRow(0, "", "tiny", prompt_tokens=1)
    ]


def test_rows_of_another_version_are_added_up_as_far_as_they_are_known():
    older, newer = row(HOUR)[:6], (*row(HOUR), 99)

    assert added([older, newer]) == [row(HOUR, 2)]
    assert MonthPart(rows=[older]).take([newer], 1)


def test_energy_grows_with_the_time_that_is_believed():
    journal = Journal()
    total = DeviceTotal("ada", "tiny", 30, 70, 0, 0, millijoules=12)
    journal.add_device_use("n/1", HOUR, [total], most=2**40, now=5)
    later = [total._replace(decode=80, millijoules=10**9)]
    journal.add_device_use("n/1", HOUR, later, most=2**40, now=6)

    assert journal.rows == [
        UsageRow(
            HOUR,
            "ada",
            "tiny",
            prefill_microseconds=30,
            decode_microseconds=80,
            millijoules=110 * 128,
        )
    ]
    assert journal.sources["n/1"].told_at == 6


REPORTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.sampled_from(["done", "lost", "half"])),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(REPORTS)
def test_nothing_is_lost_or_counted_twice_wherever_a_leader_ends(reports):
    """A move ends behind any of its writes, and the next leader goes on from what was written."""
    journal, told = Journal(), 0
    parts: dict[tuple[str, int], MonthPart] = {}
    for number, (months, tokens, how) in enumerate(reports):
        hour = NOVEMBER + months * 31 * 24 * HOUR
        journal.add_report("g", number, [row(hour, tokens)], now=NOVEMBER)
        told += tokens
        if how == "lost":
            continue
        journal.begin_move(NOVEMBER)
        for index, (month, move) in enumerate(journal.moving.items()):
            part = parts.setdefault((month, move.part), MonthPart())
            if how == "half" and index:
                break
            part.take(move.rows, journal.moves)
        else:
            if how == "done":
                journal.end_move(dict.fromkeys(journal.moving, 10))
        # the next leader: every write is done again
        for month, move in journal.moving.items():
            parts.setdefault((month, move.part), MonthPart()).take(move.rows, journal.moves)
        if journal.moving:
            journal.end_move(dict.fromkeys(journal.moving, 10))

    rows = added([*journal.rows, *(one for part in parts.values() for one in part.rows)])
    assert sum(one.prompt_tokens for one in rows) == told
