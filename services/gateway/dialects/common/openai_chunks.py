"""Chunks of a streamed completion, as chat and legacy completions share them."""

from __future__ import annotations

from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode


class ChunkWriter:
    """Frames the chunks of one stream. What all chunks begin and end with is encoded once.

    Args:
        head: the fields of every chunk that never change: id, object, created, model.
        choices: how many choices the stream has.
        include_usage: the client wants usage in a chunk of its own, and `usage: null` before it.

    Attributes:
        starts: what the chunks of each choice begin with, up to its index.
        end: what a chunk ends with behind its choices.
    """

    def __init__(self, head: dict[str, Any], *, choices: int, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        start = b"data: " + encode(head)[:-1] + b',"choices":[{"index":'
        self.starts = [start + str(index).encode() for index in range(choices)]
        self.end = b"]" + (b',"usage":null' if include_usage else b"") + b"}\n\n"

    def chunk(self, choice: dict[str, Any]) -> bytes:
        """A chunk with one choice."""
        chunk = self._head | {"choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return b"data: " + encode(chunk) + b"\n\n"

    def last(self, choice: dict[str, Any], usage: generation.Usage) -> bytes:
        """The last chunk with a choice, the usage of all choices if it is wanted, and `[DONE]`."""
        if not self._include_usage:
            return self.chunk(choice) + openai_body.end_of_stream()
        told = self._head | {"choices": [], "usage": openai_body.usage_object(usage)}
        whole = b"data: " + encode(told) + b"\n\n"
        return self.chunk(choice) + whole + openai_body.end_of_stream()
