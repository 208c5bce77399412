"""Where messages are served and counted."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Route

from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages import decode, encode
from services.gateway.dialects.anthropic_messages.stream import MessagesProjector, PrefillProjector
from services.gateway.dialects.common.anthropic_body import envelope
from services.gateway.dialects.dialect import (
    Collected,
    DecodedRequest,
    FleetQueries,
    Head,
    Mount,
    Projector,
)


class AnthropicMessages:
    """Anthropic messages."""

    name: str = "anthropic_messages"
    content_type: bytes = b"text/event-stream; charset=utf-8"

    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        """Reads a request."""
        return decode.decode(body, head)

    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        """A fresh encoder for one streamed response."""
        detail: decode.MessageDetail = decoded.detail
        make = PrefillProjector if detail.only_prefills else MessagesProjector
        return make(decoded, head)

    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        """The whole response, unstreamed."""
        return encode.body(decoded, head, choices)

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope."""
        return envelope(error, head)


class AnthropicCount:
    """Counts the tokens of a message that is not generated."""

    name: str = "anthropic_count_tokens"

    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The count."""
        request, edits_context = decode.decode_count(body, head)
        counted = await fleet.count_tokens(request)
        return encode.count(counted.tokens, head, edits_context=edits_context)

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope."""
        return envelope(error, head)


def routes(mount: Mount) -> list[Route]:
    """Messages and their count; also without `/v1`, for clients that take it from the base URL."""
    messages, count = mount.generation(AnthropicMessages()), mount.lookup(AnthropicCount())
    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/messages", messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", count, methods=["POST"]),
        Route("/messages/count_tokens", count, methods=["POST"]),
    ]
