"""Answers of the Ollama API: whole answers, the last line of a stream, errors."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import cut_call, encode, object_of
from services.gateway.dialects.dialect import Collected, DecodedRequest
from services.gateway.dialects.ollama.decode import OllamaDetail


def now() -> str:
    """The time as this API writes it."""
    return dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")


class OllamaAnswer(msgspec.Struct):
    """The fields of a whole answer; it describes what `body` writes."""

    model: str
    created_at: str
    done: bool
    done_reason: str
    message: dict[str, Any] | None = None
    response: str | None = None
    thinking: str | None = None
    logprobs: list[Any] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


def body(decoded: DecodedRequest, choices: Sequence[Collected]) -> bytes:
    """The whole answer."""
    (one,) = choices
    detail: OllamaDetail = decoded.detail
    head: dict[str, Any] = {"model": detail.model, "created_at": now()}
    if detail.only_loads:
        told = payload(detail, text="")
    else:
        calls = one.tool_calls()
        cut = "".join(cut_call(call.name, call.arguments_json) for call in calls if call.is_cut)
        objects = [call_object(call.name, call.arguments_json) for call in calls if not call.is_cut]
        told = payload(detail, text=one.text() + cut, thinking=one.reasoning(), calls=objects)
        if detail.logprobs:
            told["logprobs"] = openai_body.logprob_objects(one.logprobs)
    return encode(head | told | last_fields(decoded, one.finished))


def payload(
    detail: OllamaDetail, *, text: str, thinking: str = "", calls: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The content of a line: a `message` for chats, a `response` for generate."""
    if not detail.chats:
        return {"response": text, **({"thinking": thinking} if thinking else {})}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = list(calls)
    return {"message": message}


def call_object(name: str, arguments_json: str) -> dict[str, Any]:
    """One call, its arguments as an object."""
    return {"function": {"name": name, "arguments": object_of(arguments_json)}}


def last_fields(decoded: DecodedRequest, finished: generation.GenerationFinished) -> dict[str, Any]:
    """The fields of the last line only: why it ended, counts, and durations in nanoseconds."""
    detail: OllamaDetail = decoded.detail
    if detail.only_loads:
        reason = "unload" if decoded.keep_alive_seconds == 0 else "load"
        return {"done": True, "done_reason": reason}
    cut = finished.reason == generation.FINISH_REASON_MAX_TOKENS
    timings, usage = finished.timings, finished.usage
    queued = timings.queued.ToNanoseconds()
    prefill, decode = timings.prefill.ToNanoseconds(), timings.decode.ToNanoseconds()
    return {
        "done": True,
        "done_reason": "length" if cut else "stop",
        "total_duration": queued + prefill + decode,
        "load_duration": queued,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": prefill,
        "eval_count": usage.completion_tokens,
        "eval_duration": decode,
    }


def envelope(error: FleetError) -> bytes:
    """An error, refused or in mid-stream: this API has one flat form for both."""
    message = openai_body.wording(error)
    if error.reason is Reason.MODEL_UNKNOWN and "not found" not in message:
        message += " (model not found)"
    return encode({"error": message})
