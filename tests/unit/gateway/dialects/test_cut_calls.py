"""A call that the end of the answer cuts: nobody takes it for one that is to be made."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.dialect import DecodedRequest, Dialect
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Event, collect, stream

Made = tuple[Dialect, DecodedRequest]

LIMIT = generation.FINISH_REASON_MAX_TOKENS
STOP = generation.FINISH_REASON_STOP_STRING
CUT = '{"command": "rm -rf /srv/a'
WHOLE = '{"city": "Oslo"}'


def piece(index: int, arguments: str, name: str = "", *, incomplete: bool = False) -> Event:
    return Event(
        tool_call=generation.ToolCallDelta(
            index=index,
            call_id=f"call_{index}" if name else "",
            name=name,
            arguments_json=arguments,
            incomplete=incomplete,
        )
    )


# One whole call, and one that was cut.
EVENTS = [
    piece(0, WHOLE, "get_weather"),
    piece(1, CUT[:9], "run"),
    piece(1, CUT[9:]),
    piece(1, "", incomplete=True),
]


def body(made: Made, reason: generation.FinishReason.ValueType) -> dict[str, Any]:
    dialect, decoded = made
    found: dict[str, Any] = json.loads(
        dialect.body(decoded, HEAD, [collect(Answer((), reason), EVENTS)])
    )
    return found


def streamed(made: Made, reason: generation.FinishReason.ValueType) -> bytes:
    return stream(*made, Answer((), reason), EVENTS)


@pytest.mark.parametrize(("reason", "told"), [(LIMIT, "length"), (STOP, "stop")])
def test_a_chat_ends_with_the_arguments_open(
    reason: generation.FinishReason.ValueType, told: str
) -> None:
    (choice,) = body(decoding.chat(), reason)["choices"]

    assert choice["finish_reason"] == told
    functions = [call["function"] for call in choice["message"]["tool_calls"]]
    assert [one["arguments"] for one in functions] == [WHOLE, CUT]


@pytest.mark.parametrize(("reason", "told"), [(LIMIT, "length"), (STOP, "stop")])
def test_a_streamed_chat_ends_with_the_arguments_open(
    reason: generation.FinishReason.ValueType, told: str
) -> None:
    chunks = [data for _, data in legal.sse(streamed(decoding.chat(), reason)) if data != "[DONE]"]
    calls = [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]

    arguments = "".join(one["function"]["arguments"] for one in calls if one["index"] == 1)
    assert arguments == CUT
    assert chunks[-1]["choices"][0]["finish_reason"] == told


@pytest.mark.parametrize(("reason", "told"), [(LIMIT, "max_tokens"), (STOP, "stop_sequence")])
def test_a_whole_message_tells_it_as_text(
    reason: generation.FinishReason.ValueType, told: str
) -> None:
    said = body(decoding.messages(), reason)

    assert [block["type"] for block in said["content"]] == ["tool_use", "text"]
    assert said["content"][1]["text"] == f"run({CUT}"
    assert said["stop_reason"] == told


@pytest.mark.parametrize(("reason", "told"), [(LIMIT, "max_tokens"), (STOP, "stop_sequence")])
def test_a_streamed_message_ends_with_the_input_open(
    reason: generation.FinishReason.ValueType, told: str
) -> None:
    events = [data for _, data in legal.sse(streamed(decoding.messages(), reason))]

    deltas = [one["delta"] for one in events if one["type"] == "content_block_delta"]
    assert "".join(one["partial_json"] for one in deltas) == WHOLE + CUT
    (end,) = (one["delta"] for one in events if one["type"] == "message_delta")
    assert end["stop_reason"] == told


@pytest.mark.parametrize("reason", [LIMIT, STOP])
def test_an_item_of_a_response_is_incomplete(
    store: ResponsesStore, reason: generation.FinishReason.ValueType
) -> None:
    made = decoding.responses(store)

    whole = body(made, reason)["output"]
    last = legal.sse(streamed(made, reason))[-1][1]["response"]

    assert [one["status"] for one in whole] == ["completed", "incomplete"]
    assert [one["arguments"] for one in whole] == [WHOLE, CUT]
    assert last["output"] == whole
    assert last["status"] == ("incomplete" if reason == LIMIT else "completed")


@pytest.mark.parametrize("reason", [LIMIT, STOP])
def test_ollama_tells_it_as_text(reason: generation.FinishReason.ValueType) -> None:
    whole = body(decoding.ollama(), reason)
    said = legal.lines(streamed(decoding.ollama(), reason))

    assert whole["message"]["content"] == said.text == f"run({CUT}"
    assert [one["function"]["name"] for one in whole["message"]["tool_calls"]] == ["get_weather"]
    assert [name for _, name, _ in said.calls] == ["get_weather"]
    assert whole["done_reason"] == ("length" if reason == LIMIT else "stop")


ODD_ARGUMENTS = {
    "half a surrogate pair": (
        r'{"text": "a\\ud83d \ud83d\ude00 \ud83d \n"}',
        {"text": "a\\ud83d \U0001f600 \ufffd \n"},
    ),
    "beyond a double": (
        '{"text": "x", "most": 1e400, "least": -1e400}',
        {"text": "x", "most": sys.float_info.max, "least": -sys.float_info.max},
    ),
    "no JSON": ('{"text": NaN}', {"arguments": '{"text": NaN}'}),
    "too deep": ("[" * 5000, {"arguments": "[" * 5000}),
}


@pytest.mark.parametrize(("arguments", "meant"), ODD_ARGUMENTS.values(), ids=ODD_ARGUMENTS.keys())
def test_odd_arguments_leave_a_call_its_shape(arguments: str, meant: dict[str, Any]) -> None:
    events = [piece(0, arguments, "say")]
    answer = Answer((), generation.FINISH_REASON_TOOL_CALLS)

    def told(made: Made) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(made[0].body(made[1], HEAD, [collect(answer, events)]))
        return found

    assert told(decoding.messages())["content"][0]["input"] == meant
    (call,) = told(decoding.ollama())["message"]["tool_calls"]
    assert call["function"]["arguments"] == meant
    assert legal.lines(stream(*decoding.ollama(), answer, events)).calls[0][2] == meant


# The other way round: a call that could not be read, and a whole one behind it.
TURNED = [
    piece(0, CUT, "run"),
    piece(0, "", incomplete=True),
    piece(1, WHOLE, "get_weather"),
]


def test_ollama_makes_no_call_of_an_earlier_one_that_is_cut() -> None:
    dialect, decoded = decoding.ollama()
    answer = Answer((), generation.FINISH_REASON_TOOL_CALLS)

    message = json.loads(dialect.body(decoded, HEAD, [collect(answer, TURNED)]))["message"]

    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]
    assert "rm -rf /srv/a" in message["content"]


def test_a_streamed_ollama_makes_no_call_of_it() -> None:
    made = decoding.ollama()
    told = stream(*made, Answer((), generation.FINISH_REASON_TOOL_CALLS), TURNED).decode()

    called = [
        call["function"]["name"]
        for line in told.splitlines()
        for call in json.loads(line)["message"].get("tool_calls", ())
    ]
    assert called == ["get_weather"]


def test_responses_say_which_item_was_cut() -> None:
    made = decoding.responses(ResponsesStore(None))
    told = stream(*made, Answer((), generation.FINISH_REASON_TOOL_CALLS), TURNED)

    done = [data["item"] for name, data in legal.sse(told) if name == "response.output_item.done"]
    assert [item["status"] for item in done] == ["incomplete", "completed"]
