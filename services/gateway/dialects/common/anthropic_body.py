"""What every answer of Anthropic's API may be: the envelope of an error."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Head


def wording(error: FleetError) -> str:
    """The message; too long a prompt in the words that clients of this API look for."""
    facts = error.facts
    if error.reason is Reason.CONTEXT_TOO_LONG and "max_context_tokens" in facts:
        measured, most = facts.get("prompt_tokens", "?"), facts["max_context_tokens"]
        return f"prompt is too long: {measured} tokens > {most} maximum"
    return error.message


def envelope(error: FleetError, head: Head | None) -> bytes:
    """The body of a refused request, and the data of a stream's `error` event."""
    return encode(
        {
            "type": "error",
            "error": {"type": error.reason.row.anthropic_type, "message": wording(error)},
            "request_id": head.request_id if head else None,
        }
    )
