"""The routes of the Ollama API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError
from services.gateway.dialects.dialect import (
    BodyTable,
    Collected,
    DecodedRequest,
    Dialect,
    Head,
    Projector,
)
from services.gateway.dialects.mount import Mount
from services.gateway.dialects.ollama import decode, encode, fields, listings
from services.gateway.dialects.ollama.stream import LineProjector


class OllamaGenerate(Dialect):
    """Ollama's /api/generate."""

    name: str = "ollama_generate"
    reads: BodyTable | None = fields.GENERATE
    answers: type[Any] | None = encode.OllamaAnswer
    content_type: bytes = b"application/x-ndjson"

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        return decode.decode_generate(body, head)

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        return LineProjector(decoded)

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        return encode.body(decoded, choices)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return encode.envelope(error)


class OllamaChat(OllamaGenerate):
    """Ollama's /api/chat."""

    name: str = "ollama_chat"
    reads: BodyTable | None = fields.CHAT

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        return decode.decode_chat(body, head)


def routes(mount: Mount) -> list[Route]:
    """Everything below /api."""
    refused = mount.lookup(listings.OllamaUnsupported())
    return [
        Route("/api/chat", mount.generation(OllamaChat()), methods=["POST"]),
        Route("/api/generate", mount.generation(OllamaGenerate()), methods=["POST"]),
        Route("/api/embed", mount.lookup(listings.OllamaEmbed()), methods=["POST"]),
        Route("/api/embeddings", mount.lookup(listings.OllamaEmbedOne()), methods=["POST"]),
        Route("/api/version", mount.lookup(listings.OllamaVersion()), methods=["GET"]),
        Route("/api/tags", mount.lookup(listings.OllamaTags()), methods=["GET"]),
        Route("/api/ps", mount.lookup(listings.OllamaRunning()), methods=["GET"]),
        Route("/api/show", mount.lookup(listings.OllamaShow()), methods=["POST"]),
        Route("/api/pull", mount.lookup(listings.OllamaPull()), methods=["POST"]),
        *(Route(f"/api/{verb}", refused, methods=["POST"]) for verb in ("create", "copy", "push")),
        Route("/api/delete", refused, methods=["DELETE"]),
    ]
