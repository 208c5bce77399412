"""The headers that tell a client how its limits stand, as the SDKs of each API read them.

Sources: OpenAI's guide on rate limits (`x-ratelimit-limit-requests` and so on, times as Go writes
durations); Anthropic's page on rate limits (`anthropic-ratelimit-requests-limit` and so on, times
as RFC 3339).
"""

from __future__ import annotations

import datetime as dt
import math
import time

from services.gateway.limits.account import Account, Header, WordedHeaders
from services.gateway.limits.allowance import Allowance

Headers = list[Header]


def limit_headers(account: Account, dialect: str) -> Headers:
    """How the limits on requests and on tokens stand; of several, the one with the least left.

    Args:
        account: of the principal that asked.
        dialect: name of the dialect or look-up.
    """
    now = time.time()
    until, worded_for, fixed, lefts = account.worded
    if now >= until or worded_for != dialect:
        account.worded = _worded(account, now, dialect)
        until, worded_for, fixed, lefts = account.worded
    headers = [*fixed]
    for name, one in lefts:
        left = one.granted - one.used - one.reserved + one.left_elsewhere
        headers.append((name, b"%d" % left if left > 0 else b"0"))
    return headers


def _worded(account: Account, now: float, dialect: str) -> WordedHeaders:
    is_anthropic = dialect.startswith("anthropic")
    fixed: Headers = []
    lefts: list[tuple[bytes, Allowance]] = []
    for found, name in ((account.open.requests, b"requests"), (account.open.tokens, b"tokens")):
        if not found:
            continue
        tightest = min(found, key=lambda one: one.left)
        limit, ends_at = b"%d" % tightest.limit, tightest.window.ends_at
        if is_anthropic:
            start = b"anthropic-ratelimit-" + name
            reset = dt.datetime.fromtimestamp(ends_at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            fixed += [(start + b"-limit", limit), (start + b"-reset", reset.encode())]
            lefts.append((start + b"-remaining", tightest))
        else:
            fixed.append((b"x-ratelimit-limit-" + name, limit))
            fixed.append((b"x-ratelimit-reset-" + name, _duration(ends_at - now)))
            lefts.append((b"x-ratelimit-remaining-" + name, tightest))
    return WordedHeaders(math.floor(now) + 1.0, dialect, fixed, lefts)


def _duration(seconds: float) -> bytes:
    """As Go writes it: `6m0s`."""
    whole = max(0, math.ceil(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    words = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{words}{whole % 60}s".encode()
