"""The gateway as an ASGI app: every route, and what happens where there is none."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from typing import Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.api import health, openapi
from services.gateway.api.cors import Origins
from services.gateway.api.cross_site import WebSocketAdmission
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.generation_endpoint import Endpoints, GenerationEndpoint
from services.gateway.api.services import GatewayServices
from services.gateway.conformance.routes import routes as conformance
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from services.gateway.dialects.anthropic_messages.routes import routes as anthropic_messages
from services.gateway.dialects.models.routes import routes as models
from services.gateway.dialects.ollama.routes import OllamaChat
from services.gateway.dialects.ollama.routes import routes as ollama
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from services.gateway.dialects.openai_chat.routes import routes as openai_chat
from services.gateway.dialects.openai_completions.routes import routes as openai_completions
from services.gateway.dialects.openai_embeddings.routes import routes as openai_embeddings
from services.gateway.dialects.openai_responses.routes import routes as openai_responses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.telemetry.metrics import GatewayMetrics

_SLASHES: Final = re.compile("/{2,}")


def build_app(
    services: GatewayServices,
    readiness: health.Readiness,
    error_responses: ErrorResponses,
    responses: ResponsesStore,
    *,
    operating: Sequence[BaseRoute],
) -> ASGIApp:
    """The app with every route, operators' too. Generations skip Starlette's layers."""
    mount = Endpoints(services)
    routes: list[BaseRoute] = [
        *openai_chat(mount),
        *anthropic_messages(mount),
        *openai_responses(
            mount,
            responses,
            socket_idle_seconds=services.settings.socket_idle_seconds,
            faults=services.faults,
            budget=services.bodies,
            most_items=services.settings.max_body_items,
        ),
        *openai_completions(mount),
        *openai_embeddings(mount),
        *models(mount),
        *ollama(mount),
        *conformance(mount),
        *health.routes(readiness),
        *operating,
    ]
    routes.append(openapi.route_of(routes))
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: error_responses.on_http_exception,
            Exception: error_responses.on_crash,
        },
    )
    # a redirect of a POST loses its body in some clients; an envelope says what is wrong
    app.router.redirect_slashes = False
    admission = WebSocketAdmission(app, services.cross_site, services.auth, error_responses)
    return HotRoutes(app, routes, admission)


def error_wording(metrics: GatewayMetrics, pages: Origins) -> ErrorResponses:
    """Words what reaches no endpoint as the API does that the client is likely to speak.

    Args:
        metrics: counts the errors.
        pages: the origins whose pages may read the answers.
    """
    return ErrorResponses(
        default=OpenAIChat(),
        metrics=metrics,
        pages=pages,
        by_prefix={
            "/v1/messages": AnthropicMessages(),
            "/messages": AnthropicMessages(),
            "/api/": OllamaChat(),
            "anthropic-version": AnthropicMessages(),
        },
    )


class HotRoutes:
    """Takes requests for generations to their endpoints without Starlette's layers in between.

    Those turn exceptions into responses, which these endpoints do themselves, and cost a tenth of
    a request. Routes stay declared once: this reads them, and leaves all else to Starlette.
    """

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], admission: WebSocketAdmission
    ) -> None:
        self._app = app
        self._admission = admission
        self._exact = frozenset(
            route.path
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
        )
        self._posts = {
            route.path: route.endpoint
            for route in routes
            if isinstance(route, Route)
            and isinstance(route.endpoint, GenerationEndpoint)
            and not route.param_convertors
            and "POST" in (route.methods or ())
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection."""
        kind = scope["type"]
        if kind == "http" and scope["method"] == "POST" and not scope["root_path"]:
            endpoint = self._posts.get(scope["path"])
            if endpoint is not None:
                return endpoint(scope, receive, send)
        if kind == "lifespan":
            return self._app(scope, receive, send)
        path = scope["path"] if scope["path"] in self._exact else _tidied(scope["path"])
        if path != scope["path"]:
            return self({**scope, "path": path, "raw_path": quote(path).encode()}, receive, send)
        if kind == "websocket":
            return self._admission(scope, receive, send)
        return self._app(scope, receive, send)


def _tidied(path: str) -> str:
    """A path without the doubled and trailing slashes that joined base URLs leave in it."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"
