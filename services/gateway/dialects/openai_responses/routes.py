"""The routes of the Responses API."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from starlette.routing import Route, WebSocketRoute
from typing_extensions import override

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import unsupported
from services.gateway.dialects.dialect import (
    BodyTable,
    Budget,
    Collected,
    DecodedRequest,
    Dialect,
    Head,
    Projector,
)
from services.gateway.dialects.mount import Mount
from services.gateway.dialects.openai_responses import decode, encode, fields, stored
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.compaction import Compaction
from services.gateway.dialects.openai_responses.resource import ResponseAnswer
from services.gateway.dialects.openai_responses.store.history import History
from services.gateway.dialects.openai_responses.store.responses import Responses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.dialects.openai_responses.stream import ResponseProjector
from services.gateway.dialects.openai_responses.websocket.socket import ResponsesSocket


def new_response_id() -> str:
    """An id that nobody can guess."""
    return "resp_" + secrets.token_hex(20)


class OpenAIResponses(Dialect):
    """OpenAI Responses."""

    name: str = "openai_responses"
    reads: BodyTable | None = fields.READER
    answers: type[Any] | None = ResponseAnswer
    content_type: bytes = b"text/event-stream; charset=utf-8"

    def __init__(
        self,
        store: Responses,
        runs: BackgroundRuns | None = None,
        *,
        new_id: Callable[[], str] = new_response_id,
    ) -> None:
        self._store = store
        self._runs = runs
        self._history = History(store)
        self._new_id = new_id

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        decoded = decode.decode(body, head, self._history, self._new_id())
        detail: decode.ResponseDetail = decoded.detail
        if detail.wire.background:
            if self._runs is None:
                raise unsupported("background", "nothing runs in the background here.")
            return dataclasses.replace(decoded, detached=self._runs.run_of(decoded, head))
        return decoded

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        return ResponseProjector(decoded, head, self._store)

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        return encode.body(decoded, head, choices, self._store)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


def routes(
    mount: Mount,
    store: ResponsesStore,
    *,
    socket_idle_seconds: float,
    faults: Faults,
    budget: Budget,
    most_items: int,
) -> list[Route | WebSocketRoute]:
    """Routes to make, stream, look up, delete, cancel, list and count."""
    runs = BackgroundRuns(store)
    runs.recover()
    make = mount.generation(OpenAIResponses(store, runs))
    socket = ResponsesSocket(
        store,
        lambda kept: mount.generation(OpenAIResponses(kept)),
        idle_seconds=socket_idle_seconds,
        faults=faults,
        budget=budget,
        most_items=most_items,
    )
    one = "/v1/responses/{response_id}"
    return [
        WebSocketRoute("/v1/responses", socket),
        Route("/v1/responses", make, methods=["POST"]),
        Route("/responses", make, methods=["POST"]),
        Route(
            "/v1/responses/input_tokens", mount.lookup(stored.CountInput(store)), methods=["POST"]
        ),
        Route(
            "/v1/responses/compact", mount.generation(Compaction(History(store))), methods=["POST"]
        ),
        Route(one, mount.lookup(stored.RetrieveResponse(store, runs)), methods=["GET"]),
        Route(one, mount.lookup(stored.DeleteResponse(store, runs)), methods=["DELETE"]),
        Route(one + "/cancel", mount.lookup(stored.CancelResponse(store, runs)), methods=["POST"]),
        Route(one + "/input_items", mount.lookup(stored.InputItems(store)), methods=["GET"]),
    ]
