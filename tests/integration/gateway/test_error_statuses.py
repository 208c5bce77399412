"""Every error of the table has its own status, whatever the shape of the request that meets it."""

from __future__ import annotations

from typing import Any

import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.routing.place import Placer
from tests.doubles.scripted_neuron import Script
from tests.integration.gateway.fleet import Fleet

_MESSAGES = [{"role": "user", "content": "Hi"}]
_PROMPTS = ["one", "two"]
JSON = {"content-type": "application/json"}

# Path, and what stands in the body beside the model.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": _MESSAGES}),
    "chat, n": ("/v1/chat/completions", {"messages": _MESSAGES, "n": 2}),
    "completion": ("/v1/completions", {"prompt": "one"}),
    "completion, n": ("/v1/completions", {"prompt": "one", "n": 2}),
    "completion, prompts": ("/v1/completions", {"prompt": _PROMPTS}),
    "completion, tokens": ("/v1/completions", {"prompt": [[1], [2]], "n": 2}),
    "messages": ("/v1/messages", {"messages": _MESSAGES, "max_tokens": 4}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "ollama chat": ("/api/chat", {"messages": _MESSAGES}),
    "ollama generate": ("/api/generate", {"prompt": "Hi"}),
}
LOOKUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "count": ("/v1/messages/count_tokens", {"messages": _MESSAGES}),
    "input tokens": ("/v1/responses/input_tokens", {"input": "Hi"}),
    "compact": ("/v1/responses/compact", {"input": "Hi"}),
    "embeddings": ("/v1/embeddings", {"input": _PROMPTS}),
    "ollama embed": ("/api/embed", {"input": _PROMPTS}),
    "ollama embeddings": ("/api/embeddings", {"prompt": "Hi"}),
}
CASES = [
    *(
        (path, body | {"stream": stream})
        for path, body in SHAPES.values()
        for stream in (False, True)
    ),
    *LOOKUPS.values(),
]
IDS = [f"{shape}, {how}" for shape in SHAPES for how in ("whole", "streamed")] + [*LOOKUPS]


@pytest.mark.parametrize(("path", "body"), CASES, ids=IDS)
async def test_every_error_of_the_table_has_its_own_status_in_every_shape(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    told: dict[Reason, int] = {}
    for reason in Reason:

        def refuse(*_: object, why: Reason = reason) -> None:
            raise FleetError(why, "It cannot be.")

        monkeypatch.setattr(Placer, "loaded", refuse)
        told[reason] = (await fleet.client.post(path, json={"model": "tiny", **body})).status_code

    assert told == {reason: reason.row.http for reason in Reason}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_what_the_neuron_refuses_of_one_choice_is_the_answer_for_all(
    fleet: Fleet, path: str, stream: bool
) -> None:
    error = FleetError(Reason.BAD_CONSTRAINT, "No such token.", field="logit_bias")
    await fleet.add_neuron("n1", Script(), Script(refuse=error))
    prompt = {"messages": _MESSAGES} if "chat" in path else {"prompt": "Hi"}

    answer = await fleet.client.post(
        path, json={"model": "tiny", "n": 2, "stream": stream, **prompt}
    )

    if answer.status_code == 200:  # the other choice came first, and cannot be taken back
        assert stream
        assert "No such token." in answer.text
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "logit_bias"


async def test_a_bug_in_one_of_several_choices_is_logged_and_told_as_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Placer, "loaded", stumble)

    answer = await fleet.chat(n=2)

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"


def nested(depth: int) -> str:
    """A user's turn in which documents hold documents."""
    block = '[{"type":"document","source":{"type":"content","content":'
    return '[{"role":"user","content":' + block * depth + '"t"' + "}}]" * depth + "}]"


@pytest.mark.parametrize("depth", [100, 240, 270, 300, 330, 5000])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_blocks_that_nest_deeply_are_served_or_refused(
    fleet: Fleet, path: str, depth: int
) -> None:
    await fleet.add_neuron()

    body = f'{{"model":"tiny","max_tokens":4,"messages":{nested(depth)}}}'
    answer = await fleet.client.post(path, content=body, headers=JSON)

    assert answer.status_code in {200, 400}, answer.text
    assert depth > 100 or answer.status_code == 200
    assert depth < 5000 or answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", '{"messages":' + "[" * 5000 + "]" * 5000 + "}"),
        ("/api/chat", '{"messages":[],"options":{"a":' + "[" * 5000 + "]" * 5000 + "}}"),
        (
            "/api/chat",
            '{"messages":[{"role":"user"}],"options":{"num_predict":1000000000000000000}}',
        ),
        ("/v1/responses", '{"input":"x","tools":[{"type":["function"]}]}'),
    ],
    ids=["deep", "deep in what is free", "num_predict", "type of a tool"],
)
async def test_what_a_client_gets_wrong_is_no_error_of_ours(
    fleet: Fleet, path: str, body: str
) -> None:
    answer = await fleet.client.post(path, content='{"model":"tiny",' + body[1:], headers=JSON)

    assert answer.status_code == 400, answer.text


_SCHEMA = {"type": "object"}
_JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("shape", "more", "param"),
    [
        ("chat", {"response_format": _JSON_SCHEMA}, "response_format.json_schema.schema"),
        ("chat", {"guided_json": _SCHEMA}, "guided_json"),
        ("chat", {"structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ("chat", {"tools": [_TOOL], "tool_choice": "required"}, "tools"),
        ("completion", {"response_format": _JSON_SCHEMA}, "response_format.json_schema.schema"),
        (
            "responses",
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": _SCHEMA}}},
            "text.format.schema",
        ),
    ],
)
async def test_a_bad_constraint_is_told_by_the_clients_own_field(
    fleet: Fleet, shape: str, more: dict[str, Any], param: str, stream: bool
) -> None:
    error = FleetError(Reason.BAD_CONSTRAINT, "The schema is too large.", field="constraint")
    await fleet.add_neuron("n1", Script([], refuse=error))
    path, body = SHAPES[shape]

    answer = await fleet.client.post(path, json={"model": "tiny", "stream": stream} | body | more)

    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
