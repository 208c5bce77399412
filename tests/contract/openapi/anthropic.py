"""What of Anthropic's document is read otherwise than it says, and what it does not say."""

from __future__ import annotations

from typing import Any, Final

from tests.contract.openapi.api import Tally, hold
from tests.contract.openapi.document import Document, Publisher
from tests.contract.openapi.extensions import without

_STREAM: Final = "MessageStreamEvent"
# Of models since; the document is of May 2026, and the SDKs of November have them.
_MODEL_SINCE: Final = (
    "lifecycle",
    "deprecated_at",
    "retires_at",
    "line",
    "capabilities.server_tools",
    "capabilities.thinking.types.between_tools",
    "capabilities.thinking.types.disabled",
)
# Of the API's page on errors, for HTTP status 413; the document lists all the others.
_TOO_LARGE: Final = "request_too_large"
# Of the API's page on streaming; the document has no schema for it.
_PING: Final = {"type": "ping"}


def template(path: str) -> str:
    """The document's own name of a path: beta requests have theirs."""
    plain, _, query = path.partition("?")
    steps = plain.removeprefix("/v1").split("/")
    if steps[1] == "models" and len(steps) > 2:
        steps[2:] = ["{model_id}"]
    beta = "?beta=true" if "beta=true" in query.split("&") else ""
    return "/v1" + "/".join(steps) + beta


ANTHROPIC: Final = Publisher(
    name="Anthropic",
    variable="CORTEX_ANTHROPIC_OPENAPI",
    template=template,
    unions=(_STREAM, f"Beta{_STREAM}"),
)


def check_body(document: Document, tally: Tally, method: str, path: str, body: Any) -> None:
    """Holds what answers a request against the document.

    Raises:
        AssertionError: with every complaint, and the body.
    """
    where = template(path)
    if where.startswith("/v1/models"):
        known = [without(one, _MODEL_SINCE) for one in body.get("data", [body])]
        told = body | {"data": known} if "data" in body else known[0]
    else:
        told = body
    hold(document, document.answer_schema(method, path, streamed=False), told, where)
    tally.note(f"{method} {where}", "bodies")


def check_error(document: Document, tally: Tally, method: str, path: str, body: Any) -> None:
    """Holds the envelope of a refusal, or a stream's error, against the document."""
    where = template(path)
    component = ("Beta" if where.endswith("?beta=true") else "") + "ErrorResponse"
    told = body
    if body["error"]["type"] == _TOO_LARGE:
        told = body | {"error": body["error"] | {"type": "invalid_request_error"}}
    hold(document, document.component(component), told, "error")
    tally.note(f"{method} {where}", "errors")


def check_event(document: Document, tally: Tally, path: str, event: Any) -> None:
    """Holds one event of a streamed message against the document."""
    where = template(path)
    if event["type"] == "error":
        check_error(document, tally, "POST", path, event)
        return
    if event["type"] == "ping":
        assert event == _PING
        return
    union = ("Beta" if where.endswith("?beta=true") else "") + _STREAM
    hold(document, document.event_schema(union, event["type"]), event, f"{where} {event['type']}")
    tally.note(f"POST {where}", "events")
