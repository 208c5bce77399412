"""Counts kept in plain numbers and passed on to Prometheus several times a second.

An increment in the client library takes a lock and a microsecond, and a request makes a dozen of
them. Here each is an addition to a plain number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram


class PendingCount:
    """Increments of a counter that it was not given yet."""

    __slots__ = ("_counter", "_more")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._more = 0

    def add(self, more: int = 1) -> None:
        """Adds to the counter."""
        self._more += more

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        if self._more:
            self._counter.inc(self._more)
            self._more = 0


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
    """Observations that a histogram was not given yet."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: SummedHistogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def note(self, value: float) -> None:
        """Adds an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        if any(self._counts):
            self._histogram.take(self._counts, self._total)
            self._counts = [0] * len(self._counts)
            self._total = 0.0
