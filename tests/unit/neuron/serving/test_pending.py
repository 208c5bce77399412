"""How a Session's messages are packed."""

from __future__ import annotations

from cortex.v1 import generation_pb2 as g
from cortex.v1 import neuron_service_pb2 as n
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving.pending import Pending


def started(prompt_tokens: int = 1) -> g.GenerateResponse:
    return g.GenerateResponse(started=g.GenerationStarted(prompt_tokens=prompt_tokens))


def reasoning(text: str) -> g.GenerateResponse:
    return g.GenerateResponse(reasoning=g.ReasoningDelta(text=text))


def columns(message: n.SessionResponse):
    return list(
        zip(message.text_sequence_ids, message.texts, message.text_token_counts, strict=True)
    )


def test_text_that_waits_is_merged_by_sequence():
    pending = Pending()
    pending.text(1, "a", (10,), ())
    pending.text(2, "x", (20,), ())
    pending.text(1, "b", (11, 12), ())

    assert columns(pending.take()) == [(1, "ab", 3), (2, "x", 1)]
    assert not pending


def test_events_come_with_text_by_column():
    pending = Pending()
    pending.event(1, started())
    pending.text(1, "a", (1,), ())

    message = pending.take()

    assert [each.event.WhichOneof("event") for each in message.events] == ["started"]
    assert columns(message) == [(1, "a", 1)]


def test_a_sequence_with_another_delta_has_all_of_its_deltas_as_events():
    pending = Pending()
    pending.text(1, "a", (1,), ())
    pending.event(1, reasoning("hm"))
    pending.text(1, "b", (2, 3), ())
    pending.text(2, "x", (4,), ())

    message = pending.take()

    assert columns(message) == [(2, "x", 1)]
    kinds = [each.event.WhichOneof("event") for each in message.events]
    assert kinds == ["text", "reasoning", "text"]
    assert list(message.events[2].event.text.token_ids) == [2, 3]


def test_logprobs_make_text_an_event():
    pending = Pending()
    pending.text(1, "a", (1,), ())
    pending.text(1, "b", (2,), (TokenLogprob(2, b"b", -0.5),))

    message = pending.take()

    assert [each.event.text.text for each in message.events] == ["a", "b"]
    assert message.events[1].event.text.logprobs[0].logprob == -0.5
    assert not columns(message)


def test_the_next_message_starts_afresh():
    pending = Pending()
    pending.event(1, reasoning("hm"))
    pending.take()
    pending.text(1, "a", (1,), ())

    assert columns(pending.take()) == [(1, "a", 1)]


def test_what_is_forgotten_is_not_sent():
    pending = Pending()
    for sequence_id in (1, 2):
        pending.event(sequence_id, started())
        pending.text(sequence_id, "a", (1,), ())
        pending.end(n.SequenceEnd(sequence_id=sequence_id))

    pending.forget(1)

    message = pending.take()
    assert [each.sequence_id for each in message.events] == [2]
    assert list(message.text_sequence_ids) == [2]
    assert [each.sequence_id for each in message.ends] == [2]
