"""Responses that run in the background: told at once, found later, cancelled by their id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.backplane.errors import FleetError
from services.gateway.dialects.dialect import Ask, Collected, Head
from services.gateway.dialects.openai_responses import encode
from services.gateway.dialects.openai_responses.decode import Detail
from services.gateway.dialects.openai_responses.resource import Resource
from services.gateway.dialects.openai_responses.responses import Responses


class BackgroundRuns:
    """What runs in the background of this process, by response id."""

    def __init__(self, store: Responses) -> None:
        self._store = store
        self._runs: dict[str, tuple[BackgroundRun, Callable[[], object]]] = {}

    def run_of(self, ask: Ask, head: Head) -> BackgroundRun:
        """A run to be."""
        return BackgroundRun(ask, head, self, self._store)

    def add(self, response_id: str, run: BackgroundRun, stop: Callable[[], object]) -> None:
        """A run has begun."""
        self._runs[response_id] = (run, stop)

    def end(self, response_id: str) -> bool:
        """A run has ended; False where it was cancelled before."""
        return self._runs.pop(response_id, None) is not None

    def cancel(self, response_id: str, *, owner: str) -> bytes | None:
        """Stops a run of this owner's: the response as it is now; None where there is none."""
        found = self._runs.get(response_id)
        if found is None or found[0].owner != owner:
            return None
        del self._runs[response_id]
        run, stop = found
        stop()
        return run.cancelled()


class BackgroundRun:
    """One response under way; see `Detached`."""

    def __init__(self, ask: Ask, head: Head, runs: BackgroundRuns, store: Responses) -> None:
        self._ask = ask
        self._head = head
        self._runs = runs
        self._store = store
        self._detail: Detail = ask.detail
        self._resource = Resource(ask, head)
        self.owner = self._detail.owner

    def accepted(self, stop: Callable[[], object]) -> bytes:
        """The response as it is told at once; whoever looks it up finds it in progress."""
        self._runs.add(self._detail.response_id, self, stop)
        encode.keep(self._detail, self._resource.snapshot("in_progress"), self._store)
        return encode.to_json(self._resource.snapshot("queued"))

    def finished(self, choices: Sequence[Collected]) -> None:
        """Keeps the answer."""
        if self._runs.end(self._detail.response_id):
            encode.body(self._ask, self._head, choices, self._store)

    def failed(self, error: FleetError) -> None:
        """Keeps what went wrong."""
        if self._runs.end(self._detail.response_id):
            encode.keep(self._detail, self._resource.failed((), error), self._store)

    def cancelled(self) -> bytes:
        """Keeps that it was cancelled; the response as it is now."""
        return encode.keep(self._detail, self._resource.snapshot("cancelled"), self._store)
