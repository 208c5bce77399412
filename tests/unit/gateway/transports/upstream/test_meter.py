"""Where an answer is cut that is longer than it may be, however its server cuts it into pieces."""

from __future__ import annotations

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.transports.upstream.meter import AnswerMeter, Event, size_of


def text(words: str, *tokens: str) -> Event:
    logprobs = [generation.TokenLogprob(text=one.encode()) for one in tokens]
    ids = [0] * len(tokens)
    return Event(text=generation.TextDelta(text=words, logprobs=logprobs, token_ids=ids))


def passed(meter: AnswerMeter, *events: Event) -> str:
    """The text that comes through until it is cut."""
    found = ""
    for event in events:
        one = meter.within(event)
        found += one.text.text + one.reasoning.text if one is not None else ""
        if meter.is_full:
            break
    return found


def test_pieces_are_tokens():
    meter = AnswerMeter(3)

    assert " word" * 3 == passed(meter, *[text(" word")] * 9)
    assert (True, 3) == (meter.is_full, meter.tokens)


def test_an_answer_of_just_as_many_is_not_cut():
    meter = AnswerMeter(9)

    assert " word" * 9 == passed(meter, *[text(" word")] * 9)
    assert (False, 9) == (meter.is_full, meter.tokens)


def test_pieces_that_are_parts_of_tokens_cut_no_answer_short():
    words = "letters that come one by one"

    assert words == passed(AnswerMeter(10), *map(text, words))


def test_an_answer_in_pieces_of_many_tokens_ends_too():
    meter = AnswerMeter(10)

    assert len(passed(meter, *[text("w" * 100)] * 50)) < 200
    assert meter.is_full


def test_what_the_server_tells_as_it_answers_counts():
    meter, found = AnswerMeter(10), ""
    for told in (4, 8, 12, 16):
        meter.note_told(told)
        found += "" if meter.is_full else passed(meter, text("abcd"))

    assert "abcdabcdab" == found
    assert meter.is_full


@pytest.mark.parametrize(("told", "expected"), [(40, "a" * 25), (10, "a" * 100), (0, "a" * 100)])
def test_an_answer_of_one_piece_keeps_its_share(told: int, expected: str):
    meter, whole = AnswerMeter(10), text("a" * 100)
    meter.note_told(told)
    meter.note_whole(size_of(whole))

    assert expected == passed(meter, whole)


def test_tokens_with_log_probabilities_are_counted_as_they_are():
    meter = AnswerMeter(3)

    found = meter.within(text("abcdefghij", "abc", "def", "ghi", "j"))

    assert found is not None
    assert ("abcdefghi", 3, 3) == (
        found.text.text,
        len(found.text.logprobs),
        len(found.text.token_ids),
    )


def test_a_call_is_not_cut_within_a_piece_and_thoughts_are():
    call = Event(tool_call=generation.ToolCallDelta(name="look", arguments_json="{}" * 50))
    thought = Event(reasoning=generation.ReasoningDelta(text="b" * 100, token_ids=[0]))

    assert AnswerMeter(2).within(call) is None
    assert 0 < len(passed(AnswerMeter(3), thought)) < 100
    assert AnswerMeter(0).within(thought) is None


def test_without_a_bound_all_comes_and_is_counted():
    meter = AnswerMeter(None)

    assert "w" * 500 == passed(meter, *[text("w" * 100)] * 5)
    assert 31 == meter.tokens
    assert meter.within(Event(started=generation.GenerationStarted())) is not None
