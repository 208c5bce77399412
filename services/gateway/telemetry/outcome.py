"""What is counted of one request."""

from __future__ import annotations

from typing import Final

import msgspec

from services.backplane.errors import Reason

# Requests for models that do not exist must not make series of their own.
UNKNOWN_MODEL: Final = "unknown"


class RequestOutcome(msgspec.Struct):
    """What is counted of one request at its end. Times in seconds; 0: it did not come to that.

    Attributes:
        dialect: name of the dialect or look-up.
        status: HTTP status; 499 where the client has left.
        reason: why it failed; None where it did not.
        seconds: from its head to the end of its answer.
        model: the model that served it.
        completion_tokens: of each choice that was completed.
        finish_reasons: likewise, the words of the log.
    """

    dialect: str
    status: int
    reason: Reason | None
    seconds: float
    model: str = UNKNOWN_MODEL
    first_token_seconds: float = 0.0
    first_visible_seconds: float = 0.0
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    completion_tokens: list[int] = []
    finish_reasons: list[str] = []
