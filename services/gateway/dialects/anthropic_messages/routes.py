"""The routes of the Anthropic API for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages import decode, encode, fields
from services.gateway.dialects.anthropic_messages.stream import MessagesProjector, PrefillProjector
from services.gateway.dialects.common.anthropic_body import envelope
from services.gateway.dialects.dialect import (
    BodyTable,
    Collected,
    DecodedRequest,
    Dialect,
    Head,
    Projector,
)
from services.gateway.dialects.explained import Explained
from services.gateway.dialects.lookup import FleetQueries, Lookup
from services.gateway.dialects.mount import Mount


class AnthropicMessages(Dialect):
    """Anthropic messages."""

    name: str = "anthropic_messages"
    reads: BodyTable | None = fields.MESSAGES
    answers: type[Any] | None = encode.MessageAnswer
    content_type: bytes = b"text/event-stream; charset=utf-8"

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        return decode.decode(body, head)

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        detail: decode.MessageDetail = decoded.detail
        make = PrefillProjector if detail.only_prefills else MessagesProjector
        return make(decoded, head)

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        return encode.body(decoded, head, choices)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return envelope(error, head)


class AnthropicCount(Lookup):
    """Counts the tokens of a message that is not generated."""

    name: str = "anthropic_count_tokens"
    reads: BodyTable | None = fields.COUNT
    answers: type[Any] | None = encode.CountAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The count."""
        request, edits_context = await fleet.decoded(decode.decode_count, body, head)
        counted = await fleet.count_tokens(request)
        return encode.count(counted.tokens, head, edits_context=edits_context)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return envelope(error, head)


def routes(mount: Mount) -> list[Route]:
    """Messages and their count; also without `/v1`, for clients that take it from the base URL."""
    explained = mount.lookup(Explained(AnthropicMessages()))
    messages, count = mount.generation(AnthropicMessages()), mount.lookup(AnthropicCount())
    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/messages", messages, methods=["POST"]),
        Route("/v1/messages/explain", explained, methods=["POST"]),
        Route("/v1/messages/count_tokens", count, methods=["POST"]),
        Route("/messages/count_tokens", count, methods=["POST"]),
    ]
