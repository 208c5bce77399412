"""Collected events into one legacy completion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects import openai_answer
from services.gateway.dialects.dialect import Ask, Collected, Head
from services.gateway.dialects.openai_completions.decode import Detail
from services.gateway.dialects.reading import encode


def completion_id(head: Head) -> str:
    """The completion's id, from the request's."""
    return "cmpl-" + head.request_id


def body(ask: Ask, head: Head, choices: Sequence[Collected]) -> bytes:
    """The whole response."""
    detail: Detail = ask.detail
    usages = [one.finished.usage for one in choices]
    return encode(
        {
            "id": completion_id(head),
            "object": "text_completion",
            "created": head.created_unix_seconds,
            "model": ask.model,
            "choices": [_choice(index, one, detail) for index, one in enumerate(choices)],
            "usage": openai_answer.usage_object(total(usages, detail)),
            "system_fingerprint": None,
        }
    )


def total(usages: Sequence[generation.Usage], detail: Detail) -> generation.Usage:
    """The usage of all prompts: each was read once, each answer was written."""
    found, size = generation.Usage(), detail.choices_per_prompt
    for start in range(0, len(usages), size):
        one = openai_answer.total(usages[start : start + size])
        found.prompt_tokens += one.prompt_tokens
        found.cached_prompt_tokens += one.cached_prompt_tokens
        found.completion_tokens += one.completion_tokens
        found.reasoning_tokens += one.reasoning_tokens
    return found


def _choice(index: int, one: Collected, detail: Detail) -> dict[str, Any]:
    # A completion has no place for reasoning: what the model wrote is its text, in order.
    text = "".join(value for kind, value in one.parts if kind in {"text", "reasoning"})
    logprobs = None
    if detail.logprobs:
        logprobs, _ = logprobs_object(one.logprobs, offset=0, starts=detail.echo)
    return {
        "text": text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": finish_reason(one.finished),
    }


def finish_reason(finished: generation.GenerationFinished) -> str:
    """Why a completion ended; this API knows no calls."""
    return "length" if finished.reason == generation.FINISH_REASON_MAX_TOKENS else "stop"


def logprobs_object(
    logprobs: Iterable[generation.TokenLogprob], *, offset: int, starts: bool
) -> tuple[dict[str, Any], int]:
    """`logprobs` in the API's columns, and the offset behind the last token.

    Args:
        logprobs: one per token.
        offset: characters of text before the first of them.
        starts: the first token begins the prompt: nothing comes before it, so it has no
            probability (null).
    """
    tokens: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for one in logprobs:
        first = starts and not tokens
        token = _token(one)
        tokens.append(token)
        values.append(None if first else one.logprob)
        tops.append(None if first else {_token(other): other.logprob for other in one.alternatives})
        offsets.append(offset)
        offset += len(token)
    columns = {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
    return columns, offset


def _token(one: generation.TokenLogprob) -> str:
    """The token's text; half a character by its bytes in hex, behind `bytes:`."""
    try:
        return one.text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in one.text)
