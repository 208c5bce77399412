"""Decodes and encodes the embedding bodies of the Ollama API."""

from __future__ import annotations

import dataclasses

import msgspec

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.common.token_inputs import inputs_of
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.ollama.decode import model_name
from services.gateway.dialects.ollama.fields import EMBED, EmbedRequest


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedEmbed:
    """A decoded request.

    Attributes:
        model: as the client spelled it.
        request: for the fleet; without inputs it only loads the model.
    """

    model: str
    request: neuron.EmbedRequest


def decode(body: bytes, head: Head) -> DecodedEmbed:
    """Reads /api/embed.

    Raises:
        FleetError: BAD_REQUEST with the field's path.
    """
    wire: EmbedRequest = EMBED.read(body)
    return _decoded(wire, head, inputs_of(wire.input, "input") if wire.input else [])


def decode_one(body: bytes, head: Head) -> DecodedEmbed:
    """Reads /api/embeddings, which takes one prompt.

    Raises:
        FleetError: BAD_REQUEST with the field's path.
    """
    wire: EmbedRequest = EMBED.read(body)
    return _decoded(wire, head, [neuron.EmbedInput(text=wire.prompt)] if wire.prompt else [])


def _decoded(wire: EmbedRequest, head: Head, inputs: list[neuron.EmbedInput]) -> DecodedEmbed:
    request = neuron.EmbedRequest(
        request_id=head.request_id,
        model=model_name(wire.model),
        inputs=inputs,
        dimensions=wire.dimensions,
        truncate=wire.truncate is not False,
    )
    return DecodedEmbed(wire.model, request)


class EmbedAnswer(msgspec.Struct):
    """The fields of the answer of /api/embed."""

    model: str
    embeddings: list[list[float]]
    prompt_eval_count: int


class EmbedOneAnswer(msgspec.Struct):
    """The fields of the answer of /api/embeddings."""

    embedding: list[float]


def body(decoded: DecodedEmbed, answer: neuron.EmbedResponse) -> bytes:
    """The body of the answer."""
    vectors = [list(one.values) for one in answer.embeddings]
    tokens = answer.prompt_tokens
    return encode({"model": decoded.model, "embeddings": vectors, "prompt_eval_count": tokens})


def body_of_one(answer: neuron.EmbedResponse) -> bytes:
    """The body of the answer of the older path."""
    vector = list(answer.embeddings[0].values) if answer.embeddings else []
    return encode({"embedding": vector})
