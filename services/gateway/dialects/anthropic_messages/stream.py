"""Streamed messages.

Source: Anthropic API reference, streaming messages.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages.decode import MessageDetail
from services.gateway.dialects.anthropic_messages.encode import (
    NO_END,
    call_head,
    edits,
    message,
    prefill_end,
    prefill_usage,
    stop_fields,
    usage_object,
)
from services.gateway.dialects.common import openai_body, signature
from services.gateway.dialects.common.anthropic_body import envelope
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import DecodedRequest, Head, Projector


def event(kind: str, **fields: Any) -> bytes:
    """One event; its kind stands in the event line and in the data."""
    data = encode({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


class MessagesProjector(Projector):
    """One streamed message.

    `message_start` carries the number of prompt tokens and waits for it, at most until the first
    heartbeat. Content blocks follow one another; another kind of delta ends the open block.
    """

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        self._decoded = decoded
        self._head = head
        self._detail: MessageDetail = decoded.detail
        self._encode = encode
        self._started = False
        self._index = -1
        # The open block: "text", "reasoning", "tool_call" or none.
        self._open = ""
        self._call = -1
        self._called = False
        self._prefix = b""
        self._thought: list[str] = []

    @override
    def open(self) -> bytes:
        """Nothing: the message starts with its token count."""
        return b""

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A text delta."""
        if not text:
            return b""
        if self._open == "text":
            return self._prefix + self._encode(text) + b"}}\n\n"
        start = self._begin("text", {"type": "text", "text": "", "citations": None})
        return start + self._prefix + self._encode(text) + b"}}\n\n"

    @override
    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Whatever else there is to tell."""
        match event.WhichOneof("event"):
            case "text":
                return self.text(choice, event.text.text, len(event.text.token_ids))
            case "reasoning" if event.reasoning.text:
                return self._reasoning(event.reasoning.text)
            case "tool_call":
                return self._tool_call(event.tool_call)
            case "started":
                return self._start(event.started)
            case "queued":
                return openai_body.queued(event.queued)
            case _:
                return b""

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The end of the message, with its usage."""
        return self._end(stop_fields(finished, called=self._called), finished.usage)

    @override
    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return b"event: error\ndata: " + envelope(error, self._head) + b"\n\n"

    @override
    def heartbeat(self) -> bytes:
        """A ping; the message begins before it."""
        return self._start() + event("ping")

    def _end(self, end: dict[str, Any], usage: generation.Usage) -> bytes:
        told: dict[str, Any] = {
            "delta": end | {"container": None},
            "usage": usage_object(usage, self._detail),
        }
        if self._detail.is_beta:
            told["context_management"] = edits(self._detail)
        last = event("message_delta", **told) + event("message_stop")
        return self._start() + self._end_block() + last

    def _start(self, started: generation.GenerationStarted | None = None) -> bytes:
        if self._started:
            return b""
        self._started = True
        usage = generation.Usage()
        if started is not None:
            usage.prompt_tokens = started.prompt_tokens
            usage.cached_prompt_tokens = started.cached_prompt_tokens
        told = message(self._decoded, self._head, (), dict(NO_END), usage)
        return event("message_start", message=told)

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        before = self._start() + self._end_block()
        self._open = kind
        self._index += 1
        delta, field = _DELTAS[kind]
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":'
            + str(self._index).encode()
            + b',"delta":{"type":"'
            + delta
            + (_UNTOLD if kind == "reasoning" and self._detail.is_beta else b'"')
            + b',"'
            + field
            + b'":'
        )
        return before + event("content_block_start", index=self._index, content_block=block)

    def _end_block(self) -> bytes:
        if not self._open:
            return b""
        sign = b""
        if self._open == "reasoning":
            thought, self._thought = "".join(self._thought), []
            signed = signature.sign(thought, carry=not self._detail.shows_thinking)
            delta = {"type": "signature_delta", "signature": signed}
            sign = event("content_block_delta", index=self._index, delta=delta)
        self._open = ""
        return sign + event("content_block_stop", index=self._index)

    def _reasoning(self, text: str) -> bytes:
        start = b""
        if self._open != "reasoning":
            start = self._begin("reasoning", {"type": "thinking", "thinking": "", "signature": ""})
        self._thought.append(text)
        if not self._detail.shows_thinking:
            return start
        return start + self._prefix + encode(text) + b"}}\n\n"

    def _tool_call(self, delta: generation.ToolCallDelta) -> bytes:
        start = openai_body.repairs((delta.repair,))
        self._called = not delta.incomplete
        if self._open != "tool_call" or self._call != delta.index:
            self._call = delta.index
            block = call_head(delta.call_id, delta.name) | {"input": {}}
            start += self._begin("tool_call", block)
        if not delta.arguments_json:
            return start
        return start + self._prefix + encode(delta.arguments_json) + b"}}\n\n"


class PrefillProjector(MessagesProjector):
    """A message that is only to fill the cache (`max_tokens: 0`): it stays empty."""

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """Nothing: an engine generates one token at least."""
        return b""

    @override
    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Drops deltas; passes on what comes before the first token."""
        is_delta = event.WhichOneof("event") in {"text", "reasoning", "tool_call"}
        return b"" if is_delta else super().event(choice, event)

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The end of a message without tokens."""
        return self._end(prefill_end(), prefill_usage(finished.usage))


# The beta API's count of tokens that it does not show; here usage tells of them at the end.
_UNTOLD = b'","estimated_tokens":null'
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "reasoning": (b"thinking_delta", b"thinking"),
    "tool_call": (b"input_json_delta", b"partial_json"),
}
