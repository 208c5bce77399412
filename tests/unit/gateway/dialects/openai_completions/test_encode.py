"""Whole legacy completions, and their echo."""

from __future__ import annotations

import json
from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_completions.routes import OpenAICompletions
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of


def test_choices_are_counted_prompt_by_prompt() -> None:
    dialect, decoded = decoding.completion(prompt=["a", "b"], n=2)
    answer = Answer((Segment("text", "x"),))
    collected = collect(answer, events_of(answer))

    found = json.loads(dialect.body(decoded, HEAD, [collected] * 4))

    assert [0, 1, 2, 3] == [one["index"] for one in found["choices"]]
    assert (40, 36) == (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"])


def _token(text: str, logprob: float = -1.0) -> generation.TokenLogprob:
    return generation.TokenLogprob(token_id=1, text=text.encode(), logprob=logprob)


def _echoed(first: str = "he", **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """One echo, streamed and whole: the prompt's own log probabilities come without tokens."""
    dialect, decoded = decoding.completion(**{"echo": True, "logprobs": 1, **fields})
    tokens = [_token(first, 0), _token("llo"), _token(" you", -2.5)]
    tokens[2].alternatives.append(generation.TokenLogprob(text=b" me", logprob=-3))
    delta = generation.TextDelta(text=" you", token_ids=[7], logprobs=tokens)
    event = generation.GenerateResponse(text=delta)
    answer = Answer((), generation.FINISH_REASON_MAX_TOKENS)

    told = dialect.projector(decoded, HEAD).event(0, event)
    whole = json.loads(dialect.body(decoded, HEAD, [collect(answer, [event])]))
    return json.loads(told.removeprefix(b"data: "))["choices"][0], whole["choices"][0]


def test_an_echo_tells_the_prompt_and_its_log_probabilities() -> None:
    for choice in _echoed():
        assert "hello you" == choice["text"]
        assert {
            "tokens": ["he", "llo", " you"],
            "token_logprobs": [None, -1.0, -2.5],
            "top_logprobs": [None, {}, {" me": -3.0}],
            "text_offset": [0, 2, 5],
        } == choice["logprobs"]


def test_an_echo_alone_tells_nothing_else() -> None:
    for choice in _echoed(max_tokens=0):
        assert "hello" == choice["text"]
        assert ["he", "llo"] == choice["logprobs"]["tokens"]


def test_an_echo_of_token_ids_is_told_by_its_tokens() -> None:
    for choice in _echoed(prompt=[5, 6]):
        assert "hello you" == choice["text"]
        assert ["he", "llo", " you"] == choice["logprobs"]["tokens"]


def test_an_echo_of_token_ids_needs_no_log_probabilities() -> None:
    for choice in _echoed(prompt=[5, 6], logprobs=None):
        assert "hello you" == choice["text"]
        assert choice["logprobs"] is None
    for choice in _echoed(prompt=[5, 6], logprobs=None, max_tokens=0):
        assert "hello" == choice["text"]


def test_a_token_that_the_model_puts_before_a_prompt_is_no_part_of_its_text() -> None:
    for choice in _echoed(first="<s>", prompt="llo"):
        assert "llo you" == choice["text"]
        assert [0, 0, 3] == choice["logprobs"]["text_offset"]


def test_errors_of_completions_have_the_envelope() -> None:
    error = FleetError(Reason.QUEUE_FULL, "Too many wait.", facts={"queued": "8"})
    told = json.loads(OpenAICompletions().error(error, None))["error"]

    assert ("rate_limit_error", "queue_full", {"queued": "8"}) == (
        told["type"],
        told["code"],
        told["facts"],
    )
