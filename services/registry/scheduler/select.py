"""Where a model should go. Pure: values in, values out; no clock, no I/O, no log.

`examining.examine` looks at one neuron; `decide` and `explain` both use it, so that what is
explained is what would be done. `decide` looks only as far as the answer needs: of ten thousand
neurons it examines those that could still be better than the best so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from services.registry.scheduler import filters
from services.registry.scheduler.evaluate import (
    affinity,
    dearest_bound,
    examine,
    free_bound,
    free_fit,
)
from services.registry.scheduler.eviction import Incoming, Turn, may_go_now
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import NeuronInfo
from services.registry.scheduler.request import Candidate, Decision, Outcome, PlacementRequest

# Neurons that cannot take the model now and are examined all the same, for their reasons.
_REASONS: Final = 16

# What plans are ranked by: outcome, wishes met, whether something drains, the dearest victim.
_Key: TypeAlias = tuple[object, ...]


def decide(ask: PlacementRequest, roster: NeuronIndex) -> Decision:
    """The best neuron for a model.

    Free room anywhere outranks any eviction, so evictions are planned only where there is none.

    Args:
        ask: what is to be placed.
        roster: all neurons, by the same strategy as the question's.
    """
    if ask.only_neuron:
        return _decide_one(ask, roster)
    best = _best_free_fit(ask, roster) or _best_after_eviction(ask, roster)
    if best is not None:
        return Decision(best.outcome, best, (best,))
    return _least_bad(ask, roster)


def explain(ask: PlacementRequest, standings: Iterable[NeuronInfo]) -> Decision:
    """Like `decide`, but looks at every neuron; candidates come in order of preference."""
    return _judge([examine(ask, standing) for standing in standings], None)


def _decide_one(ask: PlacementRequest, roster: NeuronIndex) -> Decision:
    standing = roster.get(ask.only_neuron)
    if standing is None:
        return explain(ask, roster)
    return _judge([examine(ask, standing)], _first_end(ask, roster))


def _best_free_fit(ask: PlacementRequest, roster: NeuronIndex) -> Candidate | None:
    """The neuron with free room that ranks first.

    The least busy come first; once the best has all that may come before that, no other is better.
    """
    profile = ask.profile
    is_stored = roster.has_stored(profile.model, profile.terms.source)
    has_cuda = profile.device_kind != "cpu" and roster.has_room("cuda")
    ideal = (-len(profile.affinity), not is_stored, not has_cuda)
    best: Candidate | None = None
    least = min(need for _, need in ask.needs)
    for work, free, standing in roster.with_room(profile.device_kind, least):
        if best is not None and best.rank < (*ideal, work, -free, standing.neuron):
            break
        bound = free_bound(ask, standing)
        if bound is None or (best is not None and best.rank <= bound):
            continue
        candidate = free_fit(ask, standing)
        if candidate is not None and (best is None or candidate.rank < best.rank):
            best = candidate
    return best


def _best_after_eviction(ask: PlacementRequest, roster: NeuronIndex) -> Candidate | None:
    """The neuron whose dearest victim is missed least, by branch and bound.

    No plan can be better than the neuron's first victim alone. Neurons come in the order of those;
    once not even one that meets all wishes could beat the best plan, the rest cannot.
    """
    incoming, profile = ask.incoming, ask.profile
    best: Candidate | None = None
    for first, standing in _in_turn(roster, incoming):
        if best is not None and _key(best) < _bound(len(profile.affinity), first):
            # useless copies come before idle ones even where they are busy
            if first.is_useful or not first.is_busy:
                break
            continue
        if not _takes(ask, standing):
            continue
        least = dearest_bound(ask, incoming, standing, first)
        if least is None:
            continue
        if best is None or _bound(affinity(profile, standing), least) <= _key(best):
            candidate = examine(ask, standing)
            if candidate.outcome <= Outcome.DRAIN and (best is None or _is_better(candidate, best)):
                best = candidate
    return best


def _in_turn(roster: NeuronIndex, incoming: Incoming) -> Iterator[tuple[Turn, NeuronInfo]]:
    """Each neuron where something may go now, with the turn of its first copy."""
    seen: set[str] = set()
    for turn, standing, holding in roster.in_turn(incoming):
        if turn.is_useful and turn.is_busy and not incoming.may_drain:
            return  # so are all that follow
        if standing.neuron not in seen and may_go_now(holding, incoming):
            seen.add(standing.neuron)
            yield turn, standing


def _bound(wishes: int, turn: Turn) -> _Key:
    """What a plan can be ranked at best."""
    outcome = Outcome.DRAIN if turn.is_busy else Outcome.EVICT
    return (outcome, -wishes, int(turn.is_busy), turn)


def _key(candidate: Candidate) -> _Key:
    return (candidate.outcome, *candidate.rank[:3])


def _is_better(one: Candidate, other: Candidate) -> bool:
    return (one.outcome, one.rank) < (other.outcome, other.rank)


def _takes(ask: PlacementRequest, standing: NeuronInfo) -> bool:
    """True if the neuron may take something now, and could take this model."""
    return (
        not standing.refusal
        and standing.neuron not in ask.avoided
        and filters.is_possible(ask.profile, ask.needs, standing)
    )


def _least_bad(ask: PlacementRequest, roster: NeuronIndex) -> Decision:
    """Nothing can be done now: the reasons of a few, and of as many as it takes to find hope."""
    candidates: list[Candidate] = []
    is_hopeful = False
    for standing in _able(ask, roster):
        if is_hopeful and len(candidates) >= _REASONS:
            break
        candidates.append(examine(ask, standing))
        is_hopeful |= candidates[-1].outcome is Outcome.WAIT
    if not candidates:  # the reasons of all are wanted
        return explain(ask, roster)
    return _judge(candidates, _first_end(ask, roster))


def _able(ask: PlacementRequest, roster: NeuronIndex) -> Iterator[NeuronInfo]:
    """Neurons where the model could ever run; those that take nothing for now come last."""
    refusing: list[NeuronInfo] = []
    for standing in roster:
        if standing.is_known and not filters.is_possible(ask.profile, ask.needs, standing):
            continue
        if standing.refusal or standing.neuron in ask.avoided:
            refusing.append(standing)
        else:
            yield standing
    yield from refusing


def _first_end(ask: PlacementRequest, roster: NeuronIndex) -> float | None:
    """When the first protection ends that may be in the way."""
    for until, standing, holding in roster.protections(ask.now):
        if holding.is_pinned or (ask.only_neuron and standing.neuron != ask.only_neuron):
            continue
        if not standing.is_known or filters.is_possible(ask.profile, ask.needs, standing):
            return until
    return None


def _judge(candidates: list[Candidate], retry_at: float | None) -> Decision:
    candidates.sort(key=lambda c: (c.outcome, c.rank, c.neuron))
    if not candidates:
        return Decision(Outcome.IMPOSSIBLE, None, ())
    ends = [c.retry_at for c in candidates if c.retry_at is not None]
    if retry_at is not None:
        ends.append(retry_at)
    best = candidates[0]
    return Decision(best.outcome, best, tuple(candidates), min(ends, default=None))
