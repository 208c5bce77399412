"""A client that holds every answer against OpenAI's document before it hands it on."""

from __future__ import annotations

import collections
import dataclasses
import json
from http import HTTPStatus
from typing import Any

import httpx

from tests.contract.openapi.document import Document
from tests.contract.openapi.extensions import EXTENSIONS, without
from tests.contract.openapi.openai import EVENTS, SOCKET_ERROR, template

_ERROR = "ErrorResponse"


@dataclasses.dataclass
class Tally:
    """How much was held against the document, by endpoint."""

    counts: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter
    )

    def note(self, endpoint: str, kind: str) -> None:
        self.counts[endpoint, kind] += 1

    def lines(self) -> list[str]:
        """One line for each endpoint."""
        endpoints: dict[str, list[str]] = {}
        for (endpoint, kind), count in sorted(self.counts.items()):
            endpoints.setdefault(endpoint, []).append(f"{count} {kind}")
        return [f"{endpoint}: {', '.join(told)}" for endpoint, told in endpoints.items()]


def checked(
    document: Document, tally: Tally, path: str, instance: Any, *, streamed: bool = False
) -> None:
    """Holds what answers a POST to a path against the document.

    Raises:
        AssertionError: with every complaint, and the body.
    """
    where = template(path)
    if not streamed:
        schema, kind = document.answer_schema("POST", path, streamed=False), "bodies"
    elif "error" in instance and "type" not in instance:
        schema, kind, where = document.component(_ERROR), "events", "error"
    elif instance.get("type") == "error":
        # An older document does not know that errors are told otherwise on a WebSocket.
        schema, kind, where = document.component(SOCKET_ERROR), "events", "error"
    elif where == "/responses":
        schema, kind, where = document.event_schema(EVENTS, instance["type"]), "events", "event"
    else:
        schema, kind = document.answer_schema("POST", path, streamed=True), "events"
    hold(document, schema, _without_extensions(instance, where), where)
    tally.note(f"POST {template(path)}", kind)


def hold(document: Document, schema: Any, instance: Any, where: str) -> None:
    """Holds a body or an event against a schema of the document.

    Raises:
        AssertionError: with every complaint, and the body.
    """
    complaints = document.complaints(schema, instance)
    assert not complaints, f"{where}: {complaints}\n{json.dumps(instance)[:2000]}"


class CheckedApi:
    """Asks the gateway.

    Attributes:
        tally: what was held against the document so far.
    """

    def __init__(self, url: str, document: Document, tally: Tally) -> None:
        self.tally = tally
        self._document = document
        self._http = httpx.Client(base_url=f"{url}/v1", timeout=120, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, status: int = 200) -> Any:
        return self._checked(self._http.get(path), "GET", path, status)

    def delete(self, path: str, *, status: int = 200) -> Any:
        return self._checked(self._http.delete(path), "DELETE", path, status)

    def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        return self._checked(self._http.post(path, json=body), "POST", path, status)

    def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """All events of an answer, each held against its schema."""
        response = self._http.post(path, json=body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_in(response.text)
        for _, payload in events:
            checked(self._document, self.tally, path, payload, streamed=True)
        if template(path) == "/responses":
            _check_order(events)
        return [payload for _, payload in events]

    def _checked(self, response: httpx.Response, method: str, path: str, status: int) -> Any:
        assert response.status_code == status, response.text
        body = response.json()
        endpoint = f"{method} {template(path)}"
        if status != HTTPStatus.OK:
            self._hold(self._document.component(_ERROR), body, "error")
            self.tally.note(endpoint, "errors")
            return body
        schema = self._document.answer_schema(method, path, streamed=False)
        if schema is not None:
            self._hold(schema, body, template(path))
            self.tally.note(endpoint, "bodies")
        return body

    def _hold(self, schema: Any, body: Any, where: str) -> None:
        hold(self._document, schema, _without_extensions(body, where), where)


def _without_extensions(instance: Any, where: str) -> Any:
    if where == "event":
        instance = without(instance, EXTENSIONS["event"])
        if "response" in instance:
            return instance | {"response": without(instance["response"], EXTENSIONS["/responses"])}
        return instance
    if instance.get("object") == "response":
        return without(instance, EXTENSIONS["/responses"])
    if where == "/models":
        data = [without(each, EXTENSIONS["/models"]) for each in instance["data"]]
        return instance | {"data": data}
    if where == "/models/{model}":
        return without(instance, EXTENSIONS["/models"])
    return without(instance, EXTENSIONS.get(where, ()))


def events_in(text: str) -> list[tuple[str, Any]]:
    """Name and payload of every event; `[DONE]` is the last where there is one."""
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert ("[DONE]" != fields["data"]) or block == text.rstrip("\n").split("\n\n")[-1]
        if fields["data"] != "[DONE]":
            found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


def _check_order(events: list[tuple[str, Any]]) -> None:
    """What the document says in words: numbers from 0, and the whole made of its items."""
    assert [payload["sequence_number"] for _, payload in events] == list(range(len(events)))
    assert all(name == payload["type"] for name, payload in events)
    kinds = [payload["type"] for _, payload in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in {"response.completed", "response.incomplete", "response.failed"}
    done = [p["item"] for _, p in events if p["type"] == "response.output_item.done"]
    assert done == events[-1][1]["response"]["output"]
    open_items: dict[str, int] = {}
    for _, payload in events:
        if payload["type"] == "response.output_item.added":
            open_items[payload["item"]["id"]] = payload["output_index"]
        elif "item_id" in payload:
            assert payload["output_index"] == open_items[payload["item_id"]]
