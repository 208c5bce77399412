"""Where legacy completions are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.routing import Route

from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head, Mount, Projector
from services.gateway.dialects.openai_completions import decode, encode
from services.gateway.dialects.openai_completions.stream import CompletionProjector

_PATHS: Final = ("/v1/completions", "/completions")


class OpenAICompletions:
    """OpenAI legacy completions."""

    name: str = "openai_completions"
    content_type: bytes = b"text/event-stream; charset=utf-8"

    def decode(self, body: bytes, head: Head) -> DecodedRequest:
        """Reads a request."""
        return decode.decode(body, head)

    def projector(self, decoded: DecodedRequest, head: Head) -> Projector:
        """A fresh encoder for one streamed response."""
        return CompletionProjector(decoded, head)

    def body(self, decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
        """The whole response, unstreamed."""
        return encode.body(decoded, head, choices)

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope."""
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """Legacy completions, under both of the paths that clients make of a base URL."""
    app = mount.generation(OpenAICompletions())
    return [Route(path, app, methods=["POST"]) for path in _PATHS]
