"""Whether a request that failed may be answered by another model or another server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.gateway.streaming.choice import ChoiceSink

# Nothing there can serve the model now: another may.
_UNSERVED: Final = frozenset(
    {
        Reason.NO_NEURONS,
        Reason.NO_ROOM,
        Reason.NEVER_FITS,
        Reason.QUEUE_FULL,
        Reason.QUEUE_TIMEOUT,
        Reason.LOAD_FAILED,
        Reason.MODEL_FILE_BAD,
        Reason.OUT_OF_MEMORY,
        Reason.SOURCE_UNAVAILABLE,
        Reason.SOURCE_FORBIDDEN,
        Reason.INSTANCE_GONE,
        Reason.INSTANCE_DRAINING,
        Reason.INSTANCE_MISMATCH,
        Reason.INSTANCE_RECOVERING,
        Reason.ENGINE_FAILED,
        Reason.WORKER_LOST,
        Reason.NEURON_LOST,
        Reason.REGISTRY_UNAVAILABLE,
        Reason.UPSTREAM_FAILED,
    }
)
# What another model, or another server, may be able to.
_UNABLE: Final = frozenset(
    {
        Reason.CONTEXT_TOO_LONG,
        Reason.MODEL_UNKNOWN,
        Reason.NEVER_FITS,
        Reason.NOT_SUPPORTED,
        Reason.TEMPLATE_FAILED,
        Reason.UNSUPPORTED_FIELD,
        Reason.WRONG_MODALITY,
    }
)


def is_unserved(error: FleetError, sinks: Sequence[ChoiceSink]) -> bool:
    """True where another model or server is to answer: this one cannot, and has not begun."""
    return error.reason in _UNSERVED and is_untouched(sinks)


def is_unable(error: FleetError) -> bool:
    """True where what was asked for cannot be done there, and perhaps elsewhere."""
    return error.reason in _UNABLE


def is_untouched(sinks: Sequence[ChoiceSink]) -> bool:
    """True while no choice has brought anything."""
    return all(sink.may_restart and not sink.first_token_at for sink in sinks)
