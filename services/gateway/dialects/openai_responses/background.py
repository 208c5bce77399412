"""Responses that run in the background: told at once, found later, cancelled by their id.

They run in the process that took them. Others that share its store may look them up, cancel and
delete them, and find out that it has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head
from services.gateway.dialects.openai_responses import encode
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.resource import Resource, error_code
from services.gateway.dialects.openai_responses.store.store import ResponsesStore, StoredResponse

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
    """What runs in the background, by response id."""

    def __init__(self, store: ResponsesStore) -> None:
        self._store = store
        self._running: dict[str, _Running] = {}

    def run_of(self, decoded: DecodedRequest, head: Head) -> BackgroundRun:
        """A run to be."""
        return BackgroundRun(decoded, head, self, self._store)

    def add(self, response_id: str, *, owner: str, stop: Callable[[], object]) -> None:
        """A run has begun in this process."""
        is_noted = self._store.begin_run(response_id, owner=owner)
        self._running[response_id] = _Running(stop, owner, is_noted)

    def end(self, response_id: str) -> bool:
        """A run of this process has ended; False where it was cancelled or deleted before."""
        run = self._running.pop(response_id, None)
        if run is None:
            return False
        return not run.is_noted or self._store.end_run(response_id, owner=run.owner)

    def stop(self, response_id: str, *, owner: str) -> bool:
        """Stops a run of this owner's; False where there is none.

        Where another process runs it, that one goes on to the end and tells nobody.
        """
        run = self._running.get(response_id)
        if run is not None and run.owner == owner:
            self.end(response_id)
            run.stop()
            return True
        return self._store.end_run(response_id, owner=owner)

    def recover(self) -> None:
        """Ends what processes have left running that have ended themselves; for the start."""
        for response_id, owner in self._store.lost_runs():
            self._fail(response_id, owner)
        self._store.forget_ended_processes()

    def settled(self, found: StoredResponse) -> StoredResponse:
        """A response as it stands: one that has lost its process has failed."""
        lost = self._store.lost_runs(found.response_id)
        if not lost:
            return found
        return self._fail(found.response_id, found.owner) or found

    def cancelled(self, found: StoredResponse) -> StoredResponse:
        """Keeps that a response was cancelled; the response as it is now."""
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


class BackgroundRun:
    """One response under way; see `Detached`."""

    def __init__(
        self, decoded: DecodedRequest, head: Head, runs: BackgroundRuns, store: ResponsesStore
    ) -> None:
        self._decoded = decoded
        self._head = head
        self._runs = runs
        self._store = store
        self._detail: ResponseDetail = decoded.detail
        self._resource = Resource(decoded, head)

    def accepted(self, stop: Callable[[], object]) -> bytes:
        """The response as it is told at once; whoever looks it up finds it in progress."""
        encode.keep(self._detail, self._resource.snapshot("in_progress"), self._store)
        self._runs.add(self._detail.response_id, owner=self._detail.owner, stop=stop)
        return encode.to_json(self._resource.snapshot("queued"))

    def finished(self, choices: Sequence[Collected]) -> None:
        """Keeps the answer."""
        if self._runs.end(self._detail.response_id):
            encode.body(self._decoded, self._head, choices, self._store)

    def failed(self, error: FleetError) -> None:
        """Keeps what went wrong."""
        if self._runs.end(self._detail.response_id):
            encode.keep(self._detail, self._resource.failed((), error), self._store)
