"""The allowances of one principal: which of them are open now, and whether a request fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from services.gateway.limits.allowance import Allowance, Meter
from services.gateway.limits.settings import KeyLimits
from services.gateway.limits.windows import Period, window_at

_FIELDS: Final[Sequence[tuple[str, Meter, Period, int]]] = (
    ("requests_per_minute", Meter.REQUESTS, Period.MINUTE, 1),
    ("tokens_per_minute", Meter.TOKENS, Period.MINUTE, 1),
    ("concurrent_streams", Meter.STREAMS, Period.ALWAYS, 1),
    ("tokens_per_day", Meter.TOKENS, Period.DAY, 1),
    ("tokens_per_month", Meter.TOKENS, Period.MONTH, 1),
    ("gpu_seconds_per_day", Meter.GPU_MILLISECONDS, Period.DAY, 1000),
    ("gpu_seconds_per_month", Meter.GPU_MILLISECONDS, Period.MONTH, 1000),
)
# A request holds its account while its body comes, and has long ended then.
_IDLE_SECONDS: Final = 3600.0
# Limits without a window are looked at as often.
_LOOK_SECONDS: Final = 3600.0
Opener = Callable[[Allowance], None]
Header = tuple[bytes, bytes]


class WordedHeaders(NamedTuple):
    """The rate-limit headers of a principal, prepared for a second; only the amounts left change.

    Attributes:
        until: when they are worded anew, seconds since the epoch.
        dialect: in whose words.
        fixed: limits and times.
        lefts: the names under which it is told what is left, and of which.
    """

    until: float
    dialect: str
    fixed: Sequence[Header]
    lefts: Sequence[tuple[bytes, Allowance]]


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What a request is expected to use of each limit.

    Attributes:
        requests: that it counts as.
        streams: generations that it runs at one time.
        tokens: of its prompts, and of its answers where they are stated.
        unstated_tokens: reserved besides for answers of which no length is stated.
        device_milliseconds: of the devices' time, of which a client states nothing.
    """

    requests: int = 1
    streams: int = 0
    tokens: int = 0
    unstated_tokens: int = 0
    device_milliseconds: int = 0


class OpenAllowances(NamedTuple):
    """The allowances of the windows that are open, by what they count."""

    requests: tuple[Allowance, ...]
    tokens: tuple[Allowance, ...]
    streams: tuple[Allowance, ...]
    devices: tuple[Allowance, ...]


class Account:
    """One principal's limits, and the allowances of the windows that are open.

    Args:
        principal: whose.
        limits: as its key has them; another object means other limits.
        opened: is told of every new allowance, and grants what is at hand.
        now: seconds since the epoch.

    Attributes:
        allowances: of the windows that are open.
        open: the same by what they count; another tuple whenever there are others.
        turns_at: when its windows are looked at again, the next one at its beginning; seconds
            since the epoch.
        worded: the headers that tell of them, as far as they stay the same for a second.
    """

    __slots__ = (
        "_opened",
        "allowances",
        "limits",
        "open",
        "principal",
        "turns_at",
        "worded",
    )

    def __init__(self, principal: str, limits: KeyLimits, opened: Opener, now: float) -> None:
        self.principal = principal
        self.limits = limits
        self._opened = opened
        self.allowances: tuple[Allowance, ...] = ()
        self.turns_at = 0.0
        self.turn(now)

    def turn(self, now: float) -> None:
        """Opens the allowances of windows that have begun; those that have ended are let go."""
        kept = {(one.meter, one.period): one for one in self.allowances}
        found: list[Allowance] = []
        for field, meter, period, scale in _FIELDS:
            value = getattr(self.limits, field)
            if value is None:
                continue
            window = window_at(period, now)
            known = kept.get((meter, period))
            if known is None or known.window != window:
                limit = round(value * scale)
                known = Allowance(self.principal, meter, period, window=window, limit=limit)
                self._opened(known)
            found.append(known)
        self.allowances = tuple(found)
        self.open = OpenAllowances(
            *(
                tuple(one for one in found if one.meter is meter)
                for meter in (Meter.REQUESTS, Meter.TOKENS, Meter.STREAMS, Meter.GPU_MILLISECONDS)
            )
        )
        self.worded = WordedHeaders(0.0, "", (), ())
        self.turns_at = min((now + _LOOK_SECONDS, *(one.window.ends_at for one in found)))

    def is_over(self, now: float) -> bool:
        """True if the account may be dropped: idle, and a new one would count the same.

        Nothing is reserved in any of its windows, nor used in one that may still be settled.
        """
        return now >= self.turns_at + _IDLE_SECONDS and not any(
            one.reserved or (one.used and now < one.window.ends_at + _IDLE_SECONDS)
            for one in self.allowances
        )

    def follow(self, limits: KeyLimits, now: float) -> None:
        """Takes other limits in; what was used in the windows that are open stays used."""
        self.limits = limits
        self.turn(now)
        for one in self.allowances:
            for field, meter, period, scale in _FIELDS:
                if (one.meter, one.period) == (meter, period):
                    one.limit = round(getattr(limits, field) * scale)
                    self._opened(one)


def amount(allowance: Allowance, cost: Cost) -> int:
    """How much of a request's cost counts against one allowance."""
    meter = allowance.meter
    if meter is Meter.TOKENS:
        return cost.tokens + min(cost.unstated_tokens, allowance.unstated_most)
    if meter is Meter.REQUESTS:
        return cost.requests
    if meter is Meter.STREAMS:
        return cost.streams
    return min(cost.device_milliseconds, allowance.unstated_most)
