"""What leaves on a session, as the neuron reads it."""

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.transports.session_outbox import SessionOutbox


def asking(text: str) -> generation.GenerateRequest:
    request = generation.GenerateRequest(request_id="r", model="tiny")
    request.chat.messages.add().parts.add(text=text)
    return request


@pytest.fixture
def outbox() -> SessionOutbox:
    return SessionOutbox(window_tokens=64)


@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 16_383, 16_384, 200_000])
def test_a_request_of_any_length_arrives_as_it_was(outbox, size):
    outbox.start(300, asking("x" * size))

    read = neuron.SessionRequest.FromString(outbox.take())

    expected = neuron.SessionStart(sequence_id=300, request=asking("x" * size), credit_tokens=64)
    assert [expected] == list(read.starts)


def test_an_empty_request_is_one(outbox):
    outbox.start(1, generation.GenerateRequest())

    (start,) = neuron.SessionRequest.FromString(outbox.take()).starts

    assert start.HasField("request")


def test_everything_that_waits_leaves_in_one_message(outbox):
    outbox.start(1, asking("first"))
    outbox.start(2, asking("second"))
    outbox.credit(3, 5)
    outbox.credit(3, 6)
    outbox.cancel(4)

    read = neuron.SessionRequest.FromString(outbox.take())

    assert [1, 2] == [start.sequence_id for start in read.starts]
    assert [(3, 11)] == [(one.sequence_id, one.tokens) for one in read.credits]
    assert [4] == list(read.cancelled_sequence_ids)
    assert not outbox


def test_of_very_many_requests_the_others_wait_with_their_credit(outbox):
    for number in range(1, 131):
        outbox.start(number, asking("x"))
    outbox.credit(1, 5)
    outbox.credit(130, 5)

    first = neuron.SessionRequest.FromString(outbox.take())
    second = neuron.SessionRequest.FromString(outbox.take())

    assert list(range(1, 129)) == [start.sequence_id for start in first.starts]
    assert [1] == [one.sequence_id for one in first.credits]
    assert [129, 130] == [start.sequence_id for start in second.starts]
    assert [130] == [one.sequence_id for one in second.credits]


def test_a_request_that_was_taken_back_never_leaves(outbox):
    outbox.start(1, asking("x"))

    assert not outbox.cancel(1)
    assert not outbox
