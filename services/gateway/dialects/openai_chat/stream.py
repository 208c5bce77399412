"""Streamed chat completions."""

from __future__ import annotations

from typing import Any, Final

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.common.openai_chunks import ChunkWriter
from services.gateway.dialects.dialect import DecodedRequest, Head, Projector
from services.gateway.dialects.openai_chat.decode import ChatDetail
from services.gateway.dialects.openai_chat.encode import completion_id

_ROLE: Final = b'"role":"assistant","content":"","refusal":null'


class ChatProjector(Projector):
    """One streamed chat completion.

    A text event is three joined byte strings: everything but the text is encoded once, here.
    """

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        detail: ChatDetail = decoded.detail
        self._detail = detail
        self._chunks = ChunkWriter(
            {
                "id": completion_id(head),
                "object": "chat.completion.chunk",
                "created": head.created_unix_seconds,
                "model": decoded.model,
            },
            choices=len(decoded.requests),
            include_usage=detail.include_usage,
        )
        self._deltas = [start + b',"delta":{' for start in self._chunks.starts]
        self._texts = [one + b'"content":' for one in self._deltas]
        self._end = b'},"logprobs":null,"finish_reason":null}' + self._chunks.end
        self._encode = encode
        self._called = [False] * len(decoded.requests)
        self._usages: dict[int, generation.Usage] = {}

    @override
    def open(self) -> bytes:
        """The chunk that names the role, for every choice."""
        return b"".join(one + _ROLE + self._end for one in self._deltas)

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A chunk of text."""
        return self._texts[choice] + self._encode(text) + self._end if text else b""

    @override
    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """A chunk of whatever else there is to tell."""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(choice, event.text)
            case "reasoning" if event.reasoning.text:
                return self._chunks.chunk(
                    _choice(choice, {"reasoning_content": event.reasoning.text})
                )
            case "tool_call":
                return self._tool_call(choice, event.tool_call)
            case "queued":
                return openai_body.queued(event.queued)
            case _:
                return b""

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The chunk that says why a choice ended; behind the last one, usage and `[DONE]`."""
        self._usages[choice] = finished.usage
        reason = openai_body.finish_reason(finished.reason, called=self._called[choice])
        if self._detail.old_functions and reason == "tool_calls":
            reason = "function_call"
        last = _choice(choice, {}, finish_reason=reason)
        if len(self._usages) < len(self._deltas):
            return self._chunks.chunk(last)
        return self._chunks.last(last, openai_body.total(self._usages.values()))

    @override
    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return openai_body.error_event(error)

    @override
    def heartbeat(self) -> bytes:
        """A chunk that adds nothing."""
        return self._deltas[0] + self._end

    def _rich_text(self, choice: int, delta: generation.TextDelta) -> bytes:
        if not (self._detail.logprobs and delta.logprobs):
            return self.text(choice, delta.text, len(delta.token_ids))
        content = openai_body.logprob_objects(delta.logprobs)
        logprobs = {"content": content, "refusal": None}
        return self._chunks.chunk(_choice(choice, {"content": delta.text}, logprobs=logprobs))

    def _tool_call(self, choice: int, delta: generation.ToolCallDelta) -> bytes:
        self._called[choice] = not delta.incomplete
        notes = openai_body.repairs((delta.repair,))
        function: dict[str, Any] = {"name": delta.name} if delta.name else {}
        function["arguments"] = delta.arguments_json
        if self._detail.old_functions:
            if delta.index:
                return notes
            return notes + self._chunks.chunk(_choice(choice, {"function_call": function}))
        call: dict[str, Any] = {"index": delta.index}
        if delta.name:
            call |= {"id": delta.call_id, "type": "function"}
        return notes + self._chunks.chunk(
            _choice(choice, {"tool_calls": [call | {"function": function}]})
        )


def _choice(
    index: int,
    delta: dict[str, Any],
    *,
    finish_reason: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
