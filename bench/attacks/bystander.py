"""One who streams through the same gateway, and how long it hears nothing.

What it waits for a processor itself is taken off: it is the instrument, and shares the machine.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.attacks.target import Target

_TOKENS = 200
_PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.02


@dataclass(slots=True)
class Heard:
    """What one bystander has seen.

    Attributes:
        gaps: seconds from asking to the first token, and from each read to the next, without those
            in which the bystander itself had no processor.
        failures: how its requests ended that did not end well.
    """

    gaps: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest silence in seconds."""
        return max(self.gaps, default=float("inf"))


@contextmanager
def listening(target: Target) -> Generator[Heard]:
    """Streams in a process of its own until the context ends; fills what it yields then."""
    heard = Heard()
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    stop, ready = context.Event(), context.Event()
    process = context.Process(target=_listen, args=(target, stop, ready, theirs), daemon=True)
    process.start()
    try:
        if not ready.wait(_PATIENCE_SECONDS):
            raise TimeoutError("the bystander was never answered")
        yield heard
    finally:
        stop.set()
        if mine.poll(_PATIENCE_SECONDS):
            heard.gaps, heard.failures = mine.recv()
        process.kill()
        process.join()


def _listen(target: Target, stop: Event, ready: Event, told: Connection[object, object]) -> None:
    gaps: list[float] = []
    failures: list[str] = []
    while not stop.is_set():
        since = _seconds()
        try:
            gaps += _stream(target)
        except (OSError, http.client.HTTPException) as error:
            gaps.append(_seconds() - since)
            failures.append(f"{type(error).__name__}: {error}")
            time.sleep(0.1)
        if not ready.is_set():  # the first answer loads the model
            gaps.clear()
            ready.set()
        time.sleep(_PAUSE_SECONDS)
    told.send((gaps, failures))


def _stream(target: Target) -> list[float]:
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_PATIENCE_SECONDS)
    body = json.dumps(target.chat("Hello", max_tokens=_TOKENS, stream=True, ignore_eos=True))
    gaps: list[float] = []
    last = _seconds()
    try:
        connection.request("POST", target.path, body, target.headers("bystander"))
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"{response.status} {response.read(200)!r}")
        while chunk := response.read1(65536):
            if b'"content":' in chunk:  # a keep-alive is no token
                now = _seconds()
                gaps.append(now - last)
                last = now
            if b'"error"' in chunk:
                raise http.client.HTTPException(chunk[:200].decode(errors="replace"))
    finally:
        connection.close()
    return gaps


def _seconds() -> float:
    """A clock that stands still while this thread waits for a processor."""
    waited = Path("/proc/thread-self/schedstat").read_text().split()[1]
    return time.monotonic() - int(waited) / 1e9
