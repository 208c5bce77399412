"""Chooses the instance that serves a request, and settles its conversation there.

The fleet may have changed since the view was made, so that a neuron may refuse what was chosen
here; `dispatch` then chooses again without that instance.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from services.gateway.routing.homes import Homes
from services.gateway.routing.prefix import Trail

HOME_FACTOR: Final = 1.5
MOST_HOME_SLACK: Final = 4
"""A home may have `HOME_FACTOR` times the requests of the least busy, and half of its own places
more, at least one and at most so many."""
_MASK: Final = (1 << 64) - 1


class Availability(enum.Enum):
    """Whether requests may be sent to an instance, as far as the fleet knows."""

    SERVING = "serving"
    RECOVERING = "recovering"
    """Its worker died and restarts by itself: waited for, no second instance is loaded."""
    UNUSABLE = "unusable"
    """Loading, draining, failed, squeezed, made of an outdated entry, or on a lost neuron."""


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceCandidate:
    """One instance of the wanted model.

    Attributes:
        instance_id: unique in the fleet.
        model: the model's own name, never an alias.
        neuron: name of the neuron that runs it.
        address: where that neuron's gRPC server listens.
        availability: whether it may be sent requests.
        foreign_requests: requests of other gateways there, running and queued, as of the last
            report.
        report: incarnation of the neuron and number of its last report; equal values: no news.
        max_context_tokens: most tokens of prompt and answer together; 0: not known.
        places: most requests that it runs side by side; 0: not known.
        resumes: its neuron can go on behind tokens that another one has made.
    """

    instance_id: str
    model: str
    neuron: str
    address: str
    availability: Availability
    foreign_requests: int = 0
    report: tuple[str, int] = ("", 0)
    max_context_tokens: int = 0
    places: int = 0
    resumes: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class NoneServing:
    """No instance can serve now.

    Attributes:
        recovering: one of them restarts by itself, so that waiting is better than loading another.
    """

    recovering: bool


def choose(
    candidates: Sequence[InstanceCandidate],
    outstanding: Mapping[str, int],
    homes: Homes,
    *,
    excluded: Collection[str] = (),
    trail: Callable[[], Trail] | None = None,
) -> InstanceCandidate | NoneServing:
    """Decides which instance serves a request.

    1. Only instances that are SERVING count, and of those only the ones not excluded. How busy one
       is: the requests that other gateways had there at its neuron's last report, plus this
       gateway's own that are running now.
    2. A conversation goes home: to the instance that was last sent the longest beginning of it that
       is known, and so has it in its cache.
    3. It leaves its home for good where that is too busy beside the least busy: see `HOME_FACTOR`.
    4. A conversation that has no home, or leaves it, goes to the less busy of the two instances
       that rendezvous hashing finds for it: several gateways look at the same two, and when an
       instance comes or goes, only its own conversations move. It goes to the least busy of all
       where both are too busy by rule 3.
    5. A request without a conversation goes to the least busy.
    6. Of equally busy ones the one goes that was chosen least of late.
    7. Where no instance is left, the answer says whether one is RECOVERING.

    Args:
        candidates: every instance of the model, in any order.
        outstanding: this gateway's own running requests per instance id.
        homes: where conversations have been sent; the choice is noted there.
        excluded: ids of instances that have failed this request (see `RetryState.excluded`).
        trail: makes the digests of the prompt (see `trail_of`); called only where there is a
            choice. None: there is no conversation.

    Returns:
        The instance, or that there is none.
    """
    serving: list[InstanceCandidate] = []
    work: list[int] = []
    recovering = False
    for candidate in candidates:
        instance_id = candidate.instance_id
        if candidate.availability is Availability.SERVING and instance_id not in excluded:
            serving.append(candidate)
            work.append(candidate.foreign_requests + outstanding.get(instance_id, 0))
        elif candidate.availability is Availability.RECOVERING:
            recovering = True
    if not serving:
        return NoneServing(recovering)
    if len(serving) == 1:
        return serving[0]
    least = min(work)
    beginnings = [] if trail is None else trail()
    home = homes.home(beginnings)
    chosen = _at_home(serving, work, home, least)
    if chosen is None:
        chosen = _newcomer(serving, work, beginnings, least, homes.lately)
    homes.settle(beginnings, chosen.instance_id)
    homes.count(chosen.instance_id)
    return chosen


def _at_home(
    serving: Sequence[InstanceCandidate], work: Sequence[int], home: str | None, least: int
) -> InstanceCandidate | None:
    if home is None:
        return None
    for candidate, busy in zip(serving, work, strict=True):
        if candidate.instance_id == home:
            return candidate if busy <= _limit(candidate, least) else None
    return None


def _newcomer(
    serving: Sequence[InstanceCandidate],
    work: Sequence[int],
    beginnings: Trail,
    least: int,
    lately: Mapping[str, float],
) -> InstanceCandidate:
    def rank(index: int) -> tuple[int, float, str]:
        name = serving[index].instance_id
        return work[index], lately.get(name, 0.0), name

    if beginnings:
        beginning = int.from_bytes(beginnings[0][:8], "little")
        affinities = [_affinity(beginning, candidate.instance_id) for candidate in serving]
        two = sorted(range(len(serving)), key=affinities.__getitem__)[-2:]
        found = min(two, key=rank)
        if work[found] <= _limit(serving[found], least):
            return serving[found]
    return serving[min(range(len(serving)), key=rank)]


def _limit(candidate: InstanceCandidate, least: int) -> float:
    """Most requests that it may have to be preferred to the least busy, which has `least`."""
    slack = candidate.places // 2
    return least * HOME_FACTOR + min(max(slack, 1), MOST_HOME_SLACK)


def _affinity(beginning: int, instance_id: str) -> int:
    """Rendezvous hashing: a number for a conversation on an instance, the same in all gateways."""
    mixed = ((beginning ^ _seed(instance_id)) * 0x9E3779B97F4A7C15) & _MASK
    return mixed ^ (mixed >> 32)


@functools.lru_cache(maxsize=4096)
def _seed(instance_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(instance_id.encode(), digest_size=8).digest(), "little")
