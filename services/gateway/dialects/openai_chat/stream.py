"""Events into chat completion chunks."""

from __future__ import annotations

from typing import Any, Final

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_chat.decode import ChatDetail
from services.gateway.dialects.openai_chat.encode import completion_id

_ROLE: Final = b'"role":"assistant","content":"","refusal":null'


class ChatProjector:
    """One streamed chat completion.

    A text event is three joined byte strings: everything but the text is encoded once, here.
    """

    comment: bytes = b": keep-alive\n\n"

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        detail: ChatDetail = decoded.detail
        self._detail = detail
        self._base: dict[str, Any] = {
            "id": completion_id(head),
            "object": "chat.completion.chunk",
            "created": head.created_unix_seconds,
            "model": decoded.model,
        }
        start = b"data: " + encode(self._base)[:-1] + b',"choices":[{"index":'
        self._deltas = [
            start + str(index).encode() + b',"delta":{' for index in range(len(decoded.requests))
        ]
        self._texts = [one + b'"content":' for one in self._deltas]
        # The real API tells a usage of null in every chunk but the last where it was asked for.
        usage = b',"usage":null' if detail.include_usage else b""
        self._end = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._encode = encode
        self._called = [False] * len(decoded.requests)
        self._usages: dict[int, generation.Usage] = {}

    def open(self) -> bytes:
        """The chunk that names the role, for every choice."""
        return b"".join(one + _ROLE + self._end for one in self._deltas)

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A chunk of text."""
        return self._texts[choice] + self._encode(text) + self._end if text else b""

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """A chunk of whatever else there is to tell."""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(choice, event.text)
            case "reasoning" if event.reasoning.text:
                return self._chunk(choice, {"reasoning_content": event.reasoning.text})
            case "tool_call":
                return self._tool_call(choice, event.tool_call)
            case "queued":
                return openai_body.queued(event.queued)
            case _:
                return b""

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The chunk that says why a choice ended; behind the last one, usage and `[DONE]`."""
        self._usages[choice] = finished.usage
        reason = openai_body.finish_reason(finished.reason, called=self._called[choice])
        if self._detail.old_functions and reason == "tool_calls":
            reason = "function_call"
        last = len(self._usages) == len(self._deltas)
        if not last:
            return self._chunk(choice, {}, finish_reason=reason)
        usage = openai_body.usage_object(openai_body.total(self._usages.values()))
        if not self._detail.include_usage:
            # Sent all the same: a client that sees no usage believes that its context is empty.
            chunk = self._chunk(choice, {}, finish_reason=reason, usage=usage)
            return chunk + openai_body.end_of_stream()
        whole = b"data: " + encode(self._base | {"choices": [], "usage": usage}) + b"\n\n"
        return self._chunk(choice, {}, finish_reason=reason) + whole + openai_body.end_of_stream()

    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return openai_body.error_event(error)

    def heartbeat(self) -> bytes:
        """A chunk that adds nothing."""
        return self._deltas[0] + self._end

    def _rich_text(self, choice: int, delta: generation.TextDelta) -> bytes:
        if not (self._detail.logprobs and delta.logprobs):
            return self.text(choice, delta.text, len(delta.token_ids))
        content = openai_body.logprob_objects(delta.logprobs)
        logprobs = {"content": content, "refusal": None}
        return self._chunk(choice, {"content": delta.text}, logprobs=logprobs)

    def _tool_call(self, choice: int, delta: generation.ToolCallDelta) -> bytes:
        self._called[choice] = True
        notes = openai_body.repairs((delta.repair,))
        function: dict[str, Any] = {"name": delta.name} if delta.name else {}
        function["arguments"] = delta.arguments_json
        if self._detail.old_functions:
            if delta.index:
                return notes
            return notes + self._chunk(choice, {"function_call": function})
        call: dict[str, Any] = {"index": delta.index}
        if delta.name:
            call |= {"id": delta.call_id, "type": "function"}
        return notes + self._chunk(choice, {"tool_calls": [call | {"function": function}]})

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        chunk: dict[str, Any] = self._base | {
            "choices": [
                {
                    "index": choice,
                    "delta": delta,
                    "logprobs": logprobs,
                    "finish_reason": finish_reason,
                }
            ]
        }
        if usage is not None or self._detail.include_usage:
            chunk["usage"] = usage
        return b"data: " + encode(chunk) + b"\n\n"
