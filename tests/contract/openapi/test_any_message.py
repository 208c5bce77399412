"""Whatever a model may answer, cut in any way, is valid by Anthropic's document."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from tests.contract.openapi.anthropic import check_body, check_event
from tests.contract.openapi.api import Tally
from tests.contract.openapi.document import Document
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import (
    BEATS,
    HEAD,
    SIZES,
    Answer,
    answers,
    collect,
    events_of,
    stream,
)

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(answers(), SIZES, BEATS, st.sampled_from(("summarized", "omitted")), st.integers(0, 1))
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
def test_messages(
    anthropic_document: Document,
    anthropic_tally: Tally,
    path: str,
    answer: Answer,
    sizes: list[int],
    beats: set[int],
    display: str,
    max_tokens: int,
) -> None:
    head = msgspec.structs.replace(HEAD, query={"beta": "true"} if "beta" in path else {})
    body = {"model": "m", "max_tokens": max_tokens, "messages": decoding.HELLO}
    body["thinking"] = {"type": "adaptive", "display": display}
    dialect = AnthropicMessages()
    ask = dialect.decode(json.dumps(body).encode(), head)
    events = events_of(answer, sizes)

    told = stream(dialect, ask, answer, events, beats=beats, waits=1, head=head)
    for _, payload in legal.sse(told):
        check_event(anthropic_document, anthropic_tally, path, payload)
    said = legal.messages(told)
    whole = json.loads(dialect.body(ask, head, [collect(answer, events)]))
    check_body(anthropic_document, anthropic_tally, "POST", path, whole)
    assert said.finish == whole["stop_reason"]
    assert bool(said.parts) == bool(whole["content"]) == bool(max_tokens and answer.segments)
