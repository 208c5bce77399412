"""Every legal answer, cut in any way, is a legal stream in every dialect and says the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import DecodedRequest, Dialect
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import (
    BEATS,
    HEAD,
    SIZES,
    Answer,
    Event,
    Segment,
    answers,
    collect,
    events_of,
    started,
    stream,
)

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_CHAT_FINISH = {
    generation.FINISH_REASON_END_OF_TURN: "stop",
    generation.FINISH_REASON_STOP_STRING: "stop",
    generation.FINISH_REASON_MAX_TOKENS: "length",
    generation.FINISH_REASON_TOOL_CALLS: "tool_calls",
}
_ANTHROPIC_FINISH = {
    generation.FINISH_REASON_END_OF_TURN: "end_turn",
    generation.FINISH_REASON_STOP_STRING: "stop_sequence",
    generation.FINISH_REASON_MAX_TOKENS: "max_tokens",
    generation.FINISH_REASON_TOOL_CALLS: "tool_use",
}


@relaxed
@given(answers(), SIZES, BEATS, st.integers(0, 2), st.booleans())
def test_chat(
    answer: Answer, sizes: list[int], beats: set[int], waits: int, include_usage: bool
) -> None:
    dialect, decoded = decoding.chat(stream_options={"include_usage": include_usage})

    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats=beats, waits=waits)
    said = legal.chat(told, include_usage=include_usage)

    assert answer.joined("text") == said.text
    assert answer.joined("reasoning") == said.reasoning
    assert answer.calls() == said.calls
    assert _CHAT_FINISH[answer.reason] == said.finish
    assert not include_usage or (20, 9, 8) == (
        said.usage["prompt_tokens"],
        said.usage["completion_tokens"],
        said.usage["prompt_tokens_details"]["cached_tokens"],
    )


@relaxed
@given(answers(), SIZES, BEATS, st.integers(0, 2))
def test_messages(answer: Answer, sizes: list[int], beats: set[int], waits: int) -> None:
    dialect, decoded = decoding.messages()

    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats=beats, waits=waits)
    said = legal.messages(told)

    assert answer.parts() == said.parts
    assert answer.calls() == said.calls
    assert _ANTHROPIC_FINISH[answer.reason] == said.finish
    assert (12, 8, 9) == (
        said.usage["input_tokens"],
        said.usage["cache_read_input_tokens"],
        said.usage["output_tokens"],
    )


@relaxed
@given(answers(), SIZES, BEATS, st.integers(0, 2), st.booleans())
def test_responses(
    shared_store: ResponsesStore,
    answer: Answer,
    sizes: list[int],
    beats: set[int],
    waits: int,
    summary: bool,
) -> None:
    wish = {"reasoning": {"summary": "auto"}} if summary else {}
    dialect, decoded = decoding.responses(shared_store, **wish)

    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats=beats, waits=waits)
    said = legal.responses(told)

    assert answer.parts() == said.parts
    cut = answer.reason == generation.FINISH_REASON_MAX_TOKENS
    assert ("incomplete" if cut else "completed") == said.finish
    assert 29 == said.usage["total_tokens"]


@relaxed
@given(answers(), SIZES, BEATS)
def test_ollama(answer: Answer, sizes: list[int], beats: set[int]) -> None:
    dialect, decoded = decoding.ollama()

    said = legal.lines(stream(dialect, decoded, answer, events_of(answer, sizes), beats=beats))

    assert answer.joined("text") == said.text
    assert answer.joined("reasoning") == said.reasoning
    assert [(name, found) for _, name, found in answer.calls()] == [
        (name, found) for _, name, found in said.calls
    ]
    assert 9 == said.usage["eval_count"]


@relaxed
@given(answers(), SIZES, BEATS)
def test_completions(answer: Answer, sizes: list[int], beats: set[int]) -> None:
    dialect, decoded = decoding.completion()

    said = legal.completion(stream(dialect, decoded, answer, events_of(answer, sizes), beats=beats))

    plain = "".join(one.body for one in answer.segments if one.kind != "tool_call")
    assert plain == said.text


def _every(store: ResponsesStore) -> list[tuple[Dialect, DecodedRequest]]:
    return [
        decoding.chat(),
        decoding.completion(),
        decoding.messages(),
        decoding.responses(store),
        decoding.ollama(),
    ]


def _timeless(found: Any) -> Any:
    """Without the moments at which an answer was worded."""
    return {k: v for k, v in found.items() if k not in {"created_at", "completed_at"}}


@relaxed
@given(answers(), SIZES, SIZES)
def test_any_cutting_gives_the_same_body(
    shared_store: ResponsesStore, answer: Answer, sizes: list[int], others: list[int]
) -> None:
    for dialect, decoded in _every(shared_store):
        one = dialect.body(decoded, HEAD, [collect(answer, events_of(answer, sizes))])
        other = dialect.body(decoded, HEAD, [collect(answer, events_of(answer, others))])

        assert _timeless(json.loads(one)) == _timeless(json.loads(other)), dialect.name


@relaxed
@given(answers(), SIZES)
def test_a_streamed_response_ends_with_the_unstreamed_one(
    shared_store: ResponsesStore, answer: Answer, sizes: list[int]
) -> None:
    dialect, decoded = decoding.responses(shared_store)
    events = events_of(answer, sizes)

    last = legal.sse(stream(dialect, decoded, answer, events))[-1][1]["response"]
    whole = json.loads(dialect.body(decoded, HEAD, [collect(answer, events)]))

    assert _timeless(whole) == _timeless(last)


# What `str.splitlines` and httpx's `iter_lines` take for the end of a line.
_LINE_ENDS = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee"


def test_no_text_ends_a_line_of_a_stream(shared_store: ResponsesStore) -> None:
    arguments = json.dumps({"city": _LINE_ENDS}, ensure_ascii=False)
    spoken = (
        Segment("reasoning", _LINE_ENDS),
        Segment("text", _LINE_ENDS),
        Segment("tool_call", arguments, "get_weather"),
    )
    answer = Answer(spoken, generation.FINISH_REASON_TOOL_CALLS)
    for dialect, decoded in _every(shared_store):
        told = stream(dialect, decoded, answer, events_of(answer))
        told += dialect.projector(decoded, HEAD).fail(FleetError(Reason.INTERNAL, _LINE_ENDS))

        assert told.decode().splitlines() == told.decode().split("\n")[:-1], dialect.name
        whole = dialect.body(decoded, HEAD, [collect(answer, events_of(answer))])
        assert len(whole.decode().splitlines()) == 1, dialect.name
        assert json.dumps(_LINE_ENDS)[1:-1] in json.dumps(json.loads(whole)), dialect.name


def test_no_text_ends_a_comment() -> None:
    told = openai_body.repairs((f"left out {_LINE_ENDS}data: 1",))

    assert len(told.decode().splitlines()) == 2


@relaxed
@given(answers(), SIZES, st.integers(0, 30))
def test_a_failure_is_told_wherever_it_comes(
    shared_store: ResponsesStore, answer: Answer, sizes: list[int], reached: int
) -> None:
    events = [started(), *events_of(answer, sizes)][:reached]
    error = FleetError(Reason.WORKER_LOST, "The worker died.")

    for (dialect, decoded), check in zip(
        _every(shared_store),
        (
            lambda told: legal.chat(told, include_usage=False),
            legal.completion,
            legal.messages,
            legal.responses,
            legal.lines,
        ),
        strict=True,
    ):
        projector = dialect.projector(decoded, HEAD)
        told = [projector.open(), *(projector.event(0, event) for event in events)]
        told.append(projector.fail(error))

        said = check(b"".join(told))

        assert said.error is not None, dialect.name
        assert "The worker died." in str(said.error)


def test_tokens_without_text_are_no_event(store: ResponsesStore) -> None:
    held_back = Event(text=generation.TextDelta(token_ids=[5]))

    for dialect, decoded in _every(store):
        projector = dialect.projector(decoded, HEAD)
        projector.open()

        assert b"" == projector.event(0, held_back), dialect.name
        assert b"" == projector.text(0, "", 1), dialect.name
