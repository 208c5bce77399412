"""The interface of a dialect: one HTTP API in which clients ask for generations.

A dialect decodes HTTP bodies to a `DecodedRequest` and encodes the neuron's events to HTTP bodies
or streams. It knows nothing of routing, retries, gRPC or sockets; the rest of the gateway knows
nothing of JSON. A streamed answer is made by a `Projector`, event by event; an answer that is not
streamed is made of the same events, collected (`Collected`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a dialect may read of a request besides its body.

    Attributes:
        request_id: this request's id, as every log line carries it.
        headers: lower-case names to values; the last of a repeated one.
        query: the URL's query, decoded.
        created_unix_seconds: when the request arrived.
        path: the route's parameters (`/v1/models/{model:path}`).
        principal: name of the API key; empty for anonymous. Stored responses are found only by the
            principal that made them.
    """

    request_id: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    created_unix_seconds: int
    path: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    principal: str = ""


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
    """

    model: str
    stream: bool
    requests: Sequence[generation.GenerateRequest]
    detail: Any = None
    keep_alive_seconds: float | None = None
    detached: Detached | None = None
    constraint_field: str = ""


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
        """The stream's first bytes."""
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


class Envelope(Protocol):
    """Words errors as one API does."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class ListedModel:
    """One model that clients may name, and what the fleet knows of it.

    Attributes:
        model: its name.
        aliases: other names for it.
        created_unix_seconds: when the registry first knew of it; 0: not known.
        description: for people; may be empty.
        capabilities: what it can do.
        max_context_tokens: the least of its loaded instances, else as configured; None: not known.
        max_output_tokens: None: no limit but the context.
        price: None: not known.
        is_loaded: some instance is READY.
        locations: neuron and state of every instance, sorted by neuron.
        feasible_neurons: names of the neurons that could run it.
        weights: its files, as a neuron has described them; None: none has yet.
        memory_bytes: of the instance that takes most: in all, and on GPUs.
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
    """What look-ups may ask of the fleet. Calls are routed, placed and retried like generations.

    The coroutines raise FleetError: MODEL_UNKNOWN and whatever a generation may fail with.
    """

    async def decoded(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        """What `read` makes of a body; of a large one in a thread, so that nobody waits for it.

        Raises:
            FleetError: BODY_TOO_LARGE: too many items; or what `read` raises.
        """
        ...

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        """Counts a prompt's tokens. `model` is a name or an alias; the instance is chosen here."""
        ...

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        """Embeds texts. `model` is a name or an alias; the instance is chosen here."""
        ...

    def models(self) -> Sequence[ListedModel]:
        """Every model that clients may name, sorted by name, those that can chat first.

        Raises:
            FleetError: REGISTRY_UNAVAILABLE: no registry has been reached yet.
        """
        ...


class Lookup(Envelope, Protocol):
    """One request that is no generation: a listing, a count, embeddings.

    Attributes:
        name: for logs and metrics: `openai_embeddings`.
    """

    name: str

    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The JSON body of the answer.

        Raises:
            FleetError: as from `Dialect.decode` or `fleet`.
        """
        ...


class Mount(Protocol):
    """Makes ASGI apps of dialects and look-ups. Every `routes.py` has a function `routes(mount)`.

    ```
    def routes(mount: Mount) -> list[Route]:
        return [Route("/v1/messages", mount.generation(AnthropicMessages()), methods=["POST"])]
    ```
    """

    def generation(self, dialect: Dialect) -> ASGIApp:
        """The app that serves a dialect."""
        ...

    def lookup(self, lookup: Lookup) -> ASGIApp:
        """The app that serves a look-up."""
        ...
