"""Decodes and encodes the embedding bodies of the Ollama API."""

from __future__ import annotations

import dataclasses

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common.json_body import bad, encode
from services.gateway.dialects.common.token_inputs import inputs_of
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.ollama.decode import model_name
from services.gateway.dialects.ollama.fields import EMBED, EmbedRequest


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedEmbed:
    """A decoded request, and the model as the client spelled it."""

    model: str
    request: neuron.EmbedRequest


def decode(body: bytes, head: Head) -> DecodedEmbed:
    """Reads /api/embed.

    Raises:
        FleetError: BAD_REQUEST with the field's path.
    """
    wire: EmbedRequest = EMBED.read(body)
    if wire.input is None:
        raise bad("input", "Field required.")
    return _decoded(wire, head, inputs_of(wire.input, "input"))


def decode_one(body: bytes, head: Head) -> DecodedEmbed:
    """Reads /api/embeddings, which takes one prompt.

    Raises:
        FleetError: BAD_REQUEST with the field's path.
    """
    wire: EmbedRequest = EMBED.read(body)
    if not wire.prompt:
        raise bad("prompt", "Field required.")
    return _decoded(wire, head, [neuron.EmbedInput(text=wire.prompt)])


def _decoded(wire: EmbedRequest, head: Head, inputs: list[neuron.EmbedInput]) -> DecodedEmbed:
    request = neuron.EmbedRequest(
        request_id=head.request_id,
        model=model_name(wire.model),
        inputs=inputs,
        dimensions=wire.dimensions,
        truncate=wire.truncate is not False,
    )
    return DecodedEmbed(wire.model, request)


def body(decoded: DecodedEmbed, answer: neuron.EmbedResponse) -> bytes:
    """The body of the answer."""
    return encode(
        {
            "model": decoded.model,
            "embeddings": [list(one.values) for one in answer.embeddings],
            "prompt_eval_count": answer.prompt_tokens,
        }
    )
