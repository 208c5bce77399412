"""Streamed chat completions."""

from __future__ import annotations

import json

import pytest

from cortex.v1 import generation_pb2 as generation
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.openai_chat.bodies import TOOL


def test_n_choices_share_one_stream() -> None:
    dialect, decoded = decoding.chat(n=2, stream_options={"include_usage": True})
    projector = dialect.projector(decoded, HEAD)
    finished = generation.GenerationFinished(
        reason=generation.FINISH_REASON_END_OF_TURN,
        usage=generation.Usage(prompt_tokens=10, completion_tokens=3),
    )

    told = projector.open() + projector.text(1, "b", 1) + projector.text(0, "a", 1)
    first = projector.finish(1, finished)
    last = projector.finish(0, finished)

    assert told.count(b'"role":"assistant"') == 2
    assert b"[DONE]" not in first
    assert b'"usage":{' not in first
    assert last.endswith(b"data: [DONE]\n\n")
    assert b'"prompt_tokens":10,"completion_tokens":6,"total_tokens":16' in last


@pytest.mark.parametrize(
    ("options", "is_told"),
    [({}, False), ({"include_usage": False}, False), ({"include_usage": True}, True)],
)
def test_usage_is_told_only_where_it_is_asked_for(
    options: dict[str, bool], *, is_told: bool
) -> None:
    dialect, decoded = decoding.chat(stream_options=options or None)
    projector = dialect.projector(decoded, HEAD)

    told = projector.open() + projector.text(0, "a", 1)
    told += projector.finish(0, generation.GenerationFinished())

    assert (b'"usage"' in told) is is_told
    assert told.endswith(b"data: [DONE]\n\n")


def test_logprobs_are_told_with_their_bytes() -> None:
    dialect, decoded = decoding.chat(logprobs=True, top_logprobs=1)
    token = generation.TokenLogprob(
        token_id=1,
        text=b"\xe2\x82",
        logprob=-0.5,
        alternatives=[generation.TokenLogprob(token_id=2, text=b"x", logprob=-1)],
    )
    event = generation.GenerateResponse(
        text=generation.TextDelta(text="a", token_ids=[1], logprobs=[token])
    )

    told = dialect.projector(decoded, HEAD).event(0, event)

    (content,) = json.loads(told.removeprefix(b"data: "))["choices"][0]["logprobs"]["content"]
    assert [226, 130] == content["bytes"]
    assert -0.5 == content["logprob"]
    assert "x" == content["top_logprobs"][0]["token"]


def test_a_repair_is_visible() -> None:
    dialect, decoded = decoding.chat()
    delta = generation.ToolCallDelta(
        index=0, call_id="c", name="f", arguments_json="{}", repair="one } too many"
    )

    told = dialect.projector(decoded, HEAD).event(0, generation.GenerateResponse(tool_call=delta))

    assert b": repaired: one } too many\n" in told


def test_the_old_form_of_a_call_is_answered_in_the_old_form() -> None:
    answer = Answer((Segment("tool_call", '{"a": 1}', "f"),), generation.FINISH_REASON_TOOL_CALLS)
    dialect, decoded = decoding.chat(functions=[TOOL["function"]])

    body = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))
    events = legal.sse(stream(dialect, decoded, answer, events_of(answer, [4] * 9)))

    choice = body["choices"][0]
    assert {"name": "f", "arguments": '{"a": 1}'} == choice["message"]["function_call"]
    assert "function_call" == choice["finish_reason"]
    deltas = [chunk["choices"][0]["delta"] for _, chunk in events[:-1]]
    told = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert '{"a": 1}' == "".join(piece["arguments"] for piece in told)
    assert "f" == told[0]["name"]
    assert "function_call" == events[-2][1]["choices"][0]["finish_reason"]
