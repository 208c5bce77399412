"""Work on megabytes in slices, between which the event loop runs.

A step such as decoding a large text holds the interpreter's lock for tens of milliseconds, and the
loop takes that lock several times for each token that it passes on: behind a thread that takes it
back at once, each of those times is a whole step long. So such a thread rests after each step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator
from typing import Final

# A step below it costs nobody more than a change of threads does.
_SHORT_SECONDS: Final = 0.005
_LONGEST_REST_SECONDS: Final = 0.25


class _Slice(threading.local):
    """When the step under way began; None in threads whose work is not sliced."""

    began_at: float | None = None


_slice = _Slice()


@contextlib.contextmanager
def sliced() -> Generator[None]:
    """Lets `rest` rest in this thread until the context is left."""
    _slice.began_at = time.monotonic()
    try:
        yield
    finally:
        _slice.began_at = None


def rest() -> None:
    """Pauses a thread for as long as its last piece of work took, so that the loop can run."""
    began_at = _slice.began_at
    if began_at is None:
        return
    took = time.monotonic() - began_at
    if took > _SHORT_SECONDS:
        time.sleep(min(took, _LONGEST_REST_SECONDS))
        _slice.began_at = time.monotonic()
