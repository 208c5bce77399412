"""`/openapi.json` of a real gateway: it is OpenAPI, says what is read and answered, and is true."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.integration.gateway.fleet import Fleet, chat_body

# These read nothing of a body.
UNREAD = {"/admin/reload", "/v1/responses/{response_id}/cancel"}
UNREAD |= {f"/api/{verb}" for verb in ("create", "copy", "push")}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def document(fleet: Fleet) -> dict[str, Any]:
    answer = await fleet.client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def complaints(document: dict[str, Any], schema: dict[str, Any], value: object) -> list[str]:
    whole = {**schema, "components": document["components"]}
    found = jsonschema.Draft202012Validator(whole).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]


async def test_it_is_openapi_3_1(document):
    validator = pytest.importorskip("openapi_spec_validator", reason="of no package of ours")

    validator.validate(document)


async def test_every_schema_is_one_and_every_reference_leads_somewhere(document):
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = {part.partition('"')[0] for part in str(document).replace("'", '"').split("schemas/")}

    assert {name for name in names if not name.startswith("{")} <= set(
        document["components"]["schemas"]
    )


async def test_every_body_that_is_read_has_its_fields(document):
    told = {
        path: resolved(document, operation["requestBody"]["content"]["application/json"]["schema"])
        for path, _, operation in operations(document)
        if "requestBody" in operation
    }

    unread = {
        path
        for path, method, operation in operations(document)
        if method in {"post", "put"} and "requestBody" not in operation
    }
    assert unread == UNREAD
    assert {path for path, schema in told.items() if not schema["properties"]} == {"/ui/reload"}


async def test_every_error_has_its_form(document):
    for path, method, operation in operations(document):
        schema = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert "error" in schema["properties"], (path, method)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v1/chat/completions", chat_body()),
        ("post", "/v1/completions", {"prompt": "hi"}),
        ("post", "/v1/messages", {"messages": HI, "max_tokens": 9}),
        ("post", "/v1/messages/count_tokens", {"messages": HI}),
        ("post", "/v1/responses", {"input": "hi"}),
        ("post", "/v1/responses/input_tokens", {"input": "hi"}),
        ("post", "/v1/responses/compact", {"input": "hi"}),
        ("post", "/api/chat", {"messages": HI, "stream": False}),
        ("post", "/api/generate", {"prompt": "hi", "stream": False}),
        ("post", "/api/show", {}),
        ("post", "/api/pull", {"stream": False}),
        ("get", "/v1/models", None),
        ("get", "/v1/models/{model}", None),
        ("get", "/api/tags", None),
        ("get", "/api/ps", None),
        ("get", "/api/version", None),
    ],
)
async def test_what_is_asked_and_answered_is_as_it_says(fleet, document, method, path, body):
    await fleet.add_neuron()
    operation = document["paths"][path][method]
    answers = operation["responses"]
    body = None if body is None else {"model": "tiny", **body}
    if body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert not complaints(document, schema, body)

    answer = await fleet.client.request(method, path.replace("{model}", "tiny"), json=body)
    wrong = await fleet.client.request(method, path.replace("{model}", "none"), json={"model": 5})

    assert answer.status_code == 200, answer.text
    schema = answers["2XX"]["content"]["application/json"]["schema"]
    assert not complaints(document, schema, answer.json())
    if wrong.status_code >= 400:
        schema = answers["default"]["content"]["application/json"]["schema"]
        assert not complaints(document, schema, wrong.json())
