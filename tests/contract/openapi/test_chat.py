"""Chat completions, legacy completions, embeddings and models, by OpenAI's document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.scripted_neuron import MODEL
from tests.contract.openapi.api import CheckedApi

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "time"}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "usage": {"stream_options": {"include_usage": True}},
    "several": {"n": 3},
    "several with usage": {"n": 2, "stream_options": {"include_usage": True}},
    "reasoning": {"content": "@think Let me see."},
    "tools, auto": {"content": '@call weather {"city": "Rome"}', "tools": [WEATHER, TIME]},
    "tools, required": {"tools": [WEATHER], "tool_choice": "required"},
    "tools, named": {
        "tools": [WEATHER, TIME],
        "tool_choice": {"type": "function", "function": {"name": "time"}},
    },
    "tools, none": {"tools": [WEATHER], "tool_choice": "none"},
    "tools, allowed": {
        "tools": [WEATHER, TIME],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [TIME]},
        },
    },
    "parallel calls": {"content": "@both weather time", "tools": [WEATHER, TIME]},
    "old functions": {
        "content": '@call weather {"city": "Rome"}',
        "functions": [WEATHER["function"]],
    },
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": PERSON, "strict": True},
        }
    },
    "cut": {"content": "@cut"},
    "all that changes nothing": {
        "metadata": {"a": "b"}, "store": True, "user": "u", "seed": 7, "service_tier": "flex",
        "prompt_cache_key": "k", "safety_identifier": "s", "verbosity": "low", "temperature": 0.5,
    },
}  # fmt: skip


def asked(case: dict[str, Any]) -> dict[str, Any]:
    """The request of a case."""
    more = {key: value for key, value in case.items() if key != "content"}
    messages = [{"role": "user", "content": case.get("content", "Say hello.")}]
    return {"model": MODEL, "messages": messages} | more


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_chat(api: CheckedApi, case: dict[str, Any]) -> None:
    whole = api.post("/chat/completions", asked(case))
    chunks = api.stream("/chat/completions", asked(case))

    ended = [c["finish_reason"] for each in chunks for c in each["choices"] if c["finish_reason"]]
    assert ended == [choice["finish_reason"] for choice in whole["choices"]]
    told = "".join(
        c["delta"].get("content") or ""
        for each in chunks
        for c in each["choices"]
        if not c["index"]
    )
    assert told == (whole["choices"][0]["message"]["content"] or "")


def test_a_tool_loop(api: CheckedApi) -> None:
    messages: list[Any] = [{"role": "user", "content": '@call weather {"city": "Rome"}'}]
    first = api.post(
        "/chat/completions", {"model": MODEL, "messages": messages, "tools": [WEATHER]}
    )
    message = first["choices"][0]["message"]
    messages += [
        message,
        {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"},
    ]

    second = api.post(
        "/chat/completions", {"model": MODEL, "messages": messages, "tools": [WEATHER]}
    )

    assert "sunny" in second["choices"][0]["message"]["content"]


@pytest.mark.parametrize("model", ["words", MODEL])
def test_logprobs(api: CheckedApi, model: str) -> None:
    asked_for = asked({"model": model, "logprobs": True, "top_logprobs": 3})

    whole = api.post("/chat/completions", asked_for)
    chunks = api.stream("/chat/completions", asked_for)

    content = whole["choices"][0]["logprobs"]["content"]
    assert bool(content) == (model == "words")
    told = [
        one
        for each in chunks
        for choice in each["choices"]
        for one in (choice["logprobs"] or {}).get("content") or ()
    ]
    assert [one["token"] for one in told] == [one["token"] for one in content]


COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "a"},
    "echo": {"prompt": "a", "echo": True},
    "several prompts": {"prompt": ["a", "b"], "n": 2},
    "token ids": {"prompt": [5, 6, 7]},
    "logprobs": {"prompt": "a", "logprobs": 2},
    "echo with logprobs": {"prompt": "ab", "logprobs": 2, "echo": True},
    "the prompt alone": {"prompt": "ab", "logprobs": 1, "echo": True, "max_tokens": 0},
    "cut": {"prompt": "a", "max_tokens": 2},
    "usage": {"prompt": "a", "stream_options": {"include_usage": True}},
}


@pytest.mark.parametrize("case", COMPLETIONS.values(), ids=COMPLETIONS.keys())
def test_completions(api: CheckedApi, case: dict[str, Any]) -> None:
    whole = api.post("/completions", {"model": "words", **case})
    chunks = api.stream("/completions", {"model": "words", **case})

    told = "".join(c["text"] for each in chunks for c in each["choices"] if not c["index"])
    assert told == whole["choices"][0]["text"]


@pytest.mark.parametrize("text", ["cat", ["cat", "the dog is a pet"], [5, 6], [[5], [6, 7]]])
@pytest.mark.parametrize("shape", [{}, {"encoding_format": "float"}, {"dimensions": 8}])
def test_embeddings(api: CheckedApi, text: Any, shape: dict[str, Any]) -> None:
    assert api.post("/embeddings", {"model": "vectors", "input": text, **shape})["data"]


def test_packed_embeddings(api: CheckedApi) -> None:
    """Their schema says nothing of base64, which the request's schema offers."""
    packed = {"model": "vectors", "input": "cat", "encoding_format": "base64"}

    told = api.post("/embeddings", packed)

    assert isinstance(told["data"][0]["embedding"], str)


def test_models(api: CheckedApi) -> None:
    names = [one["id"] for one in api.get("/models")["data"]]

    assert {"words", "vectors", MODEL} <= set(names)
    assert [api.get(f"/models/{name}")["id"] for name in names] == names


BROKEN: dict[str, tuple[str, dict[str, Any], int]] = {
    "unknown model": ("/chat/completions", {"model": "nobody"}, 404),
    "no messages": ("/chat/completions", {"messages": None}, 400),
    "wrong type": ("/chat/completions", {"temperature": "warm"}, 400),
    "unknown field": ("/chat/completions", {"temprature": 1}, 400),
    "unsupported": ("/chat/completions", {"modalities": ["audio"], "audio": {}}, 400),
    "no such tool": ("/chat/completions", {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "x"}}}, 400),
    "a broken engine": ("/chat/completions", {"content": "@break"}, 500),
    "no prompt": ("/completions", {"model": "words"}, 400),
    "no input": ("/embeddings", {"model": "vectors", "input": ""}, 400),
    "no vectors": ("/embeddings", {"model": "words", "input": "x"}, 400),
    "unknown to responses": ("/responses", {"model": "nobody", "input": "x"}, 404),
    "nothing before it": ("/responses", {"model": MODEL, "input": "x", "previous_response_id": "resp_0"}, 404),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_errors(api: CheckedApi, case: tuple[str, dict[str, Any], int]) -> None:
    path, body, status = case

    told = api.post(path, asked(body) if path.startswith("/chat") else body, status=status)

    assert told["error"]["message"]


def test_an_error_in_mid_stream(api: CheckedApi) -> None:
    chunks = api.stream("/chat/completions", asked({"content": "@break"}))

    assert chunks[-1]["error"]["code"] == "engine_failed"
    assert json.dumps(chunks).count('"error"') == 1


@pytest.mark.parametrize("path", ["/models/nobody", "/nothing", "/responses/resp_0"])
def test_what_is_not_there(api: CheckedApi, path: str) -> None:
    assert api.get(path, status=404)["error"]["message"]
