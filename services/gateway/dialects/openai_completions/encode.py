"""Collected events into one legacy completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head
from services.gateway.dialects.openai_completions.decode import CompletionDetail


def completion_id(head: Head) -> str:
    """The completion's id, from the request's."""
    return "cmpl-" + head.request_id


class CompletionAnswer(msgspec.Struct):
    """The fields of a whole response; it describes what `body` writes."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: openai_body.UsageAnswer


class CompletionChoice(msgspec.Struct):
    """One choice of it."""

    text: str
    index: int
    logprobs: dict[str, Any] | None
    finish_reason: str


def body(decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
    """The whole response."""
    detail: CompletionDetail = decoded.detail
    usages = [one.finished.usage for one in choices]
    return encode(
        {
            "id": completion_id(head),
            "object": "text_completion",
            "created": head.created_unix_seconds,
            "model": decoded.model,
            "choices": [_choice(index, one, detail) for index, one in enumerate(choices)],
            "usage": openai_body.usage_object(total(usages, detail)),
        }
    )


def total(usages: Sequence[generation.Usage], detail: CompletionDetail) -> generation.Usage:
    """The usage of all prompts: each was read once, each answer was written."""
    found, size = generation.Usage(), detail.choices_per_prompt
    for start in range(0, len(usages), size):
        one = openai_body.total(usages[start : start + size])
        found.prompt_tokens += one.prompt_tokens
        found.cached_prompt_tokens += one.cached_prompt_tokens
        found.completion_tokens += one.completion_tokens
        found.reasoning_tokens += one.reasoning_tokens
    if detail.only_echoes:
        found.completion_tokens = found.reasoning_tokens = 0
    return found


def _choice(index: int, one: Collected, detail: CompletionDetail) -> dict[str, Any]:
    # A completion has no place for reasoning: what the model wrote is its text, in order.
    text = "".join(value for kind, value in one.parts if kind in {"text", "reasoning"})
    columns = LogprobColumns(detail, index)
    logprobs = columns.told(one.logprobs, len(one.token_ids))
    return {
        "text": columns.echo() + ("" if detail.only_echoes else text),
        "index": index,
        "logprobs": logprobs if detail.logprobs else None,
        "finish_reason": finish_reason(one.finished),
    }


def finish_reason(finished: generation.GenerationFinished) -> str:
    """Why a completion ended; this API knows no calls."""
    return "length" if finished.reason == generation.FINISH_REASON_MAX_TOKENS else "stop"


class LogprobColumns:
    """Words the log probabilities of one choice, and the echo of its prompt, piece by piece."""

    def __init__(self, detail: CompletionDetail, choice: int) -> None:
        self._detail = detail
        self._prompt = detail.prompts[choice] if detail.echo else ""
        self._offset = 0
        self._echoed = ""

    def echo(self) -> str:
        """The prompt, where it is told: as it was sent, or by its tokens."""
        return self._echoed if self._prompt is None else self._prompt

    def told(self, logprobs: Sequence[generation.TokenLogprob], outputs: int) -> dict[str, Any]:
        """`logprobs` in the API's columns.

        Args:
            logprobs: one per token; the prompt's own come first, where there are any.
            outputs: how many of them are not the prompt's.
        """
        own = max(0, len(logprobs) - outputs)
        tokens = [_token(one) for one in logprobs]
        if own:
            self._read_prompt(tokens, own)
        kept = own if self._detail.only_echoes else len(tokens)
        tokens = tokens[:kept]
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        # Nothing comes before the prompt's first token: it has no probability.
        first = 1 if own else 0
        missing: list[None] = [None] * first
        return {
            "tokens": tokens,
            "token_logprobs": missing + [one.logprob for one in logprobs[first:kept]],
            "top_logprobs": missing + [_rivals(one) for one in logprobs[first:kept]],
            "text_offset": offsets,
        }

    def _read_prompt(self, tokens: list[str], own: int) -> None:
        """Words the prompt's first token so that all of them join to the text that was sent.

        A control token that the model wants before every prompt, for one, has no part in it.
        """
        rest = "".join(tokens[1:own])
        if self._prompt is not None and self._prompt.endswith(rest):
            tokens[0] = self._prompt.removesuffix(rest)
        self._echoed = tokens[0] + rest


def _rivals(one: generation.TokenLogprob) -> dict[str, float]:
    return {_token(other): other.logprob for other in one.alternatives}


def _token(one: generation.TokenLogprob) -> str:
    """The token's text; half a character by its bytes in hex, behind `bytes:`."""
    try:
        return one.text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in one.text)
