"""`/openapi.json`: every endpoint of the gateway, and what it reads and answers (OpenAPI 3.1).

How the fields work the APIs' own documents say, and docs/dialects.md what is different here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services import __version__
from services.backplane.errors import FleetError, Reason
from services.gateway.api.endpoint import Endpoint
from services.gateway.api.generation_endpoint import GenerationEndpoint
from services.gateway.api.operators.endpoint import OperatorEndpoint
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import BodyTable, Envelope, Head
from services.gateway.dialects.schemas import Schemas, like

_PATH: Final = "/openapi.json"
_JSON: Final = "application/json"
_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_WITH_BODY: Final = frozenset({"POST", "PUT"})
# Errors with and without what only some have, and heads of clients that are told them differently.
_ERRORS: Final = (
    FleetError(Reason.BAD_REQUEST, "…", field="model"),
    FleetError(Reason.INTERNAL, "…"),
)
_HEADS: Final = tuple(
    Head(request_id="…", headers=headers, query={}, created_unix_seconds=0)
    for headers in ({}, {"anthropic-version": "…"})
)


def route_of(routes: Sequence[BaseRoute]) -> Route:
    """The endpoint that describes these routes and itself."""

    async def described(_: Request) -> Response:
        return Response(document, media_type=_JSON)

    own = Route(_PATH, described, methods=["GET"])
    document = msgspec.json.encode(_document([*routes, own]))
    return own


def _document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    described = [route for route in routes if isinstance(route, Route)]
    schemas = Schemas(_shapes(described))
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operations = paths.setdefault(route.path_format, {})
            operations[method.lower()] = _operation(route, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cortex gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _shapes(routes: Iterable[Route]) -> Iterator[type[Any]]:
    """All structs that endpoints read or answer."""
    for route in routes:
        reads, answers = _bodies(route)
        for one in (reads, answers):
            if isinstance(one, type):
                yield one
            elif one is not None and not isinstance(one, Descriptor):
                yield one.shape


def _bodies(
    route: Route,
) -> tuple[BodyTable | type[Any] | Descriptor | None, type[Any] | Descriptor | None]:
    """What an endpoint reads and answers; None where it does not tell."""
    endpoint = route.endpoint
    if isinstance(endpoint, Endpoint):
        return endpoint.envelope.reads, endpoint.envelope.answers
    return endpoint.bodies if isinstance(endpoint, OperatorEndpoint) else (None, None)


def _operation(route: Route, method: str, schemas: Schemas) -> dict[str, Any]:
    reads, answers = _bodies(route)
    operation: dict[str, Any] = {
        "summary": _name_of(route),
        "parameters": list(_parameters(route)),
        "responses": {
            "2XX": {"description": "It went well.", **_content(route, answers, schemas)},
            "default": {"description": "It did not.", **_of_json(_error(route))},
        },
    }
    if method in _WITH_BODY and reads is not None:
        operation["requestBody"] = _of_json(_schema(reads, schemas))
    return operation


def _content(
    route: Route, answers: type[Any] | Descriptor | None, schemas: Schemas
) -> dict[str, Any]:
    endpoint = route.endpoint
    if answers is None and not isinstance(endpoint, Endpoint | OperatorEndpoint):
        return {}
    told = _of_json(_schema(answers, schemas))
    if isinstance(endpoint, GenerationEndpoint):
        told["content"].setdefault(endpoint.streamed_type, {"schema": {"type": "string"}})
    return told


def _of_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {_JSON: {"schema": schema}}}


def _schema(told: BodyTable | type[Any] | Descriptor | None, schemas: Schemas) -> dict[str, Any]:
    if told is None:
        return _OBJECT
    if isinstance(told, Descriptor):
        return schemas.of_message(told)
    return schemas.of_struct(told) if isinstance(told, type) else schemas.of_body(told)


def _error(route: Route) -> dict[str, Any]:
    endpoint = route.endpoint
    if not isinstance(endpoint, Endpoint):
        return like([msgspec.json.decode(openai_body.envelope(error)) for error in _ERRORS])
    envelope: Envelope = endpoint.envelope
    return like(
        [msgspec.json.decode(envelope.error(error, head)) for error in _ERRORS for head in _HEADS]
    )


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.param_convertors:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _name_of(route: Route) -> str:
    endpoint = route.endpoint
    if isinstance(endpoint, Endpoint):
        return endpoint.name
    return route.path.strip("/").partition("/")[0] or "root"
