"""Chunks of many servers as canonical events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.transports.upstream.decode import AnswerDecoder
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.sse import BrokenStreamError


def decoder() -> AnswerDecoder:
    return AnswerDecoder(Words("far", "sk-secret"), prompt_tokens=11)


def data(finish: str | None = None, *, choice: dict[str, Any] | None = None, **delta: Any) -> bytes:
    whole = {"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}
    return json.dumps({"choices": [whole]}).encode()


def run(*chunks: bytes) -> tuple[list[Any], generation.GenerationFinished]:
    one = decoder()
    events = [event for chunk in chunks for event in one.events(chunk)]
    finished = one.finished()
    return [*events, *one.last_events()], finished


def kinds(events: list[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def calls(events: list[Any]) -> dict[int, tuple[str, str, str, bool]]:
    found: dict[int, tuple[str, str, str, bool]] = {}
    for event in events:
        if event.HasField("tool_call"):
            one = event.tool_call
            call_id, name, arguments, cut = found.get(one.index, ("", "", "", False))
            found[one.index] = (
                call_id or one.call_id,
                name or one.name,
                arguments + one.arguments_json,
                cut or one.incomplete,
            )
    return found


def piece(
    index: int | None, arguments: str, *, name: str = "", call_id: str = ""
) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    found: dict[str, Any] = {"function": function}
    if index is not None:
        found["index"] = index
    if name:
        function["name"] = name
        found["id"] = call_id or None
    return found


def test_text_reasoning_and_usage():
    counts = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    events, finished = run(
        data(role="assistant", content=""),
        data(reasoning_content="Hm"),
        data(reasoning="."),
        data(content="Yes"),
        data("length"),
        json.dumps({"choices": [], "usage": counts}).encode(),
        b"[DONE]",
    )

    assert ["started", "reasoning", "reasoning", "text"] == kinds(events)
    assert (11, "Yes") == (events[0].started.prompt_tokens, events[-1].text.text)
    assert generation.FINISH_REASON_MAX_TOKENS == finished.reason
    usage = finished.usage
    assert (9, 5, 4, 1) == (
        usage.prompt_tokens,
        usage.cached_prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
    )


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", generation.FINISH_REASON_END_OF_TURN),
        ("length", generation.FINISH_REASON_MAX_TOKENS),
        ("tool_calls", generation.FINISH_REASON_TOOL_CALLS),
        ("function_call", generation.FINISH_REASON_TOOL_CALLS),
        ("something_new", generation.FINISH_REASON_END_OF_TURN),
        ("max_tokens", generation.FINISH_REASON_MAX_TOKENS),
    ],
)
def test_reasons_to_finish(finish: str, reason: int):
    assert reason == run(data(content="a"), data(finish))[1].reason


def test_the_stop_string_is_told_where_the_server_tells_it():
    _, finished = run(data("stop", choice={"stop_reason": "END"}, content="a"))
    _, by_token = run(data("stop", choice={"stop_reason": 7}, content="a"))

    assert (generation.FINISH_REASON_STOP_STRING, "END") == (finished.reason, finished.stop_string)
    assert generation.FINISH_REASON_END_OF_TURN == by_token.reason


def test_a_chunk_with_only_a_role_begins_nothing():
    one = decoder()

    assert [] == list(one.events(data(role="assistant", content="")))
    assert [] == list(one.events(data(role="assistant", content=None)))
    assert [] == list(one.events(b'{"choices": null, "usage": null}'))


def test_tool_calls_in_pieces():
    events, finished = run(
        data(tool_calls=[piece(0, "", name="f", call_id="c1")]),
        data(tool_calls=[piece(0, '{"a"')]),
        data(tool_calls=[piece(0, ":1}")]),
        data(tool_calls=[piece(1, "{}", name="g", call_id="c2")]),
        data("tool_calls"),
    )

    assert {0: ("c1", "f", '{"a":1}', False), 1: ("c2", "g", "{}", False)} == calls(events)
    assert generation.FINISH_REASON_TOOL_CALLS == finished.reason


def test_whole_calls_without_indices_and_ids():
    events, _ = run(
        data(tool_calls=[piece(None, "{}", name="f"), piece(None, '{"a":1}', name="f")]),
        data("tool_calls"),
    )

    first, second = calls(events).values()
    assert (("f", "{}"), ("f", '{"a":1}')) == (first[1:3], second[1:3])
    assert first[0]
    assert second[0]
    assert first[0] != second[0]


@pytest.mark.parametrize("finish", ["stop", "tool_call"])
def test_an_answer_with_calls_ends_with_them_whatever_the_server_says(finish: str):
    _, finished = run(data(finish, tool_calls=[piece(0, "{}", name="f")]))

    assert generation.FINISH_REASON_TOOL_CALLS == finished.reason


@pytest.mark.parametrize("goes_on", ["", "null", None])
def test_an_answer_that_goes_on_is_not_over_whatever_the_server_says(goes_on: str | None):
    with pytest.raises(BrokenStreamError, match="broke off"):
        run(data(goes_on, content="a"), data(goes_on, content="b"))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 2), (None, None), (None, 1), (0, None)])
def test_calls_are_told_apart_however_they_are_numbered(first: int | None, second: int | None):
    events, _ = run(
        data(tool_calls=[piece(first, "", name="f", call_id="a")]),
        data(tool_calls=[piece(first, '{"x"', name="f", call_id="a")]),
        data(tool_calls=[piece(first, ":1}")]),
        data(tool_calls=[piece(second, "{", name="f", call_id="b")]),
        data(tool_calls=[piece(second, "}")]),
        data("tool_calls"),
    )

    assert {0: ("a", "f", '{"x":1}', False), 1: ("b", "f", "{}", False)} == calls(events)


def test_a_call_whose_name_comes_behind_its_id():
    early = {"index": 0, "id": "a", "function": {"name": None, "arguments": ""}}
    later = {"index": 0, "function": {"name": "f", "arguments": {"x": 1}}}

    events, _ = run(data(tool_calls=[early]), data(tool_calls=[later]), data("tool_calls"))

    assert {0: ("a", "f", '{"x":1}', False)} == calls(events)


def test_contents_in_parts_are_thoughts_and_text():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}

    events, _ = run(
        data(content=[thought]),
        data(content=[{"type": "text", "text": "Yes"}]),
        data("stop", content="!"),
    )

    assert ["started", "reasoning", "text", "text"] == kinds(events)
    assert ["Hm", "Yes", "!"] == [events[1].reasoning.text, *(e.text.text for e in events[2:])]


def test_the_one_choice_is_read_whatever_its_number():
    events, _ = run(data(choice={"index": 3}, content="a"), data("stop", choice={"index": 4}))

    assert "a" == events[1].text.text


def test_calls_without_arguments_get_empty_ones():
    events, _ = run(
        data(tool_calls=[piece(0, "", name="f")]),
        data(tool_calls=[piece(1, "", name="g")]),
        data("tool_calls"),
    )

    assert ["{}", "{}"] == [one[2] for one in calls(events).values()]


def test_a_call_that_was_cut_is_marked():
    events, _ = run(data(tool_calls=[piece(0, '{"a":', name="f")]), data("length"))

    assert calls(events)[0][3]


def test_arguments_that_are_nested_too_deep_are_marked_as_cut():
    events, _ = run(data("stop", tool_calls=[piece(0, "[" * 100_000, name="f")]))

    assert calls(events)[0][3]


@pytest.mark.parametrize(
    "chunks",
    [
        (data(tool_calls=[piece(0, "{}")]),),
        (data(tool_calls=[piece(None, "{}")]),),
        (data(tool_calls=[piece(-1, "{}", name="f")]),),
        (
            data(tool_calls=[piece(0, "{", name="f"), piece(1, "{}", name="g")]),
            data(tool_calls=[piece(0, "}")]),
        ),
        (b"{",),
        (b"[]",),
        (b'{"choices": [5]}',),
        (b'{"choices": [{"delta": {"content": 5}}]}',),
        (b'\xff"',),
        (b'{"error": ' + b"[" * 100_000,),
        (b'{"extra": ' + b'{"a":' * 100_000,),
    ],
)
def test_what_is_no_chunk_breaks_the_stream(chunks: tuple[bytes, ...]):
    with pytest.raises(BrokenStreamError):
        run(*chunks)


def test_an_answer_without_its_end_is_broken():
    with pytest.raises(BrokenStreamError, match="broke off"):
        run(data(content="a"), b"[DONE]")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "Oops sk-secret."}, Reason.UPSTREAM_FAILED),
        ("Oops", Reason.UPSTREAM_FAILED),
        ({"code": "context_length_exceeded", "message": "x"}, Reason.CONTEXT_TOO_LONG),
        ({"code": 401, "message": "Bad sk-secr**"}, Reason.UPSTREAM_FAILED),
        ({"code": "invalid_api_key", "message": "Bad sk-secr**"}, Reason.UPSTREAM_FAILED),
        ({"code": 429, "message": "x"}, Reason.QUEUE_FULL),
        ({"type": "rate_limit_error", "message": "x"}, Reason.QUEUE_FULL),
    ],
)
def test_errors_within_a_stream(error: Any, reason: Reason):
    with pytest.raises(FleetError, match="'far'") as told:
        run(json.dumps({"error": error}).encode())

    assert reason is told.value.reason
    assert "sk-secr" not in str(told.value)


def test_an_answer_that_finishes_by_an_error_is_one():
    with pytest.raises(FleetError, match="ended the answer with an error"):
        run(data("error", content="a"))


def test_log_probabilities_of_chats_and_completions():
    rival = {"token": "No", "logprob": -2.0, "bytes": [78, 111]}
    chat = {
        "content": [{"token": "?", "logprob": -0.5, "bytes": [240, 159], "top_logprobs": [rival]}]
    }
    columns = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {"c": -3.0}],
    }

    (_, rich), _ = run(data("stop", choice={"logprobs": chat}, content="?"))
    body = {"choices": [{"index": 0, "text": "ab", "logprobs": columns, "finish_reason": "stop"}]}
    (_, plain), _ = run(json.dumps(body).encode())

    (one,) = rich.text.logprobs
    assert (b"\xf0\x9f", -0.5, b"No") == (one.text, one.logprob, one.alternatives[0].text)
    assert 1 == len(rich.text.token_ids)
    assert [(b"a", 0.0), (b"b", -1.0)] == [(o.text, o.logprob) for o in plain.text.logprobs]
    assert b"c" == plain.text.logprobs[1].alternatives[0].text


def test_counts_that_cannot_be_are_bounded():
    counts = {"prompt_tokens": -5, "completion_tokens": 2**70}

    _, finished = run(data("stop", content="a"), json.dumps({"usage": counts}).encode())

    assert (0, 16 << 20) == (finished.usage.prompt_tokens, finished.usage.completion_tokens)


def test_an_answer_that_was_counted_before_it_came_is_counted_again():
    counts = {"prompt_tokens": 5, "completion_tokens": 0}
    first = json.dumps({"choices": [], "usage": counts}).encode()

    _, finished = run(first, data(content="a"), data("stop", content="b"))
    _, empty = run(data("stop"), first)

    assert (5, 2) == (finished.usage.prompt_tokens, finished.usage.completion_tokens)
    assert 0 == empty.usage.completion_tokens


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.sampled_from([0, 1, None, "0"]),
                    "delta": st.dictionaries(
                        st.sampled_from(["content", "reasoning", "tool_calls", "refusal"]), JSON
                    ),
                    "text": JSON,
                    "logprobs": JSON,
                    "finish_reason": st.sampled_from([None, "", "stop", "length", "x", 5]),
                },
            )
        )
        | JSON,
        "usage": JSON,
        "error": JSON,
    },
)


@given(st.lists(CHUNKS | JSON, max_size=4))
def test_whatever_comes_is_events_or_an_error_of_ours(chunks: list[Any]):
    one = decoder()
    try:
        for chunk in chunks:
            list(one.events(json.dumps(chunk).encode()))
        one.finished()
        list(one.last_events())
    except (FleetError, BrokenStreamError):
        pass
