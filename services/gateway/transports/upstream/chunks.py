"""The chunks of a streamed OpenAI answer, as servers write them.

Fields that are not read here are passed over; every server adds its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

# Of a prompt or an answer: no model's context holds as much, and limits go by what is told.
_MOST_TOKENS: Final = 16 << 20


class FunctionPiece(msgspec.Struct):
    """A piece of a called function; some servers send arguments as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallPiece(msgspec.Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class ListedContent(msgspec.Struct):
    """A part of a content that is a list, as Mistral sends thoughts."""

    text: str | None = None
    thinking: str | list[ListedContent] | None = None


class Delta(msgspec.Struct):
    """What one chunk adds to a message; reasoning has one of two names."""

    content: str | list[ListedContent] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None


class TopLogprob(msgspec.Struct):
    """A token and its log probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ContentLogprob(TopLogprob):
    """One with its likeliest rivals."""

    top_logprobs: list[TopLogprob] | None = None


class Logprobs(msgspec.Struct):
    """Of a chat's chunk in `content`; of a completion's in columns."""

    content: list[ContentLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct):
    """The one choice: of a chat's chunk with `delta`, of a completion with `text`.

    A chat that came as one piece has `message`.
    """

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Of the answer's tokens."""

    reasoning_tokens: int | None = None


class ChunkUsage(msgspec.Struct):
    """`usage`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Chunk(msgspec.Struct):
    """One chunk, or an error in place of one."""

    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    error: Any = None
    object: str | None = None
    message: Any = None


READER: Final = msgspec.json.Decoder(Chunk)


def bounded_count(count: int | None) -> int:
    """Tokens that a server tells, as many as can be; 0 where it tells none."""
    return min(max(count or 0, 0), _MOST_TOKENS)


def arguments_of(told: str | dict[str, Any] | None) -> str:
    """The JSON text of arguments."""
    return msgspec.json.encode(told).decode() if isinstance(told, dict) else told or ""


def words_of(content: str | Sequence[ListedContent] | None) -> str:
    """The text of a content, which may be a list."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def thoughts_of(content: str | Sequence[ListedContent] | None) -> str:
    """What a content that is a list says of thoughts."""
    if content is None or isinstance(content, str):
        return ""
    return "".join(words_of(part.thinking) for part in content)


def error_of(chunk: Chunk) -> Any:
    """The error of a chunk that is one."""
    return chunk.error if chunk.error is not None else {"message": chunk.message}
