"""A fleet of two models, for look-ups."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.lookup import ListedModel, Lookup
from tests.unit.gateway.dialects.answers import HEAD

MODELS = [
    ListedModel(
        model="big",
        aliases=("large",),
        created_unix_seconds=1_700_000_000,
        capabilities=(model_pb2.CAPABILITY_CHAT, model_pb2.CAPABILITY_TOOLS),
        max_context_tokens=8192,
        price=registry.Price(input=0.0),
        is_loaded=True,
        locations=(("n1", model_pb2.INSTANCE_STATE_READY),),
        feasible_neurons=("n1", "n2"),
    ),
    ListedModel(
        model="org/cold",
        locations=(("n2", model_pb2.INSTANCE_STATE_LOADING),),
    ),
]


class FixedFleet:
    """Answers look-ups out of nothing but the request."""

    async def decoded(self, read: Callable[[bytes, Head], Any], body: bytes, head: Head) -> Any:
        return read(body, head)

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        return neuron.CountTokensResponse(tokens=len(request.chat.messages))

    async def compare(self, request: generation.GenerateRequest) -> list[Any]:
        raise AssertionError(request)

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        vectors = [neuron.Embedding(values=[0.5, -1.0]) for _ in request.inputs]
        return neuron.EmbedResponse(embeddings=vectors, prompt_tokens=7 if vectors else 0)

    def models(self) -> Sequence[ListedModel]:
        return MODELS


async def look_up_in(lookup: Lookup, body: Any = None, head: Head = HEAD) -> Any:
    raw = b"" if body is None else json.dumps(body).encode()
    return json.loads(await lookup.answer(raw, head, FixedFleet()))
