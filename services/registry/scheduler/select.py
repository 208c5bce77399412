"""Where a model should go: values in, values out.

`evaluate.examine` looks at one neuron; `decide` and `explain` both use it, so that what is
explained is what would be done. `decide` looks only as far as the answer needs: of ten thousand
neurons it examines those that could still be better than the best so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from services.registry.scheduler.clearing import last_victim_bound
from services.registry.scheduler.evaluate import (
    ON_THE_HOST,
    WHOLE_ON_GPUS,
    examine,
    free_bound,
    free_fit,
)
from services.registry.scheduler.eviction import EvictionOrder, Incoming, may_go_now
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import NeuronInfo
from services.registry.scheduler.request import (
    PlacementCandidate,
    PlacementDecision,
    PlacementOutcome,
    PlacementRequest,
)

# Neurons that cannot take the model now and are examined all the same, for their reasons.
_REASONS: Final = 16

# What plans are ranked by: outcome, wishes met, whether something drains, the dearest victim.
_Key: TypeAlias = tuple[object, ...]


def decide(request: PlacementRequest, index: NeuronIndex) -> PlacementDecision:
    """The best neuron for a model.

    Wishes are preferred labels, less models that it should not be beside (`wishes_met`).

    1. If the request names a neuron, only that one is looked at.
    2. A neuron with free room outranks any eviction. Among those: most wishes met, then the files
       on its disk, then whole on GPUs before divided before the CPU, then most of the files
       in its page cache, then least work, then most free memory, then the name.
    3. Else a neuron where room is made: without a drain before with one, then most wishes
       met, then the one whose dearest victim is missed least, then fewest victims, then most of
       the files in its page cache.
    4. Else nothing can be done now: the decision says whether waiting helps, and until when, with
       the reasons of several neurons.

    Args:
        request: what is to be placed.
        index: all neurons, sorted by the strategy of the request.
    """
    if request.only_neuron:
        return _decide_one(request, index)
    best = _best_free_fit(request, index) or _best_after_eviction(request, index)
    if best is not None:
        return PlacementDecision(best.outcome, best, (best,))
    return _least_bad(request, index)


def explain(request: PlacementRequest, neuron_infos: Iterable[NeuronInfo]) -> PlacementDecision:
    """Like `decide`, but looks at every neuron; candidates come in order of preference."""
    return _judge([examine(request, neuron_info) for neuron_info in neuron_infos], None)


def _decide_one(request: PlacementRequest, index: NeuronIndex) -> PlacementDecision:
    neuron_info = index.get(request.only_neuron)
    if neuron_info is None:
        return explain(request, index)
    return _judge([examine(request, neuron_info)], _first_end(request, index))


def _best_free_fit(request: PlacementRequest, index: NeuronIndex) -> PlacementCandidate | None:
    """The neuron with free room that ranks first.

    Those with some of the files in their memory come first. Of the others the least busy do; once
    the best has all that may come before that, no other is better.
    """
    profile, kind = request.profile, request.kind
    is_stored = index.has_stored(profile.model, profile.terms.source)
    has_gpu = kind != "cpu" and (index.has_room("cuda") or index.has_room("gpu"))
    speed = WHOLE_ON_GPUS if has_gpu else ON_THE_HOST
    ideal = (-len(profile.affinity), not is_stored, speed)
    best: PlacementCandidate | None = None
    names = {profile.model, profile.terms.source}
    for share, work, free, neuron_info in index.resident(kind, request.least_bytes, *names):
        if best is not None and best.rank < (*ideal, -share, work, -free, neuron_info.neuron):
            return best
        best = _better_fit(request, neuron_info, best)
    for work, free, neuron_info in index.with_room(kind, request.least_bytes):
        if best is not None and best.rank < (*ideal, 0.0, work, -free, neuron_info.neuron):
            break
        best = _better_fit(request, neuron_info, best)
    return best


def _better_fit(
    request: PlacementRequest, neuron_info: NeuronInfo, best: PlacementCandidate | None
) -> PlacementCandidate | None:
    """The neuron where it has free room and ranks before the best so far; else that."""
    bound = free_bound(request, neuron_info)
    if bound is None or (best is not None and best.rank <= bound):
        return best
    candidate = free_fit(request, neuron_info)
    if candidate is not None and (best is None or candidate.rank < best.rank):
        return candidate
    return best


def _best_after_eviction(
    request: PlacementRequest, index: NeuronIndex
) -> PlacementCandidate | None:
    """The neuron whose dearest victim is missed least, by branch and bound.

    No plan can be better than the neuron's first victim alone. Neurons come in the order of those;
    once not even one that meets all wishes could beat the best plan, the rest cannot.
    """
    incoming, profile = request.incoming, request.profile
    best: PlacementCandidate | None = None
    for first, neuron_info in _in_turn(index, incoming):
        if best is not None and _key(best) < _bound(len(profile.affinity), first):
            # useless instances come before idle ones even where they are busy
            if first.is_useful or not first.is_busy:
                break
            continue
        if not _takes(request, neuron_info):
            continue
        least = last_victim_bound(request, incoming, neuron_info, first)
        if least is None:
            continue
        if best is None or _bound(neuron_info.wishes_met(profile), least) <= _key(best):
            candidate = examine(request, neuron_info)
            if candidate.outcome <= PlacementOutcome.DRAIN and (
                best is None or _is_better(candidate, best)
            ):
                best = candidate
    return best


def _in_turn(index: NeuronIndex, incoming: Incoming) -> Iterator[tuple[EvictionOrder, NeuronInfo]]:
    """Each neuron where something may be evicted now, with the turn of its first instance."""
    seen: set[str] = set()
    for turn, neuron_info, instance in index.in_turn(incoming):
        if turn.is_useful and turn.is_busy and not incoming.may_drain:
            return  # so are all that follow
        if neuron_info.neuron not in seen and may_go_now(instance, incoming):
            seen.add(neuron_info.neuron)
            yield turn, neuron_info


def _bound(wishes: int, turn: EvictionOrder) -> _Key:
    """The best rank that a plan can have."""
    outcome = PlacementOutcome.DRAIN if turn.is_busy else PlacementOutcome.EVICT
    return (outcome, -wishes, int(turn.is_busy), turn)


def _key(candidate: PlacementCandidate) -> _Key:
    return (candidate.outcome, *candidate.rank[:3])


def _is_better(one: PlacementCandidate, other: PlacementCandidate) -> bool:
    return (one.outcome, one.rank) < (other.outcome, other.rank)


def _takes(request: PlacementRequest, neuron_info: NeuronInfo) -> bool:
    """True if the neuron may take something now, and could take this model."""
    return (
        not neuron_info.refusal
        and neuron_info.neuron not in request.avoided
        and request.is_possible(neuron_info)
    )


def _least_bad(request: PlacementRequest, index: NeuronIndex) -> PlacementDecision:
    """Nothing placeable: examines up to 16 neurons, more until one can wait, for their reasons."""
    candidates: list[PlacementCandidate] = []
    is_hopeful = False
    for neuron_info in _able(request, index):
        if is_hopeful and len(candidates) >= _REASONS:
            break
        candidates.append(examine(request, neuron_info))
        is_hopeful |= candidates[-1].outcome is PlacementOutcome.WAIT
    if not candidates:  # the reasons of all are wanted
        return explain(request, index)
    return _judge(candidates, _first_end(request, index))


def _able(request: PlacementRequest, index: NeuronIndex) -> Iterator[NeuronInfo]:
    """Neurons where the model could ever run; those that take nothing for now come last."""
    refusing: list[NeuronInfo] = []
    for neuron_info in index:
        if neuron_info.is_known and not request.is_possible(neuron_info):
            continue
        if neuron_info.refusal or neuron_info.neuron in request.avoided:
            refusing.append(neuron_info)
        else:
            yield neuron_info
    yield from refusing


def _first_end(request: PlacementRequest, index: NeuronIndex) -> float | None:
    """When the first protection ends that may be in the way; None where there is none."""
    for until, neuron_info, instance in index.protections(request.now):
        if instance.is_pinned or (
            request.only_neuron and neuron_info.neuron != request.only_neuron
        ):
            continue
        if not neuron_info.is_known or request.is_possible(neuron_info):
            return until
    return None


def _judge(candidates: list[PlacementCandidate], retry_at: float | None) -> PlacementDecision:
    candidates.sort(key=lambda c: (c.outcome, c.rank, c.neuron))
    if not candidates:
        return PlacementDecision(PlacementOutcome.IMPOSSIBLE, None, ())
    ends = [c.retry_at for c in candidates if c.retry_at is not None]
    if retry_at is not None:
        ends.append(retry_at)
    best = candidates[0]
    return PlacementDecision(best.outcome, best, tuple(candidates), min(ends, default=None))
