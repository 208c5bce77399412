"""Estimates the seconds that a prompt would take on each instance, before any of them is asked."""

from __future__ import annotations

import itertools
import operator
from typing import Final

from services.gateway.routing.candidates import Replicas
from services.gateway.routing.holdings import UNTAUGHT, HeldPrefix, Holders, Holdings
from services.gateway.routing.homes import Found
from services.gateway.routing.prefix import Trail

_NOBODY: Final[Holders] = {}
_NOTHING: Final = HeldPrefix(0)


def costs(replicas: Replicas, trail: Trail, found: Found, holdings: Holdings) -> list[float]:
    """Estimated seconds until the first token on each instance, in the order of `replicas.names`.

    The prompt's tokens that have to be read, the seconds to restore those that were saved, and each
    request that is there for as long as it keeps others from a place. What is in the caches:

    1. Of beginnings that neurons tell of, the longest counts, and where several have it, for each
       of them. So does a longer one that was sent somewhere: its neuron is about to tell.
    2. All others have what comes before the first user turn, where they tell so.
    3. No more is expected than earlier answers of the model have made good.

    Args:
        replicas: the instances of the model.
        trail: digests of the prompt.
        found: who has its longest beginning, see `Homes.find`.
        holdings: what neurons tell.
    """
    home, holders, turns = found
    learned = holdings.learned.get(trail.whose, UNTAUGHT)
    tokens, reused = trail.size_bytes * learned.tokens_per_byte, learned.reused
    speeds, places = holdings.speeds_of(replicas), replicas.places
    per_token = speeds.per_token
    # First as if they all had nothing; then what they have is taken away.
    waits = map(operator.mul, replicas.work, speeds.per_request)
    made = list(map(operator.add, waits, map(operator.mul, itertools.repeat(tokens), per_token)))
    for name, (held, restore) in holdings.told.get(trail.head, _NOBODY).items():
        place = places.get(name)
        if place is not None and name != home and (holders is None or name not in holders):
            made[place] += restore - min(tokens, held) * reused * per_token[place]
    if holders is not None:
        for name, (held, restore) in holders.items():
            place = places.get(name)
            if place is not None:
                made[place] += restore - min(tokens, held) * reused * per_token[place]
    elif home in places:
        place = places[home]
        made[place] -= tokens * turns / len(trail.turns) * reused * per_token[place]
    return made


def is_surely_cheapest(
    home: int, least: int, *, replicas: Replicas, trail: Trail, found: Found, holdings: Holdings
) -> bool:
    """True where no instance can cost less than the one that alone has the longest beginning.

    Found without looking at the others: they are taken to be as fast as the fastest, as busy as
    the least busy, and to have what comes before the first user turn.

    Args:
        home: its place.
        least: requests at the least busy one.
        replicas: the instances of the model.
        trail: digests of the prompt.
        found: who has its longest beginning.
        holdings: what neurons tell.
    """
    name, holders, turns = found
    assert name is not None
    learned = holdings.learned.get(trail.whose, UNTAUGHT)
    tokens, reused = trail.size_bytes * learned.tokens_per_byte, learned.reused
    speeds = holdings.speeds_of(replicas)
    if holders is None:
        cached, restore = tokens * turns / len(trail.turns), 0.0
    else:
        cached, restore = holders[name]
    cost = replicas.work[home] * speeds.per_request[home] + restore
    cost += (tokens - min(tokens, cached) * reused) * speeds.per_token[home]
    head = next(iter(holdings.told.get(trail.head, _NOBODY).values()), _NOTHING)
    unread = tokens - min(tokens, head.tokens) * reused
    return cost <= least * speeds.least_per_request + unread * speeds.least_per_token
