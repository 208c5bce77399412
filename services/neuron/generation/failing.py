"""Tells an error as a task's last event."""

from __future__ import annotations

from services.backplane.errors import FleetError
from services.neuron.engine import Failed


def failed(task_id: int, error: FleetError) -> Failed:
    """The event that tells an error."""
    return Failed(
        task_id,
        error.reason.value,
        error.message,
        error.field,
        error.retry_after_seconds,
        error.facts,
    )
