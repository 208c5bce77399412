"""Minutes, days and months of UTC."""

import datetime as dt
import math

import pytest

from services.gateway.limits.windows import Period, Window, window_at


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC).timestamp())


@pytest.mark.parametrize(
    ("period", "begins", "ends"),
    [
        (Period.MINUTE, at(2028, 2, 29, 23, 59), at(2028, 3, 1)),
        (Period.DAY, at(2028, 2, 29), at(2028, 3, 1)),
        (Period.MONTH, at(2028, 2, 1), at(2028, 3, 1)),
    ],
)
def test_a_window_is_of_utc_and_ends_where_the_next_begins(period, begins, ends):
    assert window_at(period, ends - 0.001) == Window(begins, ends)
    assert window_at(period, begins) == Window(begins, ends)
    assert window_at(period, ends).starts_at == ends


def test_december_is_followed_by_january():
    assert window_at(Period.MONTH, at(2026, 12, 31, 12)).ends_at == at(2027, 1, 1)


def test_what_is_held_at_one_time_has_one_window():
    assert window_at(Period.ALWAYS, at(2026, 1, 1)) == Window(0, math.inf)
