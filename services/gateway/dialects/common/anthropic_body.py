"""How errors are worded for clients of the Anthropic API."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Head


def wording(error: FleetError) -> str:
    """The error's message; for CONTEXT_TOO_LONG in the words that clients look for."""
    facts = error.facts
    if error.reason is Reason.CONTEXT_TOO_LONG and "max_context_tokens" in facts:
        measured, most = facts.get("prompt_tokens", "?"), facts["max_context_tokens"]
        return f"prompt is too long: {measured} tokens > {most} maximum"
    return error.message


def envelope(error: FleetError, head: Head | None) -> bytes:
    """The body of an error response, and the data of a stream's `error` event."""
    return encode(
        {
            "type": "error",
            "error": {"type": error.reason.row.anthropic_type, "message": wording(error)},
            "request_id": head.request_id if head else None,
        }
    )
