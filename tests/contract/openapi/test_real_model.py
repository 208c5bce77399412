"""What SmolLM2 says through a whole fleet is valid by OpenAI's document too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.openapi.api import CheckedApi
from tests.contract.openapi.test_chat import PERSON, WEATHER
from tests.contract.openapi.test_responses import ended

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(300)]

MODEL = "smollm2-135m"
HELLO: Any = [{"role": "user", "content": "Say hello."}]
FORMAT = {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"messages": HELLO, "max_tokens": 24}),
    "choices with logprobs": (
        "/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 8,
            "n": 2,
            "logprobs": True,
            "top_logprobs": 5,
            "seed": 1,
        },
    ),
    "a required call": (
        "/chat/completions",
        {"messages": HELLO, "tools": [WEATHER], "tool_choice": "required"},
    ),
    "a shape": (
        "/chat/completions",
        {
            "messages": HELLO,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            },
        },
    ),
    "a completion": (
        "/completions",
        {"prompt": "Once upon a time", "max_tokens": 8, "logprobs": 2, "echo": True},
    ),
    "a response": ("/responses", {"input": "Say hello.", "max_output_tokens": 24}),
    "a response's call": (
        "/responses",
        {
            "input": "Say hello.",
            "tools": [{"type": "function", **WEATHER["function"]}],
            "tool_choice": "required",
        },
    ),
    "a response's shape": ("/responses", {"input": "Who?", "text": {"format": FORMAT}}),
    "a response's logprobs": (
        "/responses",
        {
            "input": "Say hello.",
            "max_output_tokens": 8,
            "top_logprobs": 5,
            "include": ["message.output_text.logprobs"],
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_real_model(real_api: CheckedApi, case: tuple[str, dict[str, Any]]) -> None:
    path, body = case

    whole = real_api.post(path, {"model": MODEL, **body})
    events = real_api.stream(path, {"model": MODEL, **body})

    assert whole["model"] == MODEL
    assert len(events) > 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_too_long_a_prompt(real_api: CheckedApi, path: str, *, stream: bool) -> None:
    """A megabyte takes longer to count than a stream is silent; it is refused before the head."""
    long = "word " * 200_000
    prompts: dict[str, Any] = {
        "/chat/completions": {"messages": [{"role": "user", "content": long}]},
        "/completions": {"prompt": long},
        "/responses": {"input": long},
    }
    body = {"model": MODEL, "stream": stream, **prompts[path]}

    told = real_api.post(path, body, status=400)

    assert told["error"]["code"] == "context_length_exceeded"


def test_too_long_a_prompt_in_the_background(real_api: CheckedApi) -> None:
    body = {"model": MODEL, "input": "word " * 40_000, "background": True}
    begun = real_api.post("/responses", body)

    found = ended(real_api, begun["id"])

    assert (found["status"], found["error"]["code"]) == ("failed", "context_length_exceeded")
