"""What the answers of the OpenAI-like dialects have in common: errors, usage, log probabilities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import encode

_DONE: Final = b"data: [DONE]\n\n"
# Where the field says more than the reason.
_CODES: Final[dict[tuple[Reason, str | None], str]] = {
    (Reason.NOT_FOUND, "previous_response_id"): "previous_response_not_found",
}
_STEP: Final = re.compile(r"\.(\d+)(?=\.|$)")


def wording(error: FleetError) -> str:
    """The error's message; for CONTEXT_TOO_LONG in the words that clients look for."""
    facts = error.facts
    if error.reason is Reason.CONTEXT_TOO_LONG and "max_context_tokens" in facts:
        return (
            f"This model's maximum context length is {facts['max_context_tokens']} tokens. "
            f"However, your messages resulted in {facts.get('prompt_tokens', 'more')} tokens. "
            "Please reduce the length of the messages."
        )
    return error.message


def error_object(error: FleetError) -> dict[str, Any]:
    """The `error` object of the API; where the error has facts, they are added as `facts`."""
    row = error.reason.row
    found: dict[str, Any] = {
        "message": wording(error),
        "type": row.openai_type,
        "param": _STEP.sub(r"[\1]", error.field) if error.field else None,
        "code": _CODES.get((error.reason, error.field), row.openai_code),
    }
    if error.facts:
        found["facts"] = error.facts
    return found


def envelope(error: FleetError) -> bytes:
    """The body of an error response."""
    return encode({"error": error_object(error)})


def error_event(error: FleetError) -> bytes:
    """The last event of a stream that failed; without `[DONE]`, so that it looks incomplete."""
    return b"data: " + envelope(error) + b"\n\n"


def end_of_stream() -> bytes:
    """The last event of a complete stream: `[DONE]`."""
    return _DONE


class UsageAnswer(msgspec.Struct):
    """The fields of `usage_object`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


def usage_object(usage: generation.Usage) -> dict[str, Any]:
    """The `usage` object of chat and completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def total(usages: Iterable[generation.Usage]) -> generation.Usage:
    """The usage of several choices of one prompt, whose tokens count only once."""
    first, *others = usages
    if not others:
        return first
    found = generation.Usage()
    found.CopyFrom(first)
    for one in others:
        found.prompt_tokens = max(found.prompt_tokens, one.prompt_tokens)
        found.cached_prompt_tokens = max(found.cached_prompt_tokens, one.cached_prompt_tokens)
        found.completion_tokens += one.completion_tokens
        found.reasoning_tokens += one.reasoning_tokens
    return found


def finish_reason(reason: generation.FinishReason.ValueType, *, called: bool) -> str:
    """The API's `finish_reason`.

    Where a tool was called it is `tool_calls`, whatever ended the text after it: agents run tools
    only then. A call that was cut is none.
    """
    if reason == generation.FINISH_REASON_MAX_TOKENS:
        return "length"
    return "tool_calls" if called or reason == generation.FINISH_REASON_TOOL_CALLS else "stop"


def logprob_objects(logprobs: Iterable[generation.TokenLogprob]) -> list[dict[str, Any]]:
    """`logprobs.content` of chat and Responses."""
    return [
        _logprob(one) | {"top_logprobs": [_logprob(other) for other in one.alternatives]}
        for one in logprobs
    ]


def _logprob(one: generation.TokenLogprob) -> dict[str, Any]:
    return {
        "token": one.text.decode("utf-8", "replace"),
        "logprob": one.logprob,
        "bytes": list(one.text),
    }


def comment_line(words: str) -> bytes:
    """A comment in the event stream, for people who watch it."""
    return b": " + " ".join(words.splitlines()).encode() + b"\n\n"


def repairs(notes: Sequence[str]) -> bytes:
    """Comments that say what was repaired in the model's tool calls."""
    return b"".join(comment_line(f"repaired: {note}") for note in notes if note)


def queued(event: generation.GenerationQueued) -> bytes:
    """A comment that says the place in the queue."""
    words = f"queued, {event.position} before this one"
    if event.HasField("eta"):
        words += f", about {protobuf_time.seconds(event.eta):.0f} s"
    return comment_line(words)
