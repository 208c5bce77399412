"""A client that holds every answer against Anthropic's document before it hands it on."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

from tests.contract.openapi.anthropic import check_body, check_error, check_event
from tests.contract.openapi.api import Tally, events_in
from tests.contract.openapi.document import Document
from tests.unit.gateway.dialects import legal


class CheckedMessages:
    """Asks the gateway as Anthropic's SDK does.

    Attributes:
        is_beta: the SDK's beta API is asked.
    """

    def __init__(self, url: str, document: Document, tally: Tally, *, is_beta: bool) -> None:
        self.is_beta = is_beta
        self._tally = tally
        self._document = document
        headers = {"anthropic-version": "2023-06-01"}
        if is_beta:
            headers["anthropic-beta"] = "context-management-2025-06-27"
        self._http = httpx.Client(base_url=url, timeout=120, trust_env=False, headers=headers)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, status: int = 200) -> Any:
        return self._checked(self._http.get(self._of(path)), "GET", path, status)

    def post(self, path: str, body: Any, *, status: int = 200) -> Any:
        return self._checked(self._http.post(self._of(path), json=body), "POST", path, status)

    def send(self, path: str, content: bytes, *, status: int) -> Any:
        """Posts what need not be JSON."""
        return self._checked(self._http.post(self._of(path), content=content), "POST", path, status)

    def stream(self, body: dict[str, Any]) -> list[Any]:
        """All events of a message, each held against its schema, in the order that is legal."""
        path = self._of("/v1/messages")
        response = self._http.post(path, json=body | {"stream": True})
        assert response.status_code == HTTPStatus.OK, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [payload for _, payload in events_in(response.text)]
        for payload in events:
            check_event(self._document, self._tally, path, payload)
        legal.messages(response.content)
        return events

    def _of(self, path: str) -> str:
        if not self.is_beta:
            return path
        return f"{path}{'&' if '?' in path else '?'}beta=true"

    def _checked(self, response: httpx.Response, method: str, path: str, status: int) -> Any:
        assert response.status_code == status, response.text
        body = response.json()
        check = check_body if status == HTTPStatus.OK else check_error
        check(self._document, self._tally, method, self._of(path), body)
        if status != HTTPStatus.OK:
            assert body["request_id"] == response.headers["request-id"]
        return body
