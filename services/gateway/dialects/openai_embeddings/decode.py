"""An embeddings body into a canonical request."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common.json_body import BodyReader, FieldRules, bad
from services.gateway.dialects.common.token_inputs import Inputs, inputs_of
from services.gateway.dialects.dialect import Head

_UINT32: Final = 2**32 - 1


class EmbeddingsRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body, as clients write it. Source: OpenAI API reference, embeddings/create."""

    model: str
    input: Inputs
    encoding_format: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=_UINT32)] | None = None
    truncate: bool | None = None
    truncate_prompt_tokens: int | None = None


READER: Final = BodyReader(
    EmbeddingsRequest,
    FieldRules(ignored=frozenset({"user", "input_type", "priority", "add_special_tokens"})),
)


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedEmbeddings:
    """A decoded request.

    Attributes:
        model: as the client spelled it.
        request: for the fleet.
        base64: vectors are wanted as little-endian float32 in base64.
    """

    model: str
    request: neuron.EmbedRequest
    base64: bool


def decode(body: bytes, head: Head) -> DecodedEmbeddings:
    """Reads a request.

    Raises:
        FleetError: BAD_REQUEST with the field's path.
    """
    wire: EmbeddingsRequest = READER.read(body)
    if wire.encoding_format not in {None, "float", "base64"}:
        raise bad("encoding_format", f"{wire.encoding_format!r} is none of float, base64.")
    request = neuron.EmbedRequest(
        request_id=head.request_id,
        model=wire.model,
        inputs=inputs_of(wire.input, "input"),
        dimensions=wire.dimensions,
        truncate=bool(wire.truncate or wire.truncate_prompt_tokens),
    )
    return DecodedEmbeddings(wire.model, request, base64=wire.encoding_format == "base64")
