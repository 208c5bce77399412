"""The document's own examples: as requests, which no client may find broken here, and as answers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from services.gateway.dialects.openai_chat import fields as chat
from services.gateway.dialects.openai_completions import decode as completions
from services.gateway.dialects.openai_embeddings import decode as embeddings
from services.gateway.dialects.openai_responses import compaction
from services.gateway.dialects.openai_responses import fields as responses
from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.api import CheckedApi
from tests.contract.openapi.document import Document
from tests.contract.openapi.openai import CONTRADICTED

_STORED = "/responses/{response_id}"
SERVED = {
    ("post", "/chat/completions"), ("post", "/completions"), ("post", "/embeddings"),
    ("get", "/models"), ("get", "/models/{model}"), ("post", "/responses"),
    ("post", "/responses/compact"), ("post", "/responses/input_tokens"), ("get", _STORED),
    ("delete", _STORED), ("post", _STORED + "/cancel"), ("get", _STORED + "/input_items"),
}  # fmt: skip
# What an example asks for that nobody here can do, and the field that the refusal names.
REFUSED = {
    ("/chat/completions", "Image input"): "image_url",
    ("/responses", "Image input"): "image_url",
    ("/responses", "File input"): "input.0.content.1",
}


def examples(document: Document) -> Iterator[tuple[str, str, str, str]]:
    """Path, method, title and curl command of every example of what is served here."""
    for path, operations in document.raw["paths"].items():
        for method, operation in operations.items():
            if (method, path.partition("?")[0]) not in SERVED:
                continue
            found = operation.get("x-oaiMeta", {}).get("examples") or []
            for one in found if isinstance(found, list) else [found]:
                yield path, method, one.get("title", ""), one["request"]["curl"]


def body_of(command: str) -> dict[str, Any] | None:
    """What a curl command sends."""
    words = shlex.split(command.replace("\\\n", " "))
    for flag in ("-d", "--data", "--data-raw"):
        if flag in words:
            return json.loads(words[words.index(flag) + 1])
    return None


def test_every_example_is_served_or_refused_by_name(api: CheckedApi, document: Document) -> None:
    served: list[str] = []
    for path, _, title, command in examples(document):
        body = body_of(command)
        if body is None:
            continue
        plain = path.partition("?")[0]
        body["model"] = {"/embeddings": "vectors", "/completions": "words"}.get(plain, MODEL)
        refusal = REFUSED.get((plain, title))
        if refusal is not None:
            told = api.post(path, body, status=400)
            assert refusal in told["error"]["param"].replace("[", ".").replace("]", ""), told
        elif body.get("stream"):
            api.stream(path, body)
        else:
            api.post(path, body)
        served.append(f"{plain} {title}")
    assert len(served) >= 17, served


def test_examples_of_what_nobody_has(api: CheckedApi, document: Document) -> None:
    """Those without a body name a response or a model, which is not there."""
    for path, method, _, command in examples(document):
        if body_of(command) is None and "{" in path:
            where = re.sub(r"\{\w+\}", "resp_nobody", path)
            {"get": api.get, "delete": api.delete, "post": api.post}[method](where, status=404)


READERS = {
    "/chat/completions": chat.READER,
    "/completions": completions.READER,
    "/embeddings": embeddings.READER,
    "/responses": responses.READER,
    "/responses/compact": compaction.READER,
    "/responses/input_tokens": responses.COUNT,
}


@pytest.mark.parametrize("path", READERS)
def test_every_field_of_a_request_is_known(document: Document, path: str) -> None:
    """Read, passed over, or refused with a reason of its own: never as one that nobody knows."""
    body = document.raw["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    reader = READERS[path]
    known = reader._known | reader.rules.ignored | set(reader.rules.refused)

    named = set(_properties(document.raw["components"]["schemas"], body["schema"]))

    assert len(named) >= 5
    assert named <= known


def _properties(schemas: Any, schema: Any) -> Iterator[str]:
    if "$ref" in schema:
        yield from _properties(schemas, schemas[schema["$ref"].rpartition("/")[2]])
    yield from schema.get("properties", ())
    for union in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(union, ()):
            yield from _properties(schemas, part)


def test_contradictions_are_still_there(document: Document) -> None:
    """An entry whose schema has come round is to be deleted."""
    schemas = document.raw["components"]["schemas"]
    for one in CONTRADICTED:
        kinds = set(_kinds_at(schemas, schemas[one.component], one.path.split(".")))
        assert kinds, one
        assert one.kind not in kinds, one


def _kinds_at(schemas: Any, schema: Any, steps: list[str]) -> Iterator[str]:
    """Types of the values at a path."""
    if "$ref" in schema:
        yield from _kinds_at(schemas, schemas[schema["$ref"].rpartition("/")[2]], steps)
    for union in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(union, ()):
            yield from _kinds_at(schemas, part, steps)
    if not steps:
        if "type" in schema:
            yield schema["type"]
        return
    step, rest = steps[0], steps[1:]
    holder = schema if step == "*" else schema.get("properties", {})
    key = "items" if step == "*" else step
    if key in holder:
        yield from _kinds_at(schemas, holder[key], rest)
