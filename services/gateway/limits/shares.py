"""A share of a limit as this process holds it, and the claim that says so to the registry."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from cortex.v1 import accounting_service_pb2 as pb
from services.gateway.limits.allowance import Allowance, Meter
from services.gateway.limits.windows import Period

SLICES: Final = 16
"""Of a limit, so large a part is kept at hand."""

_METERS: Final = {
    Meter.REQUESTS: pb.METER_REQUESTS,
    Meter.TOKENS: pb.METER_TOKENS,
    Meter.STREAMS: pb.METER_STREAMS,
    Meter.GPU_MILLISECONDS: pb.METER_GPU_MILLISECONDS,
}
_PERIODS: Final = {
    Period.MINUTE: pb.PERIOD_MINUTE,
    Period.DAY: pb.PERIOD_DAY,
    Period.MONTH: pb.PERIOD_MONTH,
    Period.ALWAYS: pb.PERIOD_ALWAYS,
}


class ShareKey(NamedTuple):
    """Identifies one limit of one principal in one window."""

    principal: str
    meter: Meter
    period: Period
    starts_at: int


class HeldShare:
    """A leased share of a limit, and what the registry was last told of it (monotonic times).

    Attributes:
        allowance: as requests use it.
        told: used, reserved, wanted and the limit, as they were told last; None: not yet.
        needed: what somebody waits for.
        lapses_at: until when it is held; 0: it is not.
        answered_at: when the registry was asked last, of the calls that it has answered.
        seen: what was used and reserved when somebody looked last.
        stirred_at: when something was last reserved.
        credit: what may be used besides while the registry is away.
    """

    __slots__ = (
        "allowance",
        "answered_at",
        "credit",
        "lapses_at",
        "last_reserved_at",
        "needed",
        "seen",
        "told",
    )

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.told: tuple[int, int, int, int] | None = None
        self.needed = 0
        self.lapses_at = 0.0
        self.answered_at = -math.inf
        self.last_reserved_at = 0.0
        self.seen = 0
        self.credit = slice_of(allowance)


def slice_of(allowance: Allowance) -> int:
    """How much of a limit is leased in advance."""
    return max(1, allowance.limit // SLICES)


def key_of(allowance: Allowance) -> ShareKey:
    """The identity of an allowance's share."""
    window = allowance.window
    return ShareKey(allowance.principal, allowance.meter, allowance.period, window.starts_at)


def claim_of(key: ShareKey, allowance: Allowance, wanted: int) -> pb.AllowanceClaim:
    """The claim for a share, as it is sent to the registry."""
    ends_at = allowance.window.ends_at
    return pb.AllowanceClaim(
        principal=key.principal,
        meter=_METERS[key.meter],
        period=_PERIODS[key.period],
        window_starts_unix_seconds=key.starts_at,
        window_ends_unix_seconds=0 if math.isinf(ends_at) else int(ends_at),
        limit=allowance.limit,
        used=allowance.used,
        reserved=allowance.reserved,
        wanted=wanted,
    )
