"""Events into legacy completion chunks."""

from __future__ import annotations

from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects import openai_answer
from services.gateway.dialects.dialect import Ask, Head
from services.gateway.dialects.openai_completions.decode import Detail
from services.gateway.dialects.openai_completions.encode import (
    completion_id,
    finish_reason,
    logprobs_object,
    total,
)
from services.gateway.dialects.reading import encode


class CompletionProjector:
    """One streamed completion of one or more prompts."""

    comment: bytes = b": keep-alive\n\n"

    def __init__(self, ask: Ask, head: Head) -> None:
        detail: Detail = ask.detail
        self._detail = detail
        self._base: dict[str, Any] = {
            "id": completion_id(head),
            "object": "text_completion",
            "created": head.created_unix_seconds,
            "model": ask.model,
        }
        start = b"data: " + encode(self._base)[:-1] + b',"choices":[{"index":'
        count = len(ask.requests)
        self._texts = [start + str(index).encode() + b',"text":' for index in range(count)]
        usage = b',"usage":null' if detail.include_usage else b""
        self._end = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._encode = encode
        self._offsets = [0] * count
        self._begun = [False] * count
        self._usages: dict[int, generation.Usage] = {}

    def open(self) -> bytes:
        """Nothing: this stream has no opening."""
        return b""

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A chunk of text."""
        return self._texts[choice] + self._encode(text) + self._end if text else b""

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Text with log probabilities, reasoning as text, a place in the queue."""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(choice, event.text)
            case "reasoning":
                return self.text(choice, event.reasoning.text, len(event.reasoning.token_ids))
            case "queued":
                return openai_answer.queued(event.queued)
            case _:
                return b""

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The chunk that says why a choice ended; behind the last one, usage and `[DONE]`."""
        self._usages[choice] = finished.usage
        reason = finish_reason(finished)
        if len(self._usages) < len(self._texts):
            return self._chunk(choice, "", ended=reason)
        usages = [self._usages[index] for index in range(len(self._texts))]
        usage = openai_answer.usage_object(total(usages, self._detail))
        done = openai_answer.end_of_stream()
        if not self._detail.include_usage:
            return self._chunk(choice, "", ended=reason, usage=usage) + done
        whole = b"data: " + encode(self._base | {"choices": [], "usage": usage}) + b"\n\n"
        return self._chunk(choice, "", ended=reason) + whole + done

    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return openai_answer.error_event(error)

    def heartbeat(self) -> bytes:
        """A chunk that adds nothing."""
        return self._texts[0] + b'""' + self._end

    def _rich_text(self, choice: int, delta: generation.TextDelta) -> bytes:
        if not (self._detail.logprobs and delta.logprobs):
            return self.text(choice, delta.text, len(delta.token_ids))
        starts = self._detail.echo and not self._begun[choice]
        self._begun[choice] = True
        columns, self._offsets[choice] = logprobs_object(
            delta.logprobs, offset=self._offsets[choice], starts=starts
        )
        return self._chunk(choice, delta.text, logprobs=columns)

    def _chunk(
        self,
        choice: int,
        text: str,
        *,
        ended: str | None = None,
        logprobs: dict[str, Any] | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        one = {
            "index": choice,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": ended,
        }
        chunk: dict[str, Any] = self._base | {"choices": [one]}
        if usage is not None or self._detail.include_usage:
            chunk["usage"] = usage
        return b"data: " + encode(chunk) + b"\n\n"
