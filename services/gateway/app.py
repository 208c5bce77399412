"""The gateway as an ASGI app: every route, and what happens where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.api import health
from services.gateway.api.endpoint import Endpoints, GenerationEndpoint
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.services import GatewayServices
from services.gateway.conformance.routes import routes as conformance
from services.gateway.dialects.anthropic_messages.routes import routes as anthropic_messages
from services.gateway.dialects.models.routes import routes as models
from services.gateway.dialects.ollama.routes import routes as ollama
from services.gateway.dialects.openai_chat.routes import routes as openai_chat
from services.gateway.dialects.openai_completions.routes import routes as openai_completions
from services.gateway.dialects.openai_embeddings.routes import routes as openai_embeddings
from services.gateway.dialects.openai_responses.routes import routes as openai_responses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore


def build_app(
    services: GatewayServices,
    readiness: health.Readiness,
    error_responses: ErrorResponses,
    responses: ResponsesStore,
) -> ASGIApp:
    """The app with every route. Generations skip Starlette's layers (`HotRoutes`)."""
    mount = Endpoints(services)
    routes: list[BaseRoute] = [
        *openai_chat(mount),
        *anthropic_messages(mount),
        *openai_responses(
            mount, responses, socket_idle_seconds=services.settings.socket_idle_seconds
        ),
        *openai_completions(mount),
        *openai_embeddings(mount),
        *models(mount),
        *ollama(mount),
        *conformance(mount),
        *health.routes(readiness),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: error_responses.on_http_exception,
            Exception: error_responses.on_crash,
        },
    )
    # a redirect of a POST loses its body in some clients; an envelope says what is wrong
    app.router.redirect_slashes = False
    return HotRoutes(app, routes)


class HotRoutes:
    """Takes requests for generations to their endpoints without Starlette's layers in between.

    Those turn exceptions into responses, which these endpoints do themselves, and cost a tenth of
    a request. Routes stay declared once: this reads them, and leaves all else to Starlette.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._posts = {
            route.path: route.endpoint
            for route in routes
            if isinstance(route, Route)
            and isinstance(route.endpoint, GenerationEndpoint)
            and not route.param_convertors
            and "POST" in (route.methods or ())
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["root_path"]:
            endpoint = self._posts.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await self._app(scope, receive, send)
