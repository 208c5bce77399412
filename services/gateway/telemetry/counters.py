"""Counts kept in plain numbers and passed on to Prometheus several times a second.

An increment in the client library takes a lock and a microsecond, and a request makes a dozen of
them. Here each is an addition to a plain number.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram


class PendingCount:
    """Increments of a counter that Prometheus's client has not been given yet.

    Attributes:
        pending: their sum; whoever counts adds to it.
    """

    __slots__ = ("_counter", "_labels", "_series", "pending")

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter
        self._labels = labels
        self._series: Counter | None = None
        self.pending = 0

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        if self.pending:
            if self._series is None:
                self._series = (
                    self._counter.labels(*self._labels) if self._labels else self._counter
                )
            self._series.inc(self.pending)
            self.pending = 0


class PendingLevel:
    """The value of a gauge that it was not given yet."""

    __slots__ = ("_gauge", "_value")

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0

    def rise(self) -> None:
        """One more."""
        self._value += 1

    def fall(self) -> None:
        """One less."""
        self._value -= 1

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        self._gauge.set(self._value)


class SummedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def take(self, counts: Sequence[int], total: float) -> None:
        """Adds observations.

        Args:
            counts: how many fell into each bucket, the one without bound last.
            total: their sum.
        """
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class PendingHistogram:
    """Observations that a histogram was not given yet. Its series begin with the first of them.

    Attributes:
        note: adds observations.
    """

    __slots__ = ("_bounds", "_histogram", "_labels", "_series", "_values", "note")

    def __init__(self, histogram: SummedHistogram, bounds: Sequence[float], *labels: str) -> None:
        self._histogram = histogram
        self._labels = labels
        self._series: SummedHistogram | None = None
        self._bounds = bounds
        self._values: list[float] = []
        self.note: Callable[[Iterable[float]], None] = self._values.extend

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        values = self._values
        if not values:
            return
        values.sort()
        # how many are at most each bound: a bound belongs to the bucket below it
        upto = [bisect_right(values, bound) for bound in self._bounds]
        counts = map(operator.sub, [*upto, len(values)], [0, *upto])
        if self._series is None:
            made = self._histogram.labels(*self._labels) if self._labels else self._histogram
            self._series = made
        self._series.take(list(counts), sum(values))
        values.clear()
