"""Lines of requests for tests."""

from __future__ import annotations

from typing import Any

from services.gateway.console.ledger import RequestLedger, SeenRequest
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
    }
    return RequestLine(**{**usual, **facts})


def seen(**facts: Any) -> SeenRequest:
    """The same as the ledger keeps it."""
    kept = RequestLedger().note(line(**facts), facts.get("model", "tiny"))
    assert kept is not None
    return kept
