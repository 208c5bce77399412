"""What a dialect is: a decoder from HTTP bodies and an encoder to HTTP bodies and SSE.

Between the two lies one canonical path: `Ask` in, `GenerateResponse` events out. A dialect knows
nothing of routing, retries, gRPC or sockets; dispatch knows nothing of JSON. The streamed form is a
`Projector` fed event by event; the unstreamed form is the same events collected (`Collected`), then
worded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a decoder may read besides the body.

    Attributes:
        request_id: this request's id, as every log line carries it.
        headers: lower-case names to values; the last of a repeated one.
        query: the URL's query, decoded.
        created_unix_seconds: when the request came.
    """

    request_id: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    created_unix_seconds: int


@dataclasses.dataclass(slots=True)
class Ask:
    """A decoded request.

    Attributes:
        model: as the client spelled it: a name or an alias; responses repeat it.
        stream: the client wants events, not one body.
        requests: one generation per choice, in order of their index. Dispatch fills in model and
            instance; the decoder fills in everything else.
        detail: what the encoder of this dialect needs again (include_usage, echo, …).
    """

    model: str
    stream: bool
    requests: Sequence[generation.GenerateRequest]
    detail: Any = None


@dataclasses.dataclass(slots=True)
class CollectedToolCall:
    """One tool call, whole."""

    call_id: str
    name: str
    arguments_json: str


@dataclasses.dataclass(slots=True)
class Collected:
    """All events of one choice, added up.

    Attributes:
        parts: text, reasoning and tool calls in the order in which they began:
            `("text", str)`, `("reasoning", str)`, `("tool_call", CollectedToolCall)`.
        logprobs: one per text token where they were asked for.
        token_ids: of the text.
        finished: the last event.
    """

    parts: list[tuple[str, Any]]
    logprobs: list[generation.TokenLogprob]
    token_ids: list[int]
    finished: generation.GenerationFinished

    def text(self) -> str:
        """All text, joined."""
        return "".join(value for kind, value in self.parts if kind == "text")

    def reasoning(self) -> str:
        """All reasoning, joined."""
        return "".join(value for kind, value in self.parts if kind == "reasoning")

    def tool_calls(self) -> list[CollectedToolCall]:
        """All tool calls, in order."""
        return [value for kind, value in self.parts if kind == "tool_call"]


class Projector(Protocol):
    """Turns canonical events into the bytes of one streamed response.

    Fed from a callback on the event loop, so it never blocks and never raises on a legal event.
    Every method returns whole SSE events (or NDJSON lines), possibly none (`b""`). `choice` is the
    index into `Ask.requests`.
    """

    def open(self) -> bytes:
        """Sent as soon as the request is accepted, before any instance has answered."""
        ...

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """Plain text without logprobs: the hot path. `text` may be several deltas merged."""
        ...

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Any event but `finished`, text with logprobs among them."""
        ...

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The end of one choice; the end of the stream where it is the last."""
        ...

    def fail(self, error: FleetError) -> bytes:
        """The end of the stream after a failure, in the dialect's own form."""
        ...

    def heartbeat(self) -> bytes:
        """A legal event that tells the client that the stream lives (`ping`, empty delta)."""
        ...

    @property
    def comment(self) -> bytes:
        """What keeps the transport alive between events (`: keep-alive`), where the form has it."""
        ...


class Dialect(Protocol):
    """One way of asking for a generation over HTTP."""

    @property
    def name(self) -> str:
        """For logs and metrics: `openai_chat` or `anthropic_messages`."""
        ...

    @property
    def content_type(self) -> bytes:
        """Of a streamed response."""
        ...

    def decode(self, body: bytes, head: Head) -> Ask:
        """Reads a request.

        Raises:
            FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
        """
        ...

    def projector(self, ask: Ask, head: Head) -> Projector:
        """A fresh encoder for one streamed response."""
        ...

    def body(self, ask: Ask, head: Head, choices: Sequence[Collected]) -> bytes:
        """The whole response, unstreamed."""
        ...

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope; the status comes from the table."""
        ...
