"""Responses in the background: answered at once, looked up and cancelled by their ids.

Each runs in the process that took its request. Other processes with the same store may look it up,
cancel and delete it, and find out that its process has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import Collected, DecodedRequest, Detached, Head
from services.gateway.dialects.openai_responses import encode
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.resource import Resource, error_code
from services.gateway.dialects.openai_responses.store.responses import StoredResponse
from services.gateway.dialects.openai_responses.store.store import ResponsesStore

_LOST = FleetError(
    Reason.WORKER_LOST,
    "The gateway that ran this response ended before the response did; ask for it again.",
)

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class _Running:
    stop: Callable[[], object]
    owner: str
    is_noted: bool


class BackgroundRuns:
    """The responses that run in the background.

    Args:
        store: where they are kept, and where it is noted which process runs them.
    """

    def __init__(self, store: ResponsesStore) -> None:
        self._store = store
        self._running: dict[str, _Running] = {}

    def run_of(self, decoded: DecodedRequest, head: Head) -> BackgroundRun:
        """The run of a decoded request; it is begun by `accepted`."""
        return BackgroundRun(decoded, head, self, self._store)

    def add(self, response_id: str, *, owner: str, stop: Callable[[], object]) -> None:
        """Notes that a run has begun in this process."""
        is_noted = self._store.begin_run(response_id, owner=owner)
        self._running[response_id] = _Running(stop, owner, is_noted)

    def end(self, response_id: str) -> bool:
        """Notes that a run of this process has ended; False if it was cancelled before."""
        run = self._running.pop(response_id, None)
        if run is None:
            return False
        return not run.is_noted or self._store.end_run(response_id, owner=run.owner)

    def stop(self, response_id: str, *, owner: str) -> bool:
        """Stops a run of this owner; False if there is none.

        Where another process runs it, it goes on to its end there, and its answer is dropped.
        """
        run = self._running.get(response_id)
        if run is not None and run.owner == owner:
            self.end(response_id)
            run.stop()
            return True
        return self._store.end_run(response_id, owner=owner)

    def recover(self) -> None:
        """At the start: fails the runs of processes that have ended."""
        for response_id, owner in self._store.lost_runs():
            self._fail(response_id, owner)
        self._store.forget_ended_processes()

    def settled(self, found: StoredResponse) -> StoredResponse:
        """A stored response as it stands now: failed, if the process that ran it has ended."""
        lost = self._store.lost_runs(found.response_id)
        if not lost:
            return found
        return self._fail(found.response_id, found.owner) or found

    def cancelled(self, found: StoredResponse) -> StoredResponse:
        """Marks a stored response as cancelled and returns it."""
        return self._changed(found, status="cancelled")

    def _fail(self, response_id: str, owner: str) -> StoredResponse | None:
        self._store.end_run(response_id, owner=owner)
        found = self._store.get(response_id, owner=owner)
        if found is None:
            return None
        log.warning("response.lost", response_id=response_id)
        error = {"code": error_code(_LOST), "message": openai_body.wording(_LOST)}
        return self._changed(found, status="failed", error=error)

    def _changed(self, found: StoredResponse, **fields: Any) -> StoredResponse:
        response = msgspec.json.decode(found.response, type=dict[str, Any])
        changed = dataclasses.replace(found, response=encode.to_json(response | fields))
        self._store.put(changed)
        return changed


class BackgroundRun(Detached):
    """One response that runs in the background."""

    def __init__(
        self, decoded: DecodedRequest, head: Head, runs: BackgroundRuns, store: ResponsesStore
    ) -> None:
        self._decoded = decoded
        self._head = head
        self._runs = runs
        self._store = store
        self._detail: ResponseDetail = decoded.detail
        self._resource = Resource(decoded, head)

    @override
    def accepted(self, stop: Callable[[], object]) -> bytes:
        """The response with status `queued`; a look-up finds it `in_progress`."""
        encode.keep(self._detail, self._resource.snapshot("in_progress"), self._store)
        self._runs.add(self._detail.response_id, owner=self._detail.owner, stop=stop)
        return encode.to_json(self._resource.snapshot("queued"))

    @override
    def finished(self, choices: Sequence[Collected]) -> None:
        """Stores the answer."""
        if self._runs.end(self._detail.response_id):
            encode.body(self._decoded, self._head, choices, self._store)

    @override
    def failed(self, error: FleetError) -> None:
        """Stores the error."""
        if self._runs.end(self._detail.response_id):
            encode.keep(self._detail, self._resource.failed((), error), self._store)
