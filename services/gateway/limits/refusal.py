"""How a request is refused that a limit does not let through."""

from __future__ import annotations

import math
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.gateway.limits.allowance import Allowance, Meter
from services.gateway.limits.windows import Period

# Generations end at any time.
_STREAM_SECONDS: Final = 1.0
_NAMES: Final = {
    Meter.REQUESTS: "requests",
    Meter.TOKENS: "tokens",
    Meter.STREAMS: "generations at one time",
    Meter.GPU_MILLISECONDS: "GPU seconds",
}
_FIELDS: Final = {
    Meter.REQUESTS: "requests_per",
    Meter.TOKENS: "tokens_per",
    Meter.GPU_MILLISECONDS: "gpu_seconds_per",
}


def field_of(allowance: Allowance) -> str:
    """The name of the limit, as settings have it."""
    if allowance.meter is Meter.STREAMS:
        return "concurrent_streams"
    return f"{_FIELDS[allowance.meter]}_{allowance.period.value}"


def refusal(allowance: Allowance, needed: int, now: float) -> FleetError:
    """The error for a request that needs more than a limit has left; says when to retry.

    Budgets of a day or a month are QUOTA_EXHAUSTED, all other limits RATE_LIMITED. What needs more
    than the whole limit is told so, and not to come again.
    """
    field, unit = field_of(allowance), _NAMES[allowance.meter]
    limit, left, wanted = (
        _worded(allowance, count) for count in (allowance.limit, allowance.left, needed)
    )
    facts = {"limit": limit, "left": left, "limited_by": field, "needed": wanted}
    seconds = _STREAM_SECONDS
    if allowance.period is not Period.ALWAYS:
        seconds = max(0.0, allowance.window.ends_at - now)
    told = f"limit {limit} {unit}, left {left}, needed {wanted}"
    if needed > allowance.limit:
        message = f"This request needs more than {field} allows at all: {told}."
        return FleetError(_reason(allowance), message, facts=facts | {"never": "true"})
    head = "Rate limit reached"
    if _reason(allowance) is Reason.QUOTA_EXHAUSTED:
        head = "The budget is exhausted"
    message = f"{head} ({field}): {told}. Please try again in {math.ceil(seconds)}s."
    return FleetError(_reason(allowance), message, retry_after_seconds=seconds, facts=facts)


def _worded(allowance: Allowance, count: int) -> str:
    return f"{count / 1000:g}" if allowance.meter is Meter.GPU_MILLISECONDS else str(count)


def _reason(allowance: Allowance) -> Reason:
    if allowance.period in {Period.DAY, Period.MONTH}:
        return Reason.QUOTA_EXHAUSTED
    return Reason.RATE_LIMITED
