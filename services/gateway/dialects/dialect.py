"""What a dialect is: a decoder from HTTP bodies and an encoder to HTTP bodies and SSE.

Between the two lies one canonical path: `DecodedRequest` in, `GenerateResponse` events out. A
dialect knows nothing of routing, retries, gRPC or sockets; dispatch knows nothing of JSON. The
streamed form is a `Projector` fed event by event; the unstreamed form is the same events collected
(`Collected`), then worded once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.types import ASGIApp

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a decoder may read besides the body.

    Attributes:
        request_id: this request's id, as every log line carries it.
        headers: lower-case names to values; the last of a repeated one.
        query: the URL's query, decoded.
        created_unix_seconds: when the request came.
        path: parameters of the route (`/v1/models/{model:path}`).
        principal: who asks; empty for anonymous. Stored responses are found by their owner only.
    """

    request_id: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    created_unix_seconds: int
    path: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    principal: str = ""


@dataclasses.dataclass(slots=True)
class DecodedRequest:
    """A decoded request.

    Attributes:
        model: as the client spelled it: a name or an alias; responses repeat it.
        stream: the client wants events, not one body.
        requests: one generation per choice, in order of their index. Dispatch fills in model and
            instance; the decoder fills in everything else.
        detail: what the encoder of this dialect needs again (include_usage, echo, …).
        keep_alive_seconds: how long the model should stay loaded after this, where policy allows
            (Ollama's `keep_alive`); 0: unload it after use. None: policy decides.
        detached: takes the answer, which the client does not wait for. None: it waits.
    """

    model: str
    stream: bool
    requests: Sequence[generation.GenerateRequest]
    detail: Any = None
    keep_alive_seconds: float | None = None
    detached: Detached | None = None


class Detached(Protocol):
    """What becomes of a generation that goes on after its request has been answered."""

    def accepted(self, stop: Callable[[], object]) -> bytes:
        """The body that the request is answered with. `stop` ends the generation."""
        ...

    def finished(self, choices: Sequence[Collected]) -> None:
        """The generation has ended well."""
        ...

    def failed(self, error: FleetError) -> None:
        """It has not, or it was stopped (CANCELLED)."""
        ...


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
        """All tool calls, in order."""
        return [value for kind, value in self.parts if kind == "tool_call"]


class Projector(Protocol):
    """Turns canonical events into the bytes of one streamed response.

    Fed from a callback on the event loop, so it never blocks and never raises on a legal event.
    Every method returns whole SSE events (or NDJSON lines), possibly none (`b""`). `choice` is the
    index into `DecodedRequest.requests`.

    `open` comes first, once; then any of the others. What it and the events before the first delta
    return may be held back for up to a second: a request that fails meanwhile gets a plain HTTP
    error and none of them. Before the first delta a generation may start anew elsewhere, so
    `queued`, `started` and `prefill` may come again for the same choice.
    """

    def open(self) -> bytes:
        """The stream's first bytes."""
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

    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        """Reads a request.

        Raises:
            FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the field's path.
        """
        ...

    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        """A fresh encoder for one streamed response."""
        ...

    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        """The whole response, unstreamed."""
        ...

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope; the status comes from the table."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ListedModel:
    """One model as clients may ask for it, with what the fleet knows of it.

    Attributes:
        model: its name.
        aliases: other names for it.
        created_unix_seconds: when it was first known; 0 where that is not known.
        description: for people; may be empty.
        capabilities: what it can do.
        max_context_tokens: the tightest of its loaded instances, else as configured; None: not known.
        max_output_tokens: None: no limit of its own.
        price: None: unknown.
        is_loaded: some instance is READY.
        locations: neuron name and state of every instance, by neuron name.
        feasible_neurons: where it could run.
        weights: its files, as some neuron has described them; None: none has yet.
        memory_bytes: of the instance that holds most: in all, and on GPUs.
    """

    model: str
    aliases: tuple[str, ...] = ()
    created_unix_seconds: int = 0
    description: str = ""
    capabilities: tuple[model_pb2.Capability.ValueType, ...] = ()
    max_context_tokens: int | None = None
    max_output_tokens: int | None = None
    price: registry.Price | None = None
    is_loaded: bool = False
    locations: tuple[tuple[str, model_pb2.InstanceState.ValueType], ...] = ()
    feasible_neurons: tuple[str, ...] = ()
    weights: model_pb2.StoredModel | None = None
    memory_bytes: tuple[int, int] = (0, 0)


class FleetQueries(Protocol):
    """What a lookup may ask. Calls are routed, placed and retried as generations are.

    Raises (the coroutines): FleetError, MODEL_UNKNOWN among them.
    """

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        """Counts a prompt. `model` is a name or an alias; the instance is chosen here."""
        ...

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        """Embeds texts. `model` is a name or an alias; the instance is chosen here."""
        ...

    def models(self) -> Sequence[ListedModel]:
        """Every model that may be asked for, by name.

        Raises:
            FleetError: REGISTRY_UNAVAILABLE: nothing is known of the fleet yet.
        """
        ...


class Lookup(Protocol):
    """One way of asking for something that is no generation: a listing, a count, embeddings."""

    @property
    def name(self) -> str:
        """For logs and metrics: `openai_embeddings`."""
        ...

    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The JSON body of the answer.

        Raises:
            FleetError: as `Dialect.decode`, or as the fleet said.
        """
        ...

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope."""
        ...


class Mount(Protocol):
    """Makes ASGI apps of dialects. Every `routes.py` has one function `routes(mount)`.

    ```
    def routes(mount: Mount) -> list[Route]:
        return [Route("/v1/messages", mount.generation(AnthropicMessages()), methods=["POST"])]
    ```
    """

    def generation(self, dialect: Dialect) -> ASGIApp:
        """Serves a dialect."""
        ...

    def lookup(self, lookup: Lookup) -> ASGIApp:
        """Serves a lookup."""
        ...
