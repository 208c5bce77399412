"""The routes of embeddings."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import BodyTable, Head
from services.gateway.dialects.lookup import FleetQueries, Lookup
from services.gateway.dialects.mount import Mount
from services.gateway.dialects.openai_embeddings import decode, encode


class OpenAIEmbeddings(Lookup):
    """OpenAI embeddings."""

    name: str = "openai_embeddings"
    reads: BodyTable | None = decode.READER
    answers: type[Any] | None = encode.EmbeddingsAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The vectors."""
        decoded = await fleet.decoded(decode.decode, body, head)
        return encode.body(decoded, await fleet.embed(decoded.request))

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """Embeddings."""
    app = mount.lookup(OpenAIEmbeddings())
    return [Route(path, app, methods=["POST"]) for path in ("/v1/embeddings", "/embeddings")]
