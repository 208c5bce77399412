"""What SmolLM2 says through a whole fleet is valid by Anthropic's document too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.openapi.messages_api import CheckedMessages
from tests.contract.openapi.test_messages import FORMAT, TIME, WEATHER, asked

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(300)]

MODEL = "smollm2-135m"
CASES: dict[str, dict[str, Any]] = {
    "plain": {"max_tokens": 24},
    "no tokens": {"max_tokens": 0},
    "a stop sequence": {"stop_sequences": ["e", "a", "o"]},
    "a required call": {"tools": [WEATHER, TIME], "tool_choice": {"type": "any"}},
    "one tool's call": {"tools": [WEATHER, TIME], "tool_choice": {"type": "tool", "name": "time"}},
    "a shape": {"output_config": {"format": FORMAT}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 8}, "max_tokens": 24},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_real_model(real_messages_api: CheckedMessages, case: dict[str, Any]) -> None:
    body = asked({"model": MODEL, "max_tokens": 128, "temperature": 0, **case})

    whole = real_messages_api.post("/v1/messages", body)
    events = real_messages_api.stream(body)

    (last,) = [one for one in events if one["type"] == "message_delta"]
    assert whole["stop_reason"] == last["delta"]["stop_reason"]
    assert real_messages_api.post("/v1/messages/count_tokens", body)["input_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt(real_messages_api: CheckedMessages, *, stream: bool) -> None:
    body = asked({"model": MODEL, "content": "word " * 200_000, "stream": stream})

    told = real_messages_api.post("/v1/messages", body, status=400)

    assert told["error"]["message"].startswith("prompt is too long: ")


def test_models(real_messages_api: CheckedMessages) -> None:
    models = real_messages_api.get("/v1/models")["data"]

    assert MODEL in {one["id"] for one in models}
