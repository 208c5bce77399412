"""What all clients together, and each of them, may hold of the gateway."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass


class OverBudgetError(Exception):
    """More bytes are held already than all bodies together may have."""


class BodyBudget:
    """The bytes of all bodies and WebSocket messages that are held at one time. For any thread.

    Attributes:
        most_bytes: the most.
        held_bytes: how many there are.
        lock: held while they change; who counts a part of them on its own takes it too.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self.lock = threading.RLock()

    def take(self, size: int) -> None:
        """Takes bytes out of the budget.

        Raises:
            OverBudgetError: there are not so many left; none are taken.
        """
        with self.lock:
            held = self.held_bytes + size
            if held > self.most_bytes:
                raise OverBudgetError
            self.held_bytes = held

    def give_back(self, size: int) -> None:
        """Gives back what `take` has taken."""
        with self.lock:
            self.held_bytes -= size

    def hold(self, size: int) -> BudgetedBytes | None:
        """Takes bytes for one thing that is kept; None where there are not so many left."""
        try:
            self.take(size)
        except OverBudgetError:
            return None
        return BudgetedBytes(self, size)


class BudgetedBytes:
    """Bytes that one stored thing takes out of the budget, given back once."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self._budget, self._size = budget, size

    @property
    def is_over(self) -> bool:
        """True once they were given back."""
        return self._size == 0

    def give_back(self) -> None:
        """Gives them back, unless that was done."""
        size, self._size = self._size, 0
        self._budget.give_back(size)


class ConnectionCounts:
    """The open connections of each address.

    Args:
        most: how many one address may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, address: str) -> Generator[bool]:
        """Counts a connection while the context is open; False where it is one too many."""
        self._open[address] += 1
        try:
            yield self._open[address] <= self._most
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


class Pace:
    """The least rate at which a body or a message has to come.

    Args:
        grace_seconds: what it may take besides.
        bytes_per_second: the least rate.
    """

    __slots__ = ("_bytes_per_second", "_grace_seconds")

    def __init__(self, grace_seconds: float, bytes_per_second: int) -> None:
        self._grace_seconds = grace_seconds
        self._bytes_per_second = bytes_per_second

    def seconds(self, received: int) -> float:
        """How long this many bytes may take to arrive."""
        return self._grace_seconds + received / self._bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientBudgets:
    """What the connections of one server share.

    Attributes:
        bodies: the bytes of all bodies and WebSocket messages.
        pace: how slowly one may come.
        connections: how many each address has.
    """

    bodies: BodyBudget
    pace: Pace
    connections: ConnectionCounts
