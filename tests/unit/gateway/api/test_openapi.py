"""What `/openapi.json` says of the routes that it is made of."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from services.gateway.api import openapi


async def served(_: Request) -> Response:
    return Response()


async def described(*routes):
    own = openapi.route_of(routes)
    answer = await own.endpoint(Request({"type": "http", "method": "GET", "headers": []}))
    assert "application/json" == answer.media_type
    return json.loads(answer.body)


async def test_every_route_is_there_with_its_methods_and_parameters():
    found = await described(
        Route("/v1/models/{model:path}", served, methods=["GET"]),
        Route("/admin/keys", served, methods=["GET"]),
        Route("/admin/keys", served, methods=["POST"]),
        WebSocketRoute("/v1/responses", served),
    )

    assert {"/v1/models/{model}", "/admin/keys", "/openapi.json"} == set(found["paths"])
    assert {"get", "post"} == set(found["paths"]["/admin/keys"])
    one = found["paths"]["/v1/models/{model}"]["get"]
    assert "requestBody" not in one
    assert [("model", "path")] == [(each["name"], each["in"]) for each in one["parameters"]]


async def test_it_names_its_version_of_openapi():
    assert (await described())["openapi"].startswith("3.1")
