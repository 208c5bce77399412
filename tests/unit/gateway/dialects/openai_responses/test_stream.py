"""Streamed responses."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, events_of, stream
from tests.unit.gateway.dialects.openai_responses.bodies import ANSWER, conversed


def test_a_streamed_response_is_stored_too(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    stream(dialect, decoded, ANSWER, events_of(ANSWER))

    assert 3 == len(conversed(store, *decoding.HELLO, previous_response_id="resp_0123"))


def test_a_broken_stream_ends_with_response_failed(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    projector = dialect.projector(decoded, HEAD)
    told_so_far = projector.open() + projector.text(0, "he", 1)

    said = legal.responses(
        told_so_far + projector.fail(FleetError(Reason.NEURON_LOST, "The neuron is gone."))
    )

    assert {"code": "server_error", "message": "The neuron is gone."} == said.error
    assert "he" == said.text
