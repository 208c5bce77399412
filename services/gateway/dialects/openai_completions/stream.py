"""Events into legacy completion chunks."""

from __future__ import annotations

from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_completions.decode import CompletionDetail
from services.gateway.dialects.openai_completions.encode import (
    LogprobColumns,
    completion_id,
    finish_reason,
    total,
)


class CompletionProjector:
    """One streamed completion of one or more prompts."""

    comment: bytes = b": keep-alive\n\n"

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        detail: CompletionDetail = decoded.detail
        self._detail = detail
        self._base: dict[str, Any] = {
            "id": completion_id(head),
            "object": "text_completion",
            "created": head.created_unix_seconds,
            "model": decoded.model,
        }
        start = b"data: " + encode(self._base)[:-1] + b',"choices":[{"index":'
        count = len(decoded.requests)
        self._texts = [start + str(index).encode() + b',"text":' for index in range(count)]
        usage = b',"usage":null' if detail.include_usage else b""
        self._end = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._encode = encode
        self._columns = [LogprobColumns(detail, index) for index in range(count)]
        # Choices whose prompt is still to be told.
        self._unechoed = set(range(count)) if detail.echo else set[int]()
        self._usages: dict[int, generation.Usage] = {}

    def open(self) -> bytes:
        """Nothing: this stream has no opening."""
        return b""

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A chunk of text."""
        if self._detail.echo:
            text = self._echo(choice) + ("" if self._detail.only_echoes else text)
        if not text:
            return b""
        return self._texts[choice] + self._encode(text) + self._end

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        """Text with log probabilities, reasoning as text, a place in the queue."""
        match event.WhichOneof("event"):
            case "text":
                return self._rich_text(choice, event.text)
            case "reasoning":
                return self.text(choice, event.reasoning.text, len(event.reasoning.token_ids))
            case "queued":
                return openai_body.queued(event.queued)
            case _:
                return b""

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The chunk that says why a choice ended; behind the last one, usage and `[DONE]`."""
        self._usages[choice] = finished.usage
        echo = self._echo(choice)  # where the model has said nothing
        reason = finish_reason(finished)
        if len(self._usages) < len(self._texts):
            return self._chunk(choice, echo, ended=reason)
        usages = [self._usages[index] for index in range(len(self._texts))]
        usage = openai_body.usage_object(total(usages, self._detail))
        done = openai_body.end_of_stream()
        if not self._detail.include_usage:
            return self._chunk(choice, echo, ended=reason, usage=usage) + done
        whole = b"data: " + encode(self._base | {"choices": [], "usage": usage}) + b"\n\n"
        return self._chunk(choice, echo, ended=reason) + whole + done

    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return openai_body.error_event(error)

    def heartbeat(self) -> bytes:
        """A chunk that adds nothing."""
        return self._texts[0] + b'""' + self._end

    def _rich_text(self, choice: int, delta: generation.TextDelta) -> bytes:
        if not (self._detail.logprobs and delta.logprobs):
            return self.text(choice, delta.text, len(delta.token_ids))
        columns = self._columns[choice].told(delta.logprobs, len(delta.token_ids))
        text = self._echo(choice) + ("" if self._detail.only_echoes else delta.text)
        return self._chunk(choice, text, logprobs=columns) if columns["tokens"] else b""

    def _echo(self, choice: int) -> str:
        """The prompt, once."""
        if choice not in self._unechoed:
            return ""
        self._unechoed.discard(choice)
        return self._columns[choice].echo()

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
