"""The interface of a dialect: one HTTP API in which clients ask for generations.

A dialect decodes HTTP bodies to a `DecodedRequest` and encodes the neuron's events to HTTP bodies
or streams. It knows nothing of routing, retries, gRPC or sockets; the rest of the gateway knows
nothing of JSON. A streamed answer is made by a `Projector`, event by event; an answer that is not
streamed is made of the same events, collected (`Collected`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError


class HeldBytes(Protocol):
    """Bytes that one stored thing, such as a waiting message, takes out of the budget."""

    def give_back(self) -> None:
        """Gives them back to the budget, once."""
        ...


class Budget(Protocol):
    """The bytes that all clients' bodies may have together."""

    def hold(self, size: int) -> HeldBytes | None:
        """Takes bytes for one thing that is kept; None where there are not so many left."""
        ...


class TooMuchHereError(Exception):
    """Decoding has to read more than may hold up other requests: it begins anew in a thread."""


class ReadAllowance(Protocol):
    """Bounds what is read for a request besides its own body, such as a stored conversation."""

    __slots__ = ()

    def take(self, size: int) -> None:
        """Counts bytes before they are read.

        Raises:
            FleetError: BODY_TOO_LARGE: more than a body may have; QUEUE_FULL: more than is left for
                all bodies; CANCELLED: the client has left.
            TooMuchHereError: not in this thread.
        """
        ...

    def take_items(self, text: bytes) -> None:
        """Counts the items of JSON that is about to be decoded.

        Raises:
            FleetError: BODY_TOO_LARGE: more than a body may have.
        """
        ...


class Head(msgspec.Struct, frozen=True):
    """What a dialect may read of a request besides its body.

    Attributes:
        request_id: this request's id, as every log line carries it.
        headers: lower-case names to values; the last of a repeated one.
        query: the URL's query, decoded.
        created_unix_seconds: when the request arrived.
        path: the route's parameters (`/v1/models/{model:path}`).
        principal: name of the API key; empty for anonymous. Stored responses are found only by the
            principal that made them.
        allowance: counts what else is read; None where nobody does.
    """

    request_id: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    created_unix_seconds: int
    path: Mapping[str, str] = {}
    principal: str = ""
    allowance: ReadAllowance | None = None


@dataclasses.dataclass(slots=True)
class DecodedRequest:
    """A request for a generation, decoded.

    Attributes:
        model: name or alias, as the client spelled it; responses repeat it.
        stream: the answer is a stream of events, not one body.
        requests: one per choice, in order of their index. Dispatch fills in model and instance; the
            decoder fills in everything else.
        detail: what the encoder of the same dialect needs to know (include_usage, echo, …).
        keep_alive_seconds: how long the model should stay loaded after this, where policy allows
            (Ollama's `keep_alive`); 0: unload it after use. None: policy decides.
        detached: takes the answer of a generation that runs in the background. None: the client
            waits for its answer.
        constraint_field: path of the field that the requests' constraint was made of; empty where
            there is none.
        characters: that the longest of the prompts has at least; 0 where nobody has looked, because
            the body is small.
    """

    model: str
    stream: bool
    requests: Sequence[generation.GenerateRequest]
    detail: Any = None
    keep_alive_seconds: float | None = None
    detached: Detached | None = None
    constraint_field: str = ""
    characters: int = 0


class Detached(Protocol):
    """Takes the answer of a generation that goes on after its request has been answered."""

    def accepted(self, stop: Callable[[], object]) -> bytes:
        """The body with which the request is answered at once. `stop` ends the generation."""
        ...

    def finished(self, choices: Sequence[Collected]) -> None:
        """The generation is complete."""
        ...

    def failed(self, error: FleetError) -> None:
        """The generation has failed, or was stopped (CANCELLED)."""
        ...


@dataclasses.dataclass(slots=True)
class CollectedToolCall:
    """One tool call.

    Attributes:
        is_cut: a limit or a stop string ended the answer inside it: its arguments end where the
            model's words did, and the call must not be made.
    """

    call_id: str
    name: str
    arguments_json: str
    is_cut: bool = False


