"""Lines of requests for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.gateway.telemetry.outcome import RequestOutcome
from services.gateway.telemetry.request_log import RequestLine


def line(**facts: Any) -> RequestLine:
    """A request that went well, and what else is said of it."""
    usual = {
        "event": "request.finished",
        "request_id": "r",
        "dialect": "openai_chat",
        "model": "tiny",
        "stream": True,
        "status": 200,
        "elapsed_ms": 10.0,
        "client_gone": False,
        "timestamp": datetime.now(UTC),
    }
    return RequestLine(**{**usual, **facts})


def outcome(**facts: Any) -> RequestOutcome:
    """How one request came out that went well, and what else is counted of it."""
    usual = {"dialect": "openai_chat", "status": 200, "reason": None, "seconds": [0.01]}
    named = {"model": "tiny", "is_named": True, "requests": 1}
    return RequestOutcome(**{**usual, **named, **facts})
