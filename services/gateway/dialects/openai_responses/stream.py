"""Streamed responses.

Every event has type, sequence number and the indexes of its item, because SDKs read the data only.
Items follow one another; another kind of delta ends the open item.
Source: OpenAI API reference, responses streaming; the Open Responses specification.
"""

from __future__ import annotations

import time
from typing import Any

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import DecodedRequest, Head, Projector
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.encode import keep
from services.gateway.dialects.openai_responses.open_item import (
    OpenCall,
    OpenItem,
    OpenReasoning,
    OpenText,
)
from services.gateway.dialects.openai_responses.output import OutputItems, logprobs_of
from services.gateway.dialects.openai_responses.resource import Resource, is_cut
from services.gateway.dialects.openai_responses.sse_event import NumberedEvents
from services.gateway.dialects.openai_responses.store.responses import Responses


class ResponseProjector(Projector):
    """One streamed response."""

    def __init__(self, decoded: DecodedRequest, head: Head, store: Responses) -> None:
        detail: ResponseDetail = decoded.detail
        self._detail = detail
        self._store = store
        self._resource = Resource(decoded, head)
        self._output_items = OutputItems(detail)
        self._events = NumberedEvents()
        self._output: list[dict[str, Any]] = []
        self._open: OpenItem | None = None
        self._text: OpenText | None = None
        self._call = -1
        self._call_is_cut = False
        self._running = False
        # Of tokens that had no text yet when they came; they are the next text's.
        self._early_logprobs: list[dict[str, Any]] = []

    @override
    def open(self) -> bytes:
        """`response.created`."""
        return self._tell("response.created", self._resource.snapshot("in_progress"))

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A text delta."""
        if self._text is not None:
            return self._text.delta(text) if text else b""
        if not text:
            return b""
        return self._begin_text() + self._opened_text().delta(text)

    @override
    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Whatever else there is to tell."""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(event.text)
            case "reasoning" if event.reasoning.text:
                return self._reasoning(event.reasoning.text)
            case "tool_call":
                return self._tool_call(event.tool_call)
            case "started":
                return self._run()
            case "queued":
                return self._queued(event.queued)
            case _:
                return b""

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """`response.completed`, or `response.incomplete` at the token limit."""
        cut = is_cut(finished)
        ends = cut or self._call_is_cut
        before = self._run() + self._end_item("incomplete" if ends else "completed")
        response = self._resource.finished(self._output, finished, completed_at=int(time.time()))
        keep(self._detail, response, self._store)
        return before + self._tell("response.incomplete" if cut else "response.completed", response)

    @override
    def fail(self, error: FleetError) -> bytes:
        """`response.failed`; Codex would ignore a bare `error` event."""
        before = self._end_item("incomplete")
        response = self._resource.failed(self._output, error)
        keep(self._detail, response, self._store)
        return before + self._tell("response.failed", response)

    @override
    def heartbeat(self) -> bytes:
        """`response.in_progress`."""
        self._running = True
        return self._tell(
            "response.in_progress", self._resource.snapshot("in_progress", self._output)
        )

    def _tell(self, kind: str, response: dict[str, Any]) -> bytes:
        return self._events.event(kind, response=response)

    def _run(self) -> bytes:
        return b"" if self._running else self.heartbeat()

    def _queued(self, queued: generation.GenerationQueued) -> bytes:
        return openai_body.queued(queued) + self._tell(
            "response.queued", self._resource.snapshot("queued")
        )

    def _begin(self, item: OpenItem) -> bytes:
        status = "incomplete" if self._call_is_cut else "completed"
        before = self._run() + self._end_item(status)
        self._open = item
        self._text = item if isinstance(item, OpenText) else None
        return before + item.begin()

    def _end_item(self, status: str) -> bytes:
        if self._open is None:
            return b""
        told, item = self._open.end(status)
        self._output.append(item)
        self._open = self._text = None
        self._call, self._call_is_cut = -1, False
        return told

    def _begin_text(self) -> bytes:
        # the open item, if there is one, takes the next index once it is ended
        return self._begin(OpenText(self._events, self._output_items, self._next_index()))

    def _opened_text(self) -> OpenText:
        assert self._text is not None
        return self._text

    def _next_index(self) -> int:
        return len(self._output) + (self._open is not None)

    def _rich_text(self, delta: generation.TextDelta) -> bytes:
        logprobs = logprobs_of(delta, self._detail)
        if not logprobs:
            return self.text(0, delta.text, len(delta.token_ids))
        if self._text is None and not delta.text:
            self._early_logprobs += logprobs
            return b""
        before = b"" if self._text is not None else self._begin_text()
        early, self._early_logprobs = self._early_logprobs, []
        return before + self._opened_text().rich_delta(delta.text, early + logprobs)

    def _reasoning(self, text: str) -> bytes:
        if isinstance(self._open, OpenReasoning):
            return self._open.delta(text)
        item = OpenReasoning(
            self._events, self._output_items, self._next_index(), summarises=self._detail.summarises
        )
        return self._begin(item) + item.delta(text)

    def _tool_call(self, delta: generation.ToolCallDelta) -> bytes:
        before = openai_body.repairs((delta.repair,))
        if not isinstance(self._open, OpenCall) or self._call != delta.index:
            item = OpenCall(
                self._events, self._output_items, self._next_index(), delta.call_id, delta.name
            )
            before += self._begin(item)
            self._call, self._call_is_cut = delta.index, delta.incomplete
            return before + item.delta(delta.arguments_json)
        self._call_is_cut = self._call_is_cut or delta.incomplete
        return before + self._open.delta(delta.arguments_json)
