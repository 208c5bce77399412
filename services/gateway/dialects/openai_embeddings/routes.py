"""Where embeddings are served."""

from __future__ import annotations

from starlette.routing import Route

from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import FleetQueries, Head, Mount
from services.gateway.dialects.openai_embeddings import decode, encode


class OpenAIEmbeddings:
    """OpenAI embeddings."""

    name: str = "openai_embeddings"

    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The vectors."""
        decoded = decode.decode(body, head)
        return encode.body(decoded, await fleet.embed(decoded.request))

    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope."""
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """Embeddings."""
    app = mount.lookup(OpenAIEmbeddings())
    return [Route(path, app, methods=["POST"]) for path in ("/v1/embeddings", "/embeddings")]
