"""The gateway as an ASGI app: every route, and what happens where there is none."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from services.gateway import ops
from services.gateway.dialects.anthropic_messages.routes import routes as anthropic_messages
from services.gateway.dialects.models.routes import routes as models
from services.gateway.dialects.ollama.routes import routes as ollama
from services.gateway.dialects.openai_chat.routes import routes as openai_chat
from services.gateway.dialects.openai_completions.routes import routes as openai_completions
from services.gateway.dialects.openai_embeddings.routes import routes as openai_embeddings
from services.gateway.dialects.openai_responses.routes import routes as openai_responses
from services.gateway.endpoint import Core
from services.gateway.problems import Problems
from services.gateway.responses_store import ResponsesStore


def build_app(
    core: Core, readiness: ops.Readiness, problems: Problems, responses: ResponsesStore
) -> Starlette:
    """Routes first, hot ones before others; no middleware: endpoints write their own headers."""
    routes: list[Route] = [
        *openai_chat(core),
        *anthropic_messages(core),
        *openai_responses(core, responses),
        *openai_completions(core),
        *openai_embeddings(core),
        *models(core),
        *ollama(core),
        *ops.routes(readiness),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: problems.on_http_exception,
            Exception: problems.on_crash,
        },
    )
    # a redirect of a POST loses its body in some clients; an envelope says what is wrong
    app.router.redirect_slashes = False
    return app
