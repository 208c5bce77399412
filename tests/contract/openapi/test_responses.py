"""Responses, streamed and stored, by OpenAI's document."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.api import CheckedApi
from tests.contract.openapi.test_chat import PERSON

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TIME: dict[str, Any] = {"type": "function", "name": "time", "parameters": {"type": "object"}}
PATCH: dict[str, Any] = {"type": "custom", "name": "patch", "description": "Applies a patch."}
SPACE: dict[str, Any] = {
    "type": "namespace",
    "name": "home",
    "description": "At home.",
    "tools": [{"type": "function", "name": "lamp", "parameters": {"type": "object"}}],
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"input": "Say hello."},
    "instructions": {"input": "Say hello.", "instructions": "Be brief."},
    "items": {
        "input": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Say hello."}]},
            {"type": "message", "role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Again."},
        ]
    },
    "reasoning": {"input": "@think Let me see.", "reasoning": {"effort": "low"}},
    "reasoning, summarised": {
        "input": "@think Let me see.",
        "reasoning": {"effort": "high", "summary": "auto"},
    },
    "reasoning, encrypted": {
        "input": "@think Let me see.",
        "include": ["reasoning.encrypted_content"],
        "store": False,
    },
    "a call": {"input": '@call weather {"city": "Rome"}', "tools": [WEATHER, TIME]},
    "a required call": {"input": "Go.", "tools": [WEATHER], "tool_choice": "required"},
    "a named call": {
        "input": "Go.",
        "tools": [WEATHER, TIME],
        "tool_choice": {"type": "function", "name": "time"},
    },
    "one of the allowed": {
        "input": "Go.",
        "tools": [WEATHER, TIME],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "time"}],
        },
    },
    "two calls": {"input": "@both weather time", "tools": [WEATHER, TIME]},
    "one call at a time": {
        "input": '@call weather {"city": "Rome"}',
        "tools": [WEATHER],
        "parallel_tool_calls": False,
        "max_tool_calls": 1,
    },
    "a custom call": {"input": '@call patch {"input": "--- a"}', "tools": [PATCH]},
    "a call in a namespace": {"input": "@call lamp {}", "tools": [SPACE]},
    "tools of others": {
        "input": "Say hello.",
        "tools": [
            {"type": "web_search"},
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "local_shell"},
            {"type": "mcp", "server_label": "l", "server_url": "https://x.invalid"},
        ],
    },
    "json_schema": {
        "input": "Who?",
        "text": {
            "format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}
        },
    },
    "json_object": {"input": "Who?", "text": {"format": {"type": "json_object"}}},
    "logprobs": {"model": "words", "input": "a", "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    "cut": {"input": "@cut"},
    "all that changes nothing": {
        "input": "Say hello.", "metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k",
        "safety_identifier": "s", "service_tier": "flex", "truncation": "auto", "temperature": 0.5,
        "top_p": 0.9, "max_output_tokens": 99, "text": {"verbosity": "low"},
        "prompt_cache_retention": "24h",
    },
}  # fmt: skip


def asked(case: dict[str, Any]) -> dict[str, Any]:
    """The request of a case."""
    return {"model": MODEL} | case


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_responses(api: CheckedApi, case: dict[str, Any]) -> None:
    whole = api.post("/responses", asked(case))
    last = api.stream("/responses", asked(case))[-1]

    assert last["type"] == "response." + whole["status"]
    kinds = [one["type"] for one in whole["output"]]
    assert kinds == [one["type"] for one in last["response"]["output"]]
    if case.get("store") is not False:
        assert api.get(f"/responses/{whole['id']}") == whole
        assert api.get(f"/responses/{last['response']['id']}") == last["response"]
        assert api.get(f"/responses/{whole['id']}/input_items")["data"]


def test_every_kind_of_input_is_listed(api: CheckedApi) -> None:
    first = api.post("/responses", asked(CASES["two calls"]))
    items: list[Any] = [
        {"role": "user", "content": "Call both."},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Now."}]},
        {"type": "message", "role": "assistant", "content": "Gladly."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Gladly."}]},
        *first["output"],
        {"type": "function_call_output", "call_id": "call_scripted0", "output": "sunny"},
        {
            "type": "function_call_output",
            "call_id": "call_scripted1",
            "output": [{"type": "input_text", "text": "noon"}],
        },
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "--- a"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "noon"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So."}]},
    ]
    whole = api.post("/responses", asked({"input": items, "tools": [WEATHER, TIME, PATCH]}))

    listed = api.get(f"/responses/{whole['id']}/input_items?limit=100&order=asc")

    assert len(listed["data"]) == len(items)
    behind = f"order=asc&after={listed['last_id']}"
    assert not api.get(f"/responses/{whole['id']}/input_items?{behind}")["data"]


def test_a_conversation_goes_on(api: CheckedApi) -> None:
    first = api.post("/responses", asked(CASES["a call"]))
    (call,) = [one for one in first["output"] if one["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}

    second = api.stream(
        "/responses",
        asked({"previous_response_id": first["id"], "input": [output], "tools": [WEATHER]}),
    )

    assert "sunny" in second[-1]["response"]["output"][-1]["content"][0]["text"]


def test_a_failed_stream(api: CheckedApi) -> None:
    last = api.stream("/responses", asked({"input": "@break"}))[-1]

    assert last["type"] == "response.failed"
    assert api.get(f"/responses/{last['response']['id']}")["status"] == "failed"


def test_a_response_is_deleted(api: CheckedApi) -> None:
    whole = api.post("/responses", asked(CASES["plain"]))

    assert api.delete(f"/responses/{whole['id']}")["deleted"] is True
    api.get(f"/responses/{whole['id']}", status=404)
    api.delete(f"/responses/{whole['id']}", status=404)


@pytest.mark.parametrize("order", ["Say hello.", "@break", "@cut"])
def test_a_response_in_the_background(api: CheckedApi, order: str) -> None:
    begun = api.post("/responses", asked({"input": order, "background": True}))
    assert begun["status"] == "queued"

    found = ended(api, begun["id"])

    wanted = {"@break": "failed", "@cut": "incomplete"}.get(order, "completed")
    assert found["status"] == wanted


def test_a_response_in_the_background_is_cancelled(api: CheckedApi) -> None:
    begun = api.post("/responses", asked({"input": "@stall", "background": True}))

    cancelled = api.post(f"/responses/{begun['id']}/cancel")

    assert cancelled["status"] == "cancelled"
    assert api.get(f"/responses/{begun['id']}")["status"] == "cancelled"
    assert api.post(f"/responses/{begun['id']}/cancel")["status"] == "cancelled"


def test_a_synchronous_response_is_not_cancelled(api: CheckedApi) -> None:
    whole = api.post("/responses", asked(CASES["plain"]))

    api.post(f"/responses/{whole['id']}/cancel", status=400)


def test_a_stored_response_is_not_streamed_again(api: CheckedApi) -> None:
    whole = api.post("/responses", asked(CASES["plain"]))

    told = api.get(f"/responses/{whole['id']}?stream=true", status=400)

    assert told["error"]["param"] == "stream"


def test_tokens_are_counted(api: CheckedApi) -> None:
    assert api.post("/responses/input_tokens", asked(CASES["items"]))["input_tokens"] > 0


def test_a_conversation_is_compacted(api: CheckedApi) -> None:
    told = api.post("/responses/compact", asked(CASES["items"]))
    again = [*told["output"], {"role": "user", "content": "Go on."}]

    whole = api.post("/responses", asked({"input": again}))

    assert api.get(f"/responses/{whole['id']}/input_items")["data"]


def ended(api: CheckedApi, response_id: str) -> Any:
    """The response once it runs no more."""
    deadline = time.monotonic() + 20
    while True:
        found = api.get(f"/responses/{response_id}")
        if found["status"] not in {"queued", "in_progress"}:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
