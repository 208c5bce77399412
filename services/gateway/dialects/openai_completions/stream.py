"""Streamed legacy completions."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.common.openai_chunks import ChunkWriter
from services.gateway.dialects.dialect import DecodedRequest, Head, Projector
from services.gateway.dialects.openai_completions.decode import CompletionDetail
from services.gateway.dialects.openai_completions.encode import (
    LogprobColumns,
    completion_id,
    finish_reason,
    total,
)


class CompletionProjector(Projector):
    """One streamed completion of one or more prompts."""

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        detail: CompletionDetail = decoded.detail
        self._detail = detail
        count = len(decoded.requests)
        self._chunks = ChunkWriter(
            {
                "id": completion_id(head),
                "object": "text_completion",
                "created": head.created_unix_seconds,
                "model": decoded.model,
            },
            choices=count,
            include_usage=detail.include_usage,
        )
        self._texts = [start + b',"text":' for start in self._chunks.starts]
        self._end = b',"logprobs":null,"finish_reason":null}' + self._chunks.end
        self._encode = encode
        self._columns = [LogprobColumns(detail, index) for index in range(count)]
        # Choices whose prompt is still to be told.
        self._unechoed = set(range(count)) if detail.echo else set[int]()
        self._usages: dict[int, generation.Usage] = {}

    @override
    def open(self) -> bytes:
        """Nothing: this stream has no opening."""
        return b""

    @override
    def text(self, choice: int, text: str, tokens: int) -> bytes:
        """A chunk of text."""
        if self._detail.echo:
            text = self._echo(choice) + ("" if self._detail.only_echoes else text)
        if not text:
            return b""
        return self._texts[choice] + self._encode(text) + self._end

    @override
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

    @override
    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        """The chunk that says why a choice ended; behind the last one, usage and `[DONE]`."""
        self._usages[choice] = finished.usage
        echo = self._echo(choice)  # where the model has said nothing
        reason = finish_reason(finished)
        last = _choice(choice, echo, finish_reason=reason)
        if len(self._usages) < len(self._texts):
            return self._chunks.chunk(last)
        usages = [self._usages[index] for index in range(len(self._texts))]
        return self._chunks.last(last, total(usages, self._detail))

    @override
    def fail(self, error: FleetError) -> bytes:
        """The error in place of an end."""
        return openai_body.error_event(error)

    @override
    def heartbeat(self) -> bytes:
        """A chunk that adds nothing."""
        return self._texts[0] + b'""' + self._end

    def _rich_text(self, choice: int, delta: generation.TextDelta) -> bytes:
        if not delta.logprobs:
            return self.text(choice, delta.text, len(delta.token_ids))
        columns = self._columns[choice].told(delta.logprobs, len(delta.token_ids))
        if not self._detail.logprobs:
            return self.text(choice, delta.text, len(delta.token_ids))
        text = self._echo(choice) + ("" if self._detail.only_echoes else delta.text)
        if not columns["tokens"]:
            return b""
        return self._chunks.chunk(_choice(choice, text, logprobs=columns))

    def _echo(self, choice: int) -> str:
        """The prompt, once."""
        if choice not in self._unechoed:
            return ""
        self._unechoed.discard(choice)
        return self._columns[choice].echo()


def _choice(
    index: int,
    text: str,
    *,
    finish_reason: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
