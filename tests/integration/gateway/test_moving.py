"""Answers that go on elsewhere, in every dialect: the client cannot tell them from others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from tests.doubles.scripted_neuron import Script, reasoning, text, tool_call
from tests.integration.gateway.fleet import Fleet

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
SAID = frozenset(
    {
        "content",
        "text",
        "thinking",
        "partial_json",
        "arguments",
        "response",
        "reasoning_content",
        "delta",
    }
)
REQUESTS = {
    "/v1/chat/completions": {**CHAT, "tools": [TOOL], "stream_options": {"include_usage": True}},
    "/v1/completions": {"model": "tiny", "prompt": "Hi"},
    "/v1/messages": {
        **CHAT,
        "max_tokens": 99,
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
    },
    "/v1/responses": {
        "model": "tiny",
        "input": "Hi",
        "tools": [{"type": "function", "name": "add", "parameters": {"type": "object"}}],
    },
    "/api/chat": {**CHAT, "tools": [TOOL]},
    "/api/generate": {"model": "tiny", "prompt": "Hi"},
}
EVENTS = [
    reasoning("Let me"),
    reasoning(" see."),
    text("Two"),
    text(" and two:"),
    tool_call(0, '{"a"', call_id="call_1", name="add"),
    tool_call(0, ": 2}"),
]
# what differs from one answer to the next
OWN = frozenset(
    {"id", "item_id", "response_id", "created", "created_at", "completed_at", "signature",
     "encrypted_content", "obfuscation", "sequence_number"}
)  # fmt: skip


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every plain value below one, with its key."""
    if key in OWN or key.endswith("_duration"):
        return
    inner: Iterable[tuple[str, Any]] = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = ((key, each) for each in value)
    if not isinstance(value, dict | list):
        yield key, value
    for name, each in inner:
        yield from leaves(name, each)


def meaning(body: str) -> dict[str, Any]:
    """What a client makes of an answer, wherever its pieces were cut.

    Texts are joined by their key; of other values each counts once.
    """
    made: dict[str, Any] = {}
    for line in body.splitlines():
        data = line.removeprefix("data: ")
        for key, value in leaves("", json.loads(data)) if data.startswith("{") else ():
            if isinstance(value, str) and key in SAID:
                made[key] = made.get(key, "") + value
            elif value not in made.setdefault(f"{key} values", []):
                made[f"{key} values"].append(value)
    return made


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", REQUESTS)
async def test_an_answer_that_moved_is_as_any_other(fleet: Fleet, path: str, stream: bool) -> None:
    plain = EVENTS if "completions" not in path or "chat" in path else EVENTS[2:4]
    if path == "/api/generate":
        plain = EVENTS[:4]
    body = {**REQUESTS[path], "stream": stream}
    await fleet.add_neuron("a", Script(plain))
    undisturbed = (await fleet.client.post(path, json=body)).text
    await fleet.add_neuron("b", Script(plain))

    gone = FleetError(Reason.SHUTTING_DOWN, "Bye.")
    for behind in range(1, len(plain) + 1):
        turns = [Script(plain, fail_after=behind, fail=gone), Script(plain)]
        for neuron in fleet.neurons:  # whichever is asked first breaks off
            neuron.scripts = turns
            neuron.requests.clear()
        response = await fleet.client.post(path, json=body)

        assert response.status_code == 200
        assert meaning(response.text) == meaning(undisturbed), behind
        resumed = [len(r.resume_from.ids) for neuron in fleet.neurons for r in neuron.requests]
        assert sorted(resumed) == [0, behind]
        for neuron in fleet.neurons:  # what failed is not asked again before it has reported
            await fleet.announce(neuron)
