"""`/v1/conformance`: which clients this build passed with."""

from __future__ import annotations

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError
from services.gateway.conformance.report import packaged
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.lookup import FleetQueries, Lookup
from services.gateway.dialects.mount import Mount


class Conformance(Lookup):
    """Serves the report of which clients this build passed with."""

    name: str = "conformance"

    def __init__(self) -> None:
        self._report = packaged()

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The report as JSON."""
        return self._report

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return openai_body.envelope(error)


def routes(mount: Mount) -> list[Route]:
    """`GET /v1/conformance`."""
    return [Route("/v1/conformance", mount.lookup(Conformance()), methods=["GET"])]
