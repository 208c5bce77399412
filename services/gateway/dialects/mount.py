"""How the gateway takes a dialect or a look-up in: as an ASGI app for the routes that name it."""

from __future__ import annotations

from typing import Protocol

from starlette.types import ASGIApp

from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.lookup import Lookup


class Mount(Protocol):
    """Makes ASGI apps of dialects and look-ups. Every `routes.py` has a function `routes(mount)`.

    ```
    def routes(mount: Mount) -> list[Route]:
        return [Route("/v1/messages", mount.generation(AnthropicMessages()), methods=["POST"])]
    ```
    """

    def generation(self, dialect: Dialect) -> ASGIApp:
        """The app that serves a dialect."""
        ...

    def lookup(self, lookup: Lookup) -> ASGIApp:
        """The app that serves a look-up."""
        ...
