"""The response object, in every state from queued to failed.

It has every field of the Open Responses specification, null where nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.dialect import DecodedRequest, Head
from services.gateway.dialects.openai_responses.decode import ResponseDetail
from services.gateway.dialects.openai_responses.fields import ResponsesRequest


class ResponseAnswer(msgspec.Struct):
    """The fields of a response that readers need; it describes what `Resource` makes."""

    id: str
    object: str
    created_at: int
    completed_at: int | None
    status: str
    background: bool
    error: dict[str, Any] | None
    incomplete_details: dict[str, str] | None
    model: str
    output: list[dict[str, Any]]
    previous_response_id: str | None
    tools: list[dict[str, Any]]
    usage: dict[str, Any] | None


class Resource:
    """Makes the object of one response in each of its states."""

    def __init__(self, decoded: DecodedRequest, head: Head) -> None:
        detail: ResponseDetail = decoded.detail
        wire = detail.wire
        self._base: dict[str, Any] = {
            "id": detail.response_id,
            "object": "response",
            "created_at": head.created_unix_seconds,
            "completed_at": None,
            "status": "in_progress",
            "background": bool(wire.background),
            "error": None,
            "incomplete_details": None,
            "instructions": wire.instructions,
            "max_output_tokens": wire.max_output_tokens,
            "max_tool_calls": wire.max_tool_calls,
            "model": decoded.model,
            "output": [],
            "parallel_tool_calls": wire.parallel_tool_calls is not False,
            "previous_response_id": wire.previous_response_id,
            "prompt_cache_key": wire.prompt_cache_key,
            "reasoning": _reasoning(wire),
            "safety_identifier": wire.safety_identifier,
            "service_tier": "default",
            "store": detail.stores,
            "text": _text(wire),
            "tool_choice": wire.tool_choice if wire.tool_choice is not None else "auto",
            "tools": [_tool(one) for one in wire.tools or ()],
            "truncation": wire.truncation or "disabled",
            "usage": None,
            "metadata": wire.metadata or {},
            **_sampling(wire),
        }
        if wire.user is not None:
            self._base["user"] = wire.user

    def snapshot(self, status: str, output: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """The response while it is queued or runs."""
        return self._base | {"status": status, "output": list(output)}

    def finished(
        self,
        output: Sequence[dict[str, Any]],
        finished: generation.GenerationFinished,
        *,
        completed_at: int,
    ) -> dict[str, Any]:
        """The response when the model has ended: completed, or incomplete at its limit."""
        cut = is_cut(finished)
        return self._base | {
            "status": "incomplete" if cut else "completed",
            "completed_at": None if cut else completed_at,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": list(output),
            "usage": usage_object(finished.usage),
        }

    def failed(self, output: Sequence[dict[str, Any]], error: FleetError) -> dict[str, Any]:
        """The response after an error."""
        return self._base | {
            "status": "failed",
            "output": list(output),
            "error": {"code": error_code(error), "message": openai_body.wording(error)},
        }


def is_cut(finished: generation.GenerationFinished) -> bool:
    """True if the answer ended at its token limit."""
    return finished.reason == generation.FINISH_REASON_MAX_TOKENS


def usage_object(usage: generation.Usage) -> dict[str, Any]:
    """The `usage` object of this API."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_prompt_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_code(error: FleetError) -> str:
    """The API's error code; agents decide by it whether to try again."""
    if error.reason.row.http == Reason.RATE_LIMITED.row.http:
        return "rate_limit_exceeded"
    if error.reason is Reason.CONTEXT_TOO_LONG:
        return "context_length_exceeded"
    return "server_error"


def _reasoning(wire: ResponsesRequest) -> dict[str, Any]:
    wish = wire.reasoning
    return {
        "effort": wish.effort if wish else None,
        "summary": (wish.summary or wish.generate_summary) if wish else None,
    }


def _text(wire: ResponsesRequest) -> dict[str, Any]:
    wish = wire.text.format if wire.text else None
    shape: dict[str, Any] = {"type": "text"}
    if wish is not None and wish.type == "json_schema":
        shape = {
            "type": "json_schema",
            "name": wish.name or "response",
            "description": wish.description,
            "schema": msgspec.json.decode(wish.schema) if bytes(wish.schema) else {},
            "strict": bool(wish.strict),
        }
    elif wish is not None:
        shape = {"type": wish.type}
    verbosity = (wire.text.verbosity if wire.text else None) or "medium"
    return {"format": shape, "verbosity": verbosity}


def _tool(one: dict[str, Any]) -> dict[str, Any]:
    """A tool as it was sent; a function with all of its fields."""
    if one.get("type") != "function":
        return one
    inner = one.get("function")
    fields: dict[str, Any] = inner if isinstance(inner, dict) else one
    return {
        "type": "function",
        "name": fields.get("name"),
        "description": fields.get("description"),
        "parameters": fields.get("parameters"),
        "strict": bool(fields.get("strict")),
    }


def _sampling(wire: ResponsesRequest) -> dict[str, Any]:
    """The knobs as they were sent; the API's own defaults stand for those that were not."""
    return {
        "temperature": 1.0 if wire.temperature is None else wire.temperature,
        "top_p": 1.0 if wire.top_p is None else wire.top_p,
        "presence_penalty": wire.presence_penalty or 0.0,
        "frequency_penalty": wire.frequency_penalty or 0.0,
        "top_logprobs": wire.top_logprobs or 0,
    }
