"""How the fleet and other servers are asked one after the other, whatever they are asked for.

The rules are those of `Destinations`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.backplane.errors import FleetError, Reason, Retry
from services.gateway.routing.upstreams.unserved import is_unable, is_unserved, is_untouched
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.transports.upstream.upstream import Upstream

T = TypeVar("T")


def _ignore(_error: FleetError) -> None:
    """Nobody is told."""


async def here_or_there(
    here: Awaitable[T],
    serving: Callable[[], Sequence[Upstream]],
    ask: Callable[[Upstream], Awaitable[T]],
    *,
    sinks: Sequence[ChoiceSink] = (),
    on_unserved: Callable[[FleetError], None] = _ignore,
) -> T:
    """Asks the fleet, and where it does not know the model or cannot serve it, the upstreams.

    Args:
        here: asks the fleet.
        serving: the upstreams that may answer then.
        ask: asks one of them.
        sinks: take the answer, where it comes bit by bit.
        on_unserved: told why the fleet cannot serve a model that it knows.

    Raises:
        FleetError: of whoever was asked last. Where an upstream cannot do what was asked for, and
            the fleet knows the model, why the fleet does not serve it.
    """
    try:
        return await here
    except FleetError as error:
        is_unknown = error.reason is Reason.MODEL_UNKNOWN
        left = serving() if is_unknown or is_unserved(error, sinks) else ()
        if not left:
            raise
        if not is_unknown:
            on_unserved(error)
        try:
            return await first_able(left, ask, sinks=sinks)
        except FleetError as other:
            if is_unable(other) and not is_unknown:
                raise error from other
            raise


async def first_able(
    serving: Sequence[Upstream],
    ask: Callable[[Upstream], Awaitable[T]],
    *,
    sinks: Sequence[ChoiceSink] = (),
) -> T:
    """Asks one upstream after the other, as long as nothing of an answer has come.

    Args:
        serving: at least one.
        ask: asks one of them.
        sinks: take the answer, where it comes bit by bit.

    Raises:
        FleetError: of the last that was asked.
    """
    for upstream in serving[:-1]:
        try:
            return await ask(upstream)
        except FleetError as error:
            may_another = error.reason.row.retry is Retry.ELSEWHERE or is_unable(error)
            if not (may_another and is_untouched(sinks)):
                raise
    return await ask(serving[-1])
