"""Chooses the instance that serves a request, and settles its conversation there.

The fleet may have changed since the view was made, so that a neuron may refuse what was chosen
here; `dispatch` then chooses again without that instance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from services.gateway.routing import foretell
from services.gateway.routing.candidates import InstanceCandidate, Replicas
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.homes import Homes
from services.gateway.routing.prefix import NO_TRAIL, Trail

HOME_FACTOR: Final = 1.5
"""A home may have so many times the requests of the least busy, and its slack more (see
`Replicas.slack`)."""
_NOTHING_HELD: Final = Holdings()


@dataclasses.dataclass(frozen=True, slots=True)
class NoneServing:
    """No instance can serve now.

    Attributes:
        recovering: one of them restarts by itself, so that waiting is better than loading another.
    """

    recovering: bool


def choose(
    replicas: Replicas,
    homes: Homes,
    *,
    holdings: Holdings = _NOTHING_HELD,
    trail: Callable[[str], Trail] | None = None,
) -> InstanceCandidate | NoneServing:
    """Decides which instance serves a request.

    1. Only instances that are SERVING count. How busy one is: the requests that other gateways had
       there at its neuron's last report, plus this gateway's own that are running now.
    2. What a choice costs, in seconds, by what the neuron has measured of itself: the prompt's
       tokens that are not in the instance's cache, to be read, and the requests that are there,
       each for the time that it keeps others from a place.
    3. What is in a cache: the longest beginning that its neuron tells of, or that this gateway has
       sent there.
    4. An instance that is too busy beside the least busy is not chosen: see `HOME_FACTOR`. A
       conversation that is sent elsewhere has its home there from then on. A home is taken without
       weighing where nobody has fewer requests, or one fewer and the home has a place free.
    5. A conversation that nobody knows goes to the cheaper of the two instances that rendezvous
       hashing finds for it: several gateways look at the same two, and when an instance comes or
       goes, only its own conversations move. It goes to the cheapest of all where both are too busy
       by rule 4.
    6. Of equally good ones the one goes that was chosen least of late.
    7. Where no instance is left, the answer says whether one is RECOVERING.

    Args:
        replicas: the instances of the model, and how busy they are.
        homes: where conversations have been sent; the choice is noted there.
        holdings: what neurons tell of their caches.
        trail: makes the digests of the prompt for a model (see `trail_of`); called only where there
            is a choice. None: there is no conversation.

    Returns:
        The instance, or that there is none.
    """
    serving = replicas.serving
    if len(serving) < 2:  # noqa: PLR2004 - no choice
        return serving[0] if serving else NoneServing(replicas.is_recovering)
    beginnings = NO_TRAIL if trail is None else trail(replicas.model)
    home, _, known = found = homes.find(beginnings, holdings.told)
    work = replicas.work
    least = min(work)
    place = None if home is None else replicas.places.get(home)
    if place is None or (
        work[place] > least
        and (work[place] > least + 1 or work[place] >= replicas.room[place])
        and (
            work[place] > least * HOME_FACTOR + replicas.slack[place]
            or not foretell.is_surely_cheapest(
                place, least, replicas=replicas, trail=beginnings, found=found, holdings=holdings
            )
        )
    ):
        costs = foretell.costs(replicas, beginnings, found, holdings)
        two = replicas.two_for(beginnings.turns[0]) if beginnings.turns and not known else ()
        place = _cheapest(replicas, costs, two, homes)
    homes.settle(beginnings, found, replicas.names[place])
    return serving[place]


def _cheapest(replicas: Replicas, costs: list[float], two: Sequence[int], homes: Homes) -> int:
    """The best of those that are not too busy: rules 4 to 6 of `choose`. Returns: its place."""
    work, slack = replicas.work, replicas.slack
    most = min(work) * HOME_FACTOR
    if not two:
        lowest = min(costs)
        place = costs.index(lowest)
        if work[place] <= most + slack[place] and costs.count(lowest) == 1:
            return place
    fit = [place for place, busy in enumerate(work) if busy <= most + slack[place]]
    if two:
        fit = [place for place in two if place in fit] or fit
    lowest = min([costs[place] for place in fit])
    equal = [place for place in fit if costs[place] == lowest]
    return equal[0] if len(equal) == 1 else homes.least_chosen(replicas.names, equal)
