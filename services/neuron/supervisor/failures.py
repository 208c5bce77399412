"""A worker's failures as errors of the fleet."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Failed


def worker_failure(reason: str, message: str) -> FleetError:
    """The error for what a worker calls a failure; a reason that no Reason has becomes INTERNAL."""
    return FleetError(Reason.__members__.get(reason, Reason.INTERNAL), message)


def failed_task(event: Failed) -> FleetError:
    """The error of a failed task, with its field, facts and retry hint."""
    error = worker_failure(event.reason, event.message)
    error.field, error.facts = event.field, dict(event.facts)
    error.retry_after_seconds = event.retry_after_seconds
    return error
