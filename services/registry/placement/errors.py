"""Why a placement is refused, as the errors that callers get."""

from __future__ import annotations

from typing import Final

from services.backplane.errors import FleetError, Reason
from services.registry.scheduler.request import PlacementCandidate, PlacementOutcome

# When it is worth asking again: neurons attach within seconds, protected models stay for longer.
_SOON: Final = 2.0
_LATER: Final = 30.0
_MOST_NAMED: Final = 5


def unknown_model(name: str) -> FleetError:
    """The model is in no catalogue and on no neuron's disk."""
    return FleetError(
        Reason.MODEL_UNKNOWN,
        f"The model {name!r} does not exist: it is in no catalogue and on no neuron's disk.",
        field="model",
        facts={"model": name},
    )


def no_neurons(model: str) -> FleetError:
    """No neuron is attached."""
    return FleetError(
        Reason.NO_NEURONS,
        f"No neuron is attached, so {model!r} cannot be loaded.",
        retry_after_seconds=_SOON,
        facts={"model": model},
    )


def impossible(model: str, candidates: tuple[PlacementCandidate, ...]) -> FleetError:
    """No neuron could run it, even empty. Waiting does not help, so there is no retry hint.

    Without any neuron it does help.
    """
    if not candidates:
        return no_neurons(model)
    return FleetError(
        Reason.MODEL_UNKNOWN,
        f"No neuron of this fleet can run {model!r}: {_named(candidates)}",
        field="model",
        facts={"model": model, "cause": "infeasible"},
    )


def unavailable(model: str, candidates: tuple[PlacementCandidate, ...]) -> FleetError:
    """All neurons that could run it take nothing now: lost, cordoned or about to stop."""
    able = tuple(c for c in candidates if c.outcome is not PlacementOutcome.IMPOSSIBLE)
    return FleetError(
        Reason.NO_ROOM,
        f"No neuron takes {model!r} now: {_named(able)}",
        retry_after_seconds=_SOON,
        facts={"model": model, "cause": "unavailable"},
    )


def blocked(model: str, candidates: tuple[PlacementCandidate, ...]) -> FleetError:
    """The error where a model would fit, but nothing may be evicted for it (pins, residency)."""
    able = tuple(c for c in candidates if c.outcome is not PlacementOutcome.IMPOSSIBLE)
    return FleetError(
        Reason.NO_ROOM,
        f"There is no room for {model!r}: {_named(able)}",
        retry_after_seconds=_LATER,
        facts={"model": model, "cause": "protected"},
    )


def replicas_exhausted(model: str, most: int) -> FleetError:
    """All instances were excluded by the caller, and no other one is allowed."""
    return FleetError(
        Reason.NO_ROOM,
        f"All instances of {model!r} were tried, and replicas.max is {most}.",
        retry_after_seconds=1.0,
        facts={"model": model, "cause": "replicas"},
    )


def waited_too_long(model: str, seconds: float, reason: str) -> FleetError:
    """The caller has waited for as long as callers may."""
    return FleetError(
        Reason.QUEUE_TIMEOUT,
        f"{model!r} was not placed within {seconds:.0f} s. {reason}".strip(),
        retry_after_seconds=_LATER,
        facts={"model": model},
    )


def too_many_waiters(most: int) -> FleetError:
    """The error where as many callers wait as may."""
    return FleetError(
        Reason.QUEUE_FULL,
        f"{most} callers wait for placements already.",
        retry_after_seconds=_SOON,
    )


def stopped_leading() -> FleetError:
    """This registry ends or has lost the leadership; the next leader will place the model."""
    return FleetError(
        Reason.NOT_LEADER, "This registry does not lead any more.", retry_after_seconds=_SOON
    )


def cooling_down(error: FleetError, seconds: float) -> FleetError:
    """The model has just failed to load; the same again would evict others for nothing."""
    return FleetError(
        error.reason,
        f"{error.message} (next attempt in {seconds:.0f} s)",
        retry_after_seconds=seconds,
        facts=error.facts,
    )


def _named(candidates: tuple[PlacementCandidate, ...]) -> str:
    named = [f"{c.neuron}: {c.reason}" for c in candidates[:_MOST_NAMED]]
    if len(candidates) > _MOST_NAMED:
        named.append(f"and {len(candidates) - _MOST_NAMED} more")
    return "; ".join(named) + "."
