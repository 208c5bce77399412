"""Output items."""

from __future__ import annotations

import json

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import (
    HEAD,
    Event,
    collect,
    stream,
)
from tests.unit.gateway.dialects.whole_answers import HELLO_ANSWER


def test_each_text_has_its_own_log_probabilities_streamed_or_not(store: ResponsesStore) -> None:
    """A token without text of its own (half a character) opens no item; it is the next text's."""

    def token(text: str, piece: bytes) -> Event:
        one = generation.TokenLogprob(text=piece, logprob=-1)
        return Event(text=generation.TextDelta(text=text, token_ids=[1], logprobs=[one]))

    def thought(text: str) -> Event:
        return Event(reasoning=generation.ReasoningDelta(text=text))

    call = generation.ToolCallDelta(index=0, call_id="c", name="f", arguments_json="{}")
    events = [
        thought("h"), token("", b"\xf0\x9f"), thought("m"), token("🙂", b"\x99\x82"),
        token("", b"x"), Event(tool_call=call), token("b", b"b"),
    ]  # fmt: skip
    dialect, decoded = decoding.responses(
        store, include=["message.output_text.logprobs"], top_logprobs=1
    )

    unstreamed = json.loads(dialect.body(decoded, HEAD, [collect(HELLO_ANSWER, events)]))["output"]
    told = legal.sse(stream(dialect, decoded, HELLO_ANSWER, events))

    assert [one["type"] for one in unstreamed] == [
        "reasoning", "message", "function_call", "message",
    ]  # fmt: skip
    assert [len(unstreamed[index]["content"][0]["logprobs"]) for index in (1, 3)] == [3, 1]
    assert told[-1][1]["response"]["output"] == unstreamed
