"""Vectors into an embeddings response."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.openai_embeddings.decode import DecodedEmbeddings


class EmbeddingsAnswer(msgspec.Struct):
    """The fields of a whole response; it describes what `body` writes."""

    object: str
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class Embedding(msgspec.Struct):
    """One vector, as numbers or packed."""

    object: str
    index: int
    embedding: list[float] | str


def body(decoded: DecodedEmbeddings, answer: neuron.EmbedResponse) -> bytes:
    """The whole response."""
    shape = _packed if decoded.base64 else list
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": shape(one.values)}
        for index, one in enumerate(answer.embeddings)
    ]
    usage = {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens}
    return encode({"object": "list", "data": data, "model": decoded.model, "usage": usage})


def _packed(values: Sequence[float]) -> str:
    """Little-endian float32 in base64: what the SDKs ask for by themselves."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
