"""The routes of legacy completions."""

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
from services.gateway.dialects.mount import Mount
from services.gateway.dialects.openai_completions import decode, encode
from services.gateway.dialects.openai_completions.stream import CompletionProjector

_PATHS: Final = ("/v1/completions", "/completions")


class OpenAICompletions(Dialect):
    """OpenAI legacy completions."""

    name: str = "openai_completions"
    reads: BodyTable | None = decode.READER
    answers: type[Any] | None = encode.CompletionAnswer
    content_type: bytes = b"text/event-stream; charset=utf-8"

    @override
    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        return decode.decode(body, head)

    @override
    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        return CompletionProjector(decoded, head)

    @override
    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        return encode.body(decoded, head, choices)

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """Legacy completions, under both of the paths that clients make of a base URL."""
    app = mount.generation(OpenAICompletions())
    return [Route(path, app, methods=["POST"]) for path in _PATHS]
