"""Where the events of one choice arrive: counts, times, and the end of each attempt."""

from __future__ import annotations

import asyncio
import time

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.transports.transport import NeuronSequence, token_count

_DELTAS = frozenset({"text", "reasoning", "tool_call"})


class ChoiceSink:
    """The part that streamed and collected choices share.

    An attempt is one try on one instance: `begin`, then the transport's callbacks, then its end,
    which `begin`'s future tells: None, or what went wrong. Nothing here may raise.

    Attributes:
        started: the neuron's admission of the last attempt.
        finished: the last event.
        first_token_at: when the first token of any kind came, seconds on the monotonic clock.
        first_visible_at: when the first text or tool call came.
        queue_seconds: from the start of the attempt to its admission.
    """

    __slots__ = (
        "_attempt_began_at",
        "_credit_step",
        "_ended",
        "_heard",
        "_quiet_since",
        "_sequence",
        "_stirred",
        "_used_tokens",
        "choice",
        "finished_event",
        "first_token_at",
        "first_visible_at",
        "queue_seconds",
        "started_event",
    )

    def __init__(self, choice: int, *, window_tokens: int) -> None:
        self.choice = choice
        self.started_event: generation.GenerationStarted | None = None
        self.finished_event: generation.GenerationFinished | None = None
        self.first_token_at = 0.0
        self.first_visible_at = 0.0
        self.queue_seconds = 0.0
        self._credit_step = max(1, window_tokens // 2)
        self._used_tokens = 0
        self._ended: asyncio.Future[FleetError | None] | None = None
        self._sequence: NeuronSequence | None = None
        self._stirred = False
        self._heard = False
        self._quiet_since = 0.0
        self._attempt_began_at = 0.0

    @property
    def is_heard(self) -> bool:
        """The neuron has said something of the running attempt: it has admitted it."""
        return self._heard

    @property
    def unanswered_since(self) -> float | None:
        """When the running attempt began, seconds on the monotonic clock; None once it is heard."""
        return None if self._heard or self._sequence is None else self._attempt_began_at

    # Dispatch's side.

    @property
    def may_restart(self) -> bool:
        """True while another attempt would not show the client anything twice."""
        raise NotImplementedError

    def begin(self) -> asyncio.Future[FleetError | None]:
        """Gets ready for an attempt; the future is its end."""
        self._ended = asyncio.get_running_loop().create_future()
        self._attempt_began_at = self._quiet_since = time.monotonic()
        self._heard = False
        self._used_tokens = 0
        return self._ended

    def attach(self, sequence: NeuronSequence) -> None:
        """Tells what runs, for credit and for giving up."""
        self._sequence = sequence

    def detach(self) -> None:
        """The attempt is over, however it ended; stops it where it still runs."""
        sequence, self._sequence = self._sequence, None
        if sequence is not None and self.finished_event is None:
            sequence.cancel()

    def waiting(self, step: registry.EnsureModelResponse) -> None:
        """The model is being placed; nobody need be told."""

    def give_up(self, error: FleetError) -> None:
        """Ends the attempt from this side."""
        ended = self._ended
        if ended is not None and not ended.done():
            if self._sequence is not None:
                self._sequence.cancel()
            ended.set_result(error)

    def check_silence(self, now: float, *, first_event_seconds: float, idle_seconds: float) -> None:
        """Gives up a neuron that says nothing; called by the ticker."""
        if self._stirred:
            self._stirred = False
            self._quiet_since = now
            return
        if self._sequence is None:
            return
        limit = idle_seconds if self._heard else first_event_seconds
        if now - self._quiet_since > limit:
            reason = Reason.DEADLINE if self._heard else Reason.NEURON_LOST
            self.give_up(FleetError(reason, f"The neuron said nothing for {limit:g} seconds."))

    # The transport's side.

    def text(self, text: str, tokens: int) -> None:
        """See `Sink.text`."""
        raise NotImplementedError

    def event(self, event: generation.GenerateResponse) -> None:
        """See `Sink.event`."""
        kind = event.WhichOneof("event") or ""
        self._stirred = True
        self._heard = True
        if kind in _DELTAS:
            self._note_delta(visible=kind != "reasoning")
            self._used_tokens += token_count(event)
        elif kind == "started":
            self.started_event = event.started
            self.queue_seconds = time.monotonic() - self._attempt_began_at
        self.take(kind, event)

    def take(self, kind: str, event: generation.GenerateResponse) -> None:
        """What the kind of sink does with an event."""
        raise NotImplementedError

    def flush(self) -> None:
        """See `Sink.flush`."""
        raise NotImplementedError

    def finished(self, finished: generation.GenerationFinished) -> None:
        """See `Sink.finished`."""
        self.finished_event = finished
        self._end(None)

    def failed(self, error: FleetError) -> None:
        """See `Sink.failed`."""
        self._end(error)

    def _end(self, error: FleetError | None) -> None:
        ended = self._ended
        if ended is not None and not ended.done():
            ended.set_result(error)

    def _note_delta(self, *, visible: bool) -> None:
        if not self.first_token_at:
            self.first_token_at = time.monotonic()
        if visible and not self.first_visible_at:
            self.first_visible_at = time.monotonic()

    def _repay(self) -> None:
        """Gives credit back for what was taken off the neuron's hands, half a window at a time."""
        if self._sequence is not None:
            self._sequence.credit(self._used_tokens)
            self._used_tokens = 0
