"""What happens to a task, as an engine tells it."""

from __future__ import annotations

import enum
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.backplane.tracebacks import describe
from services.neuron.engine_api.task import Value

NO_NUMBER: Final = "The model's output is not a number."
"""What engines say of NaN and infinities: broken weights, or a device that computes wrongly."""
_LONGEST_TRACE: Final = 8_000


class TokenLogprob(Value, frozen=True, array_like=True):
    """Log probability (natural, before truncation and temperature) of one token."""

    token_id: int
    text: bytes
    logprob: float
    alternatives: tuple[TokenLogprob, ...] = ()


class EndReason(enum.Enum):
    """Why a generation ended without an error."""

    END_OF_TURN = "end_of_turn"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"


class Started(Value, frozen=True, tag="started", array_like=True):
    """The task was admitted and its prompt measured.

    `resumed_texts` has the text that came with each resumed token, where `Task.tells_resumed`.
    """

    task_id: int
    prompt_tokens: int
    cached_tokens: int
    resumed_texts: tuple[str, ...] = ()


class Queued(Value, frozen=True, tag="queued", array_like=True):
    """The task waits; `position` requests come before it."""

    task_id: int
    position: int
    eta_seconds: float | None = None


class Prefilled(Value, frozen=True, tag="prefilled", array_like=True):
    """Progress: how many tokens of the prompt have been read."""

    task_id: int
    done: int
    total: int


class Delta(Value, frozen=True, tag="delta", array_like=True):
    """New output: whole characters, stop strings held back, and the tokens behind them.

    `text` may be empty while token text is held back; `logprobs` has one entry per token or none.
    """

    task_id: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


class Ended(Value, frozen=True, tag="ended", array_like=True):
    """The task ended well. Seconds are wall time in the worker."""

    task_id: int
    reason: EndReason
    stop_string: str
    completion_tokens: int
    queued_seconds: float
    prefill_seconds: float
    decode_seconds: float
    accepted_draft_tokens: int = 0


class Failed(Value, frozen=True, tag="failed", array_like=True):
    """The task failed.

    Attributes:
        reason: a name of backplane.errors.Reason.
        trace: for the daemon's log alone: of an exception that nobody foresaw.
    """

    task_id: int
    reason: str
    message: str
    field: str | None = None
    retry_after_seconds: float | None = None
    facts: dict[str, str] = {}
    trace: str = ""


Event = Started | Queued | Prefilled | Delta | Ended | Failed


def crashed(task_id: int, error: BaseException) -> Failed:
    """The event (INTERNAL) of a task that an unforeseen exception ended, with its frames."""
    return Failed(task_id, Reason.INTERNAL.value, "The engine failed at this.", trace=trace(error))


def trace(error: BaseException) -> str:
    """An exception as text for a frame: types and frames alone, the end of it where it is long."""
    return describe(error)[-_LONGEST_TRACE:]


def failed(task_id: int, error: FleetError) -> Failed:
    """The `Failed` event of a task that an error of the fleet ended."""
    return Failed(
        task_id,
        error.reason.value,
        error.message,
        field=error.field,
        retry_after_seconds=error.retry_after_seconds,
        facts=error.facts,
    )
