"""The routes of chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import (
    BodyTable,
    Collected,
    DecodedRequest,
    Dialect,
    Head,
    Projector,
)
from services.gateway.dialects.explained import Explained
from services.gateway.dialects.mount import Mount
from services.gateway.dialects.openai_chat import decode, encode, fields
from services.gateway.dialects.openai_chat.stream import ChatProjector

_PATHS: Final = ("/v1/chat/completions", "/chat/completions")


class OpenAIChat(Dialect):
    """OpenAI chat completions."""

    name: str = "openai_chat"
    reads: BodyTable | None = fields.READER
    answers: type[Any] | None = encode.ChatAnswer
    content_type: bytes = b"text/event-stream; charset=utf-8"

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        return decode.decode(body, head)

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        return ChatProjector(decoded, head)

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        return encode.body(decoded, head, choices)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """Chat completions, under both of the paths that clients make of a base URL."""
    app, explained = mount.generation(OpenAIChat()), mount.lookup(Explained(OpenAIChat()))
    return [
        *(Route(path, app, methods=["POST"]) for path in _PATHS),
        Route(f"{_PATHS[0]}/explain", explained, methods=["POST"]),
    ]
