"""The interface of a look-up: a request that is no generation, and what it may ask of the fleet.

A look-up lists, counts or embeds. Like a dialect it knows nothing of routing, gRPC or sockets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1.neuron_service_pb2 import ComparePromptResponse
from services.gateway.dialects.dialect import Envelope, Head

T = TypeVar("T")


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
        upstreams: names of the other servers that answer for it.
        is_of_fleet: False: these servers alone answer for it.
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
    upstreams: tuple[str, ...] = ()
    is_of_fleet: bool = True


@dataclasses.dataclass(slots=True)
class ComparedInstance:
    """What one instance holds of a prompt.

    Attributes:
        instance_id, neuron: which.
        foretold_tokens: by what its neuron has told this gateway; 0 where it tells nothing.
        found: the neuron's own answer; None where it has none.
        error: why there is none.
    """

    instance_id: str
    neuron: str
    foretold_tokens: int
    found: ComparePromptResponse | None = None
    error: str = ""


class FleetQueries(Protocol):
    """What look-ups may ask of the fleet. Calls are routed, placed and retried like generations.

    The coroutines raise FleetError: MODEL_UNKNOWN and whatever a generation may fail with.
    """

    async def decoded(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        """Decodes a body with `read`, a large one in a thread.

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

    async def compare(self, request: generation.GenerateRequest) -> Sequence[ComparedInstance]:
        """What each instance of a model holds of a prompt; nothing is run, and nothing loaded."""
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
