"""Whether a server that cannot be reached is left alone for a while: a circuit breaker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Final

from services.gateway.transports.upstream.errors import UpstreamAwayError, Words

_FAILURES: Final = 5


class Breaker:
    """Counts how often in a row a server could not be reached.

    1. After five times it rests: nothing is asked of it, and requests fail at once or go to the
       next server.
    2. Then one request is let through. If the server answers, whatever it says, all are; if it
       cannot be reached, it rests again.

    A server could not be reached where no connection or no answer came in time, or something
    before it says so (502, 503, 504). What it answers itself is no such failure: else a client
    could have it rest for all others.

    Args:
        words: words the refusal.
        rest_seconds: how long it rests; 0: never.
        on_change: told whether it is up: not from the first rest on until it answers.
        clock: seconds; never goes back.
    """

    def __init__(
        self,
        words: Words,
        rest_seconds: float,
        *,
        on_change: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._words = words
        self._rest_seconds = rest_seconds
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._rests_until = 0.0
        self._is_tried = False

    @contextlib.contextmanager
    def guarded(self) -> Generator[None]:
        """Asks the server while the context is open.

        Raises:
            FleetError: UPSTREAM_FAILED: it rests.
        """
        is_trial = self._begin()
        try:
            yield
        except UpstreamAwayError:
            self._away()
            raise
        except asyncio.CancelledError:  # nothing is known of it
            raise
        except BaseException:
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if is_trial:
                self._is_tried = False

    def _begin(self) -> bool:
        """True where this is the one that is let through."""
        if self._failures < _FAILURES or not self._rest_seconds:
            return False
        left = self._rests_until - self._clock()
        if left > 0 or self._is_tried:
            raise self._words.resting(self._failures, max(left, 1.0))
        self._is_tried = True
        return True

    def _away(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._rests_until = self._clock() + self._rest_seconds
        if self._failures == _FAILURES:
            self._on_change(False)

    def _answered(self) -> None:
        if self._failures >= _FAILURES:
            self._on_change(True)
        self._failures = 0