@dataclasses.dataclass(slots=True)
class Collected:
    """All events of one choice, collected.

    Attributes:
        parts: text, reasoning and tool calls in the order in which they began:
            `("text", str)`, `("reasoning", str)`, `("tool_call", CollectedToolCall)`.
        logprobs: one per text token, where the client wants them.
        token_ids: of the text.
        finished: the last event.
        logprob_counts: how many of the log probabilities each text has, in the order of texts.
    """

    parts: list[tuple[str, Any]]
    logprobs: list[generation.TokenLogprob]
    token_ids: list[int]
    finished: generation.GenerationFinished
    logprob_counts: list[int]

    def text(self) -> str:
        """All text, joined."""
        return "".join([value for kind, value in self.parts if kind == "text"])

    def reasoning(self) -> str:
        """All reasoning, joined."""
        return "".join([value for kind, value in self.parts if kind == "reasoning"])

    def tool_calls(self) -> list[CollectedToolCall]:
        """All tool calls, in order; the last may have been cut."""
        return [value for kind, value in self.parts if kind == "tool_call"]

    def is_to_be_called(self) -> bool:
        """The answer ends with calls that are all whole, for the client to make."""
        calls = self.tool_calls()
        return bool(calls) and not calls[-1].is_cut


class Projector(Protocol):
    """Turns the neuron's events into the bytes of one streamed response.

    Called back on the event loop, so it never blocks, and never raises on a legal event. Every
    method returns whole SSE events (or NDJSON lines), or none (`b""`). `choice` is the index into
    `DecodedRequest.requests`.

    `open` is called first, once. What is returned before the first delta may be held back for up to
    a second: a request that fails meanwhile gets a plain HTTP error instead. Before the first delta
    the generation may start again elsewhere, so that `queued`, `started` and `prefill` may come
    again for the same choice.
    """

    __slots__ = ()

    def open(self) -> bytes:
        """The bytes with which the stream begins; empty where it has no opening."""
        ...

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """Text without log probabilities: the hot path. Several deltas may come as one."""
        ...

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Any other event, but for `finished`; also text with log probabilities."""
        ...

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The end of one choice, and with the last choice that of the stream."""
        ...

    def fail(self, error: FleetError) -> bytes:
        """The end of the stream after an error, in the dialect's own form."""
        ...

    def heartbeat(self) -> bytes:
        """An event that clients parse and that adds nothing (`ping`, an empty delta)."""
        ...

    def comment(self) -> bytes:
        """What keeps the connection alive between events: a comment, where the form has them."""
        return b": keep-alive\n\n"


class FieldTable(Protocol):
    """How fields of a body are treated that its struct does not name."""

    @property
    def ignored(self) -> frozenset[str]:
        """Names that are passed over."""
        ...

    @property
    def refused(self) -> Mapping[str, tuple[Any, ...]]:
        """Names that are refused, but for the values that turn them off."""
        ...


class BodyTable(Protocol):
    """How one kind of body is decoded; the OpenAPI document is made from it."""

    @property
    def shape(self) -> type[Any]:
        """The struct with the fields that are read."""
        ...

    @property
    def rules(self) -> FieldTable:
        """How the fields are treated that the struct does not name."""
        ...


class Envelope(Protocol):
    """Writes an error as one HTTP API does.

    Attributes:
        reads: by which its bodies are decoded; None: it reads none.
        answers: the struct of its answer's fields, where it is no stream; it describes the answer
            and writes none.
    """

    reads: BodyTable | None = None
    answers: type[Any] | None = None

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The body of an error response; `head` is the request's, where it was read."""
        ...


class Dialect(Envelope, Protocol):
    """One HTTP API for generations.

    Attributes:
        name: for logs and metrics: `openai_chat`.
        content_type: of a streamed response.
    """

    name: str
    content_type: bytes

    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        """Decodes the body of a request.

        Raises:
            FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
        """
        ...

    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        """A new encoder for one streamed response."""
        ...

    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        """The body of a response that is not streamed."""
        ...
