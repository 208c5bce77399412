"""Where a model should go. Pure: values in, values out; no clock, no I/O, no log.

`examining.examine` looks at one neuron; `decide` and `explain` both use it, so that what is
explained is what would be done. `decide` looks only as far as the answer needs: of ten thousand
neurons it examines those that could still be better than the best so far.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from services.registry import eviction, feasibility
from services.registry.candidate import Ask, Candidate, Decision, Outcome
from services.registry.examining import affinity, examine, free_fit, is_stored
from services.registry.standing import Standing

# Neurons that cannot take the model now and are examined all the same, for their reasons.
_REASONS: Final = 16

Bound = tuple[object, ...]


def decide(ask: Ask, standings: Iterable[Standing]) -> Decision:
    """The best neuron for a model.

    Free room anywhere outranks any eviction, so evictions are planned only where there is none.
    """
    kept = list(standings)
    if ask.only_neuron:
        kept = [s for s in kept if s.neuron == ask.only_neuron] or kept
    best = _best_free_fit(ask, kept)
    if best is not None:
        return Decision(best.outcome, best, (best,))
    needs, profile = ask.needs, ask.profile
    possible = [s for s in kept if not s.is_known or feasibility.is_possible(profile, needs, s)]
    if not possible:  # the reasons of all are wanted
        return explain(ask, kept)
    best, rest = _best_after_eviction(ask, possible)
    if best is not None:
        return Decision(best.outcome, best, (best,))
    return _least_bad(ask, rest)


def explain(ask: Ask, standings: Iterable[Standing]) -> Decision:
    """Like `decide`, but looks at every neuron; candidates come in order of preference."""
    return _judge([examine(ask, standing) for standing in standings], None)


def _best_free_fit(ask: Ask, standings: list[Standing]) -> Candidate | None:
    """The neuron with free room that ranks first; only that one is made a candidate."""
    profile, needs, kind = ask.profile, ask.needs, ask.profile.device_kind
    ranked = [
        (_free_rank(ask, standing), standing)
        for standing in standings
        if feasibility.any_fits(needs, standing.open_free[kind])
        and not standing.refusal
        and standing.neuron not in ask.avoided
        and profile.model not in standing.models
    ]
    heapq.heapify(ranked)
    while ranked:
        candidate = free_fit(ask, heapq.heappop(ranked)[1])
        if candidate is not None:
            return candidate
    return None


def _free_rank(ask: Ask, standing: Standing) -> Bound:
    """What `free_fit` would rank it by, without its devices' names."""
    profile = ask.profile
    free = standing.open_free[profile.device_kind]
    room = next(free[n - 1] for n, need in ask.needs if n <= len(free) and free[n - 1] >= need)
    return (
        -affinity(profile, standing),
        not is_stored(profile, standing),
        not standing.open_free["cuda"],
        standing.work,
        -room,
        standing.neuron,
    )


def _best_after_eviction(
    ask: Ask, standings: list[Standing]
) -> tuple[Candidate | None, list[Standing]]:
    """The neuron whose dearest victim is missed least, by branch and bound.

    No plan can be better than the neuron's first victim alone; once the next neuron's bound is
    worse than the best plan, no further one is examined.

    Returns: it or None, and the neurons where nothing may go now.
    """
    incoming = ask.incoming
    open_ones: list[tuple[Bound, str, Standing]] = []
    rest: list[Standing] = []
    for standing in standings:
        bound = eviction.best_turn(standing.holdings, incoming)
        if bound is None or standing.refusal or standing.neuron in ask.avoided:
            rest.append(standing)
        else:
            drains = bool(bound[1])
            outcome = Outcome.DRAIN if drains else Outcome.EVICT
            key: Bound = (outcome, -affinity(ask.profile, standing), int(drains), bound)
            open_ones.append((key, standing.neuron, standing))
    heapq.heapify(open_ones)
    best: Candidate | None = None
    while open_ones:
        key, _, standing = heapq.heappop(open_ones)
        if best is not None and (best.outcome, *best.rank[:3]) < key:
            break
        candidate = examine(ask, standing)
        if candidate.outcome > Outcome.DRAIN:
            rest.append(standing)
        elif best is None or (candidate.outcome, candidate.rank) < (best.outcome, best.rank):
            best = candidate
    return best, rest


def _least_bad(ask: Ask, standings: list[Standing]) -> Decision:
    """Nothing can be done now: the reasons of a few, and of as many as it takes to find hope."""
    standings.sort(key=lambda s: (bool(s.refusal), s.neuron in ask.avoided))
    candidates: list[Candidate] = []
    is_hopeful = False
    for standing in standings:
        if is_hopeful and len(candidates) >= _REASONS:
            break
        candidates.append(examine(ask, standing))
        is_hopeful |= candidates[-1].outcome is Outcome.WAIT
    ends = [
        h.protected_until
        for s in standings
        for h in s.holdings
        if h.protected_until > ask.now and not h.is_pinned
    ]
    return _judge(candidates, min(ends, default=None))


def _judge(candidates: list[Candidate], retry_at: float | None) -> Decision:
    candidates.sort(key=lambda c: (c.outcome, c.rank, c.neuron))
    if not candidates:
        return Decision(Outcome.IMPOSSIBLE, None, ())
    ends = [c.retry_at for c in candidates if c.retry_at is not None]
    if retry_at is not None:
        ends.append(retry_at)
    best = candidates[0]
    return Decision(best.outcome, best, tuple(candidates), min(ends, default=None))
