"""Messages and counts as they are answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.anthropic_messages import decode, encode
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.anthropic_messages.bodies import ANSWER, BETA, valid_body


def test_arguments_that_are_no_object_are_kept() -> None:
    dialect, decoded = decoding.messages()
    answer = Answer((Segment("tool_call", '"Rome', "f"),), generation.FINISH_REASON_MAX_TOKENS)

    found = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))

    assert {"arguments": '"Rome'} == found["content"][0]["input"]
    assert "max_tokens" == found["stop_reason"]


def test_nothing_is_generated_for_no_tokens() -> None:
    dialect = AnthropicMessages()
    decoded = decoding.decode(dialect, valid_body(max_tokens=0))
    events = events_of(ANSWER)

    whole = json.loads(dialect.body(decoded, HEAD, [collect(ANSWER, events)]))
    streamed = legal.messages(stream(dialect, decoded, ANSWER, events, beats={0}, waits=1))

    assert decoded.requests[0].stop.max_tokens == 1, "an engine generates one at least"
    assert (whole["content"], whole["stop_reason"]) == ([], "max_tokens")
    assert (streamed.parts, streamed.finish) == ([], "max_tokens")
    assert whole["usage"]["output_tokens"] == streamed.usage["output_tokens"] == 0
    assert whole["usage"]["cache_read_input_tokens"] == 8


def test_the_beta_api_tells_more() -> None:
    dialect = AnthropicMessages()
    edits = {"edits": [{"type": "clear_thinking_20251015"}]}
    raw = json.dumps(valid_body(context_management=edits, thinking={"type": "adaptive"})).encode()
    plain = dialect.decode(raw.replace(b'"context_management"', b'"metadata"'), HEAD)
    beta = dialect.decode(raw, BETA)
    collected = [collect(ANSWER, events_of(ANSWER))]

    short = json.loads(dialect.body(plain, HEAD, collected))
    long = json.loads(dialect.body(beta, BETA, collected))
    deltas = [
        payload["delta"]
        for name, payload in legal.sse(stream(dialect, beta, ANSWER, events_of(ANSWER)))
        if name == "content_block_delta"
    ]

    assert set(long) - set(short) == {"diagnostics", "context_management"}
    assert set(long["usage"]) - set(short["usage"]) == {"iterations", "speed"}
    assert long["context_management"] == {"applied_edits": []}
    assert deltas[0] == {"type": "thinking_delta", "estimated_tokens": None, "thinking": "hm"}


@pytest.mark.parametrize(("head", "edits_context", "wanted"), [
    (HEAD, True, {"input_tokens": 7}),
    (BETA, False, {"input_tokens": 7, "context_management": None}),
    (BETA, True, {"input_tokens": 7, "context_management": {"original_input_tokens": 7}}),
])  # fmt: skip
def test_a_count(head: Any, edits_context: bool, wanted: dict[str, Any]) -> None:
    assert json.loads(encode.count(7, head, edits_context=edits_context)) == wanted


def test_a_count_knows_of_edits() -> None:
    counted = valid_body(context_management={"edits": []})

    assert decode.decode_count(json.dumps(counted).encode(), BETA).edits_context
