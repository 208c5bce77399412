"""Messages, their count, and models, by Anthropic's document: the API and its beta."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.anthropic_body import envelope
from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.anthropic import check_error
from tests.contract.openapi.api import Tally
from tests.contract.openapi.document import Document
from tests.contract.openapi.messages_api import CheckedMessages
from tests.contract.openapi.test_chat import PERSON
from tests.unit.gateway.dialects.answers import HEAD
from tests.unit.gateway.dialects.conversations import PIXEL

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
TIME: dict[str, Any] = {"name": "time", "input_schema": {"type": "object"}}
BOTH = "@both weather time"
THINK = "@think Let me see."
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
}
FORMAT = {"type": "json_schema", "schema": PERSON}
CACHED = {"type": "ephemeral", "ttl": "1h"}
# Each with the reason for which it stops.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "end_turn"),
    "system": ({"system": "Be brief."}, "end_turn"),
    "a stop sequence": ({"model": "words", "stop_sequences": [" fleet"]}, "stop_sequence"),
    "too few tokens": ({"model": "words", "max_tokens": 2}, "max_tokens"),
    "cut": ({"content": "@cut"}, "max_tokens"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "no tokens for a call": ({"max_tokens": 0, "content": BOTH, "tools": [WEATHER, TIME]}, "max_tokens"),
    "tools, auto": ({"content": '@call weather {"city": "Rome"}', "tools": [WEATHER], "tool_choice": {"type": "auto"}}, "tool_use"),
    "tools, any": ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, "tool_use"),
    "tools, one": ({"tools": [WEATHER, TIME], "tool_choice": {"type": "tool", "name": "time"}}, "tool_use"),
    "tools, none": ({"tools": [WEATHER], "tool_choice": {"type": "none"}}, "end_turn"),
    "parallel calls": ({"content": BOTH, "tools": [WEATHER, TIME]}, "tool_use"),
    "one call at a time": ({"content": "@call time {}", "tools": [TIME], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "tool_use"),
    "thinking, enabled": ({"content": THINK, "thinking": {"type": "enabled", "budget_tokens": 1024}}, "end_turn"),
    "thinking, adaptive": ({"content": THINK, "thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "end_turn"),
    "thinking, omitted": ({"content": THINK, "thinking": {"type": "adaptive", "display": "omitted"}}, "end_turn"),
    "thinking, disabled": ({"thinking": {"type": "disabled"}}, "end_turn"),
    "a shape": ({"output_config": {"format": FORMAT}}, "end_turn"),
    "a picture": ({"content": [PICTURE, {"type": "text", "text": "What is it?"}]}, "end_turn"),
    "cache control": ({"model": "words", "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}], "cache_control": CACHED}, "end_turn"),
    "all that changes nothing": ({"metadata": {"user_id": "u"}, "service_tier": "auto", "temperature": 0.5, "top_p": 0.9, "top_k": 40, "inference_geo": "eu"}, "end_turn"),
}  # fmt: skip


def asked(case: dict[str, Any]) -> dict[str, Any]:
    """The request of a case."""
    more = {key: value for key, value in case.items() if key != "content"}
    messages = [{"role": "user", "content": case.get("content", "Say hello.")}]
    return {"model": MODEL, "max_tokens": 64, "messages": messages} | more


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_messages(messages_api: CheckedMessages, case: tuple[dict[str, Any], str]) -> None:
    fields, reason = case

    whole = messages_api.post("/v1/messages", asked(fields))
    events = messages_api.stream(asked(fields))

    (last,) = [one for one in events if one["type"] == "message_delta"]
    assert (whole["stop_reason"], last["delta"]["stop_reason"]) == (reason, reason)
    assert whole["stop_sequence"] == last["delta"]["stop_sequence"]
    begun = [one["content_block"]["type"] for one in events if "content_block" in one]
    assert begun == [one["type"] for one in whole["content"]]
    assert whole["usage"]["output_tokens"] == last["usage"]["output_tokens"]
    assert bool(begun) == (asked(fields)["max_tokens"] > 0)


def test_a_cached_prompt_is_told(messages_api: CheckedMessages) -> None:
    body = asked({"model": "words", "content": "a prompt of its own " * 8, "max_tokens": 1})
    messages_api.post("/v1/messages", body | {"max_tokens": 0})

    (first, *_) = messages_api.stream(body)

    usage = first["message"]["usage"]
    assert usage["cache_read_input_tokens"] > usage["input_tokens"]


def test_a_tool_loop(messages_api: CheckedMessages) -> None:
    """What was answered is sent back as it is, thoughts and their signatures included."""
    fields = {"content": BOTH, "tools": [WEATHER, TIME], "thinking": {"type": "adaptive"}}
    body = asked(fields)
    first = messages_api.post("/v1/messages", body)
    results = [
        {"type": "tool_result", "tool_use_id": one["id"], "content": "sunny", "is_error": False}
        for one in first["content"]
        if one["type"] == "tool_use"
    ]
    assert len(results) == 2
    turns = [
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": results},
    ]

    second = messages_api.post("/v1/messages", body | {"messages": body["messages"] + turns})

    assert "sunny" in second["content"][0]["text"]


def test_edits_of_the_context_are_told_not_to_be_applied(messages_api: CheckedMessages) -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    body = asked({"context_management": edits})
    counted = {key: value for key, value in body.items() if key != "max_tokens"}

    whole = messages_api.post("/v1/messages", body)
    *_, last, _ = messages_api.stream(body)
    count = messages_api.post("/v1/messages/count_tokens", counted)

    told: Any = {"applied_edits": []} if messages_api.is_beta else None
    assert whole.get("context_management") == last.get("context_management") == told
    original = {"original_input_tokens": count["input_tokens"]} if messages_api.is_beta else None
    assert count.get("context_management") == original


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_tokens_are_counted(
    messages_api: CheckedMessages, case: tuple[dict[str, Any], str]
) -> None:
    """The same body, without what steers the answer, which counts take or refuse by name."""
    fields, _ = case

    assert messages_api.post("/v1/messages/count_tokens", asked(fields))["input_tokens"] > 0


def test_models(messages_api: CheckedMessages) -> None:
    models = messages_api.get("/v1/models?limit=1000")["data"]
    names = [one["id"] for one in models]
    able = {one["id"]: one["capabilities"] for one in models}

    assert able[MODEL]["thinking"]["supported"]
    assert not able[MODEL]["image_input"]["supported"]
    assert {"words", "vectors", MODEL} <= set(names)
    assert [messages_api.get(f"/v1/models/{name}")["id"] for name in names] == names


def test_pages_of_models(messages_api: CheckedMessages) -> None:
    first = messages_api.get("/v1/models?limit=1")
    second = messages_api.get(f"/v1/models?limit=1&after_id={first['last_id']}")
    back = messages_api.get(f"/v1/models?before_id={second['first_id']}")

    assert (first["has_more"], back["has_more"]) == (True, False)
    assert back["data"] == first["data"]
    assert not messages_api.get(f"/v1/models?before_id={first['first_id']}")["data"]


BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown model": ({"model": "nobody"}, 404, "not_found_error"),
    "no messages": ({"messages": []}, 400, "invalid_request_error"),
    "no role": ({"messages": [{"content": "x"}]}, 400, "invalid_request_error"),
    "wrong type": ({"temperature": "warm"}, 400, "invalid_request_error"),
    "a sampler of nobody's": ({"min_p": 0.5}, 400, "invalid_request_error"),
    "no such tool": ({"tools": [TIME], "tool_choice": {"type": "tool", "name": "x"}}, 400, "invalid_request_error"),
    "a tool of the server's": ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, 400, "invalid_request_error"),
    "a picture elsewhere": ({"content": [{"type": "image", "source": {"type": "url", "url": "https://x.invalid/a.png"}}]}, 400, "invalid_request_error"),
    "a document": ({"content": [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}]}, 400, "invalid_request_error"),
    "no vectors": ({"model": "vectors"}, 400, "invalid_request_error"),
    "a broken engine": ({"content": "@break"}, 500, "api_error"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_errors(messages_api: CheckedMessages, case: tuple[dict[str, Any], int, str]) -> None:
    fields, status, kind = case

    told = messages_api.post("/v1/messages", asked(fields), status=status)

    assert told["error"]["type"] == kind


@pytest.mark.parametrize("reason", Reason)
def test_every_failure_has_an_envelope(
    anthropic_document: Document, anthropic_tally: Tally, reason: Reason
) -> None:
    body: Any = json.loads(envelope(FleetError(reason, "It failed."), HEAD))

    check_error(anthropic_document, anthropic_tally, "POST", "/v1/messages", body)

    wanted = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
              404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
              500: "api_error", 503: "overloaded_error", 504: "timeout_error"}  # fmt: skip
    status = reason.row.http
    assert body["error"]["type"] == wanted.get(status, body["error"]["type"])


def test_an_error_in_mid_stream(messages_api: CheckedMessages) -> None:
    events = messages_api.stream(asked({"content": "@break"}))

    assert [one["type"] for one in events].count("error") == 1
    assert events[-1]["error"]["type"] == "api_error"


def test_what_is_no_request(messages_api: CheckedMessages) -> None:
    messages_api.send("/v1/messages", b"{", status=400)
    messages_api.send("/v1/messages", b"[]", status=400)
    messages_api.get("/v1/messages", status=405)
    messages_api.get("/v1/models/nobody", status=404)
    messages_api.get("/v1/models?limit=0", status=400)
