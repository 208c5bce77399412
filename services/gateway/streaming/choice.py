"""The sink of one choice: counts tokens, takes times, and ends each attempt."""

from __future__ import annotations

import array
import asyncio
import time
from collections.abc import Sequence

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.streaming.placement_status import PlacementSink
from services.gateway.transports.transport import NeuronSequence, Sink, token_ids

_DELTAS = frozenset({"text", "reasoning", "tool_call"})
# What comes before the first delta; the client of an answer that goes on has heard it.
_PRELUDE = frozenset({"queued", "started", "prefill"})


class ChoiceSink(Sink, PlacementSink):
    """What the sinks of streamed and of collected choices have in common.

    An attempt is one try on one instance: `begin`, then the transport's callbacks, then the result
    of the future that `begin` returned: None, or the error. Nothing here may raise.

    Args:
        choice: index of the choice in its request.
        window_tokens: how many tokens the neuron may send ahead; half of it is credited at a time.

    Attributes:
        started_event: by which the neuron has admitted the last attempt.
        finished_event: the last event.
        first_token_at: when the first token of any kind came, seconds on the monotonic clock; 0
            before.
        first_visible_at: when the first text or tool call came, likewise.
        queue_seconds: from the start of the attempt to its admission.
        keeps_time: what runs the last attempt looks after its silence itself.
        tells_tokens: the neuron of the last attempt tells the tokens of all that it sends, with it.
        made: ids of the tokens behind what was passed on, as far as the neurons have told them.
    """

    __slots__ = (
        "_attempt_began_at",
        "_credit_step",
        "_ended",
        "_goes_on",
        "_heard",
        "_quiet_since",
        "_sequence",
        "_stirred",
        "_told_tokens",
        "_used_tokens",
        "choice",
        "finished_event",
        "first_token_at",
        "first_visible_at",
        "keeps_time",
        "made",
        "queue_seconds",
        "started_event",
        "tells_tokens",
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
        self.keeps_time = False
        self.tells_tokens = True
        self.made = array.array("I")
        self._told_tokens = 0
        self._goes_on = False
        self._ended: asyncio.Future[FleetError | None] | None = None
        self._sequence: NeuronSequence | None = None
        self._stirred = False
        self._heard = False
        self._quiet_since = 0.0
        self._attempt_began_at = 0.0

    @property
    def is_heard(self) -> bool:
        """True once an event of the running attempt has come: the neuron has admitted it."""
        return self._heard

    @property
    def unanswered_since(self) -> float | None:
        """When the running attempt began, monotonic seconds; None once an event of it has come."""
        return None if self._heard or self._sequence is None else self._attempt_began_at

    @property
    def tokens_so_far(self) -> int:
        """Tokens that the generation has brought, on whatever instances."""
        return self._told_tokens

    # Dispatch's side.

    @property
    def may_restart(self) -> bool:
        """True while the client has seen nothing that another attempt would repeat."""
        raise NotImplementedError

    @property
    def may_go_on(self) -> bool:
        """True where another instance can go on behind what was passed on: all tokens are known."""
        is_known = self.tells_tokens and len(self.made) == self._told_tokens
        return is_known and bool(self.made)

    def begin(self, *, goes_on: bool = False) -> asyncio.Future[FleetError | None]:
        """Prepares for an attempt. The future's result is its end: None, or the error.

        Args:
            goes_on: it goes on behind the tokens of the last one, instead of from the beginning.
        """
        self._goes_on = goes_on
        if self._told_tokens and not goes_on:
            self.made = array.array("I")
            self._told_tokens = 0
        self._ended = asyncio.get_running_loop().create_future()
        self._attempt_began_at = self._quiet_since = time.monotonic()
        self._heard = self.keeps_time = False
        self._used_tokens = 0
        return self._ended

    def attach(self, sequence: NeuronSequence) -> None:
        """Names the generation that runs, to be credited and cancelled."""
        self._sequence = sequence

    def detach(self) -> None:
        """Ends the attempt; cancels the generation where it has not finished."""
        sequence, self._sequence = self._sequence, None
        if sequence is not None and self.finished_event is None:
            sequence.cancel()

    @property
    @override
    def is_committed(self) -> bool:
        return False

    @override
    def waiting(self, step: registry.EnsureModelResponse) -> None:
        """Ignores the step: a client without a stream cannot be told."""

    def give_up(self, error: FleetError) -> None:
        """Cancels the generation and ends the attempt with this error."""
        ended = self._ended
        if ended is not None and not ended.done():
            if self._sequence is not None:
                self._sequence.cancel()
            ended.set_result(error)

    def check_silence(self, now: float, *, first_event_seconds: float, idle_seconds: float) -> None:
        """Gives up an attempt whose neuron has sent nothing for too long; called by the ticker.

        Args:
            now: seconds on the monotonic clock.
            first_event_seconds: longest wait for the first event; then NEURON_LOST.
            idle_seconds: longest wait between two events; then DEADLINE.
        """
        if self._stirred:
            self._stirred = False
            self._quiet_since = now
            return
        if self._sequence is None or self.keeps_time:
            return
        limit = idle_seconds if self._heard else first_event_seconds
        if now - self._quiet_since > limit:
            reason = Reason.DEADLINE if self._heard else Reason.NEURON_LOST
            self.give_up(FleetError(reason, f"The neuron said nothing for {limit:g} seconds."))

    # The transport's side.

    @override
    def text(self, text: str, tokens: int, token_ids: Sequence[int] = ()) -> None:
        raise NotImplementedError

    @override
    def event(self, event: generation.GenerateResponse) -> None:
        kind = event.WhichOneof("event") or ""
        self._stirred = True
        self._heard = True
        if kind in _DELTAS:
            self._note_delta(visible=kind != "reasoning")
            tokens = token_ids(event)
            self._used_tokens += len(tokens)
            self._told_tokens += len(tokens)
            self.made.extend(tokens)
        elif self._goes_on and kind in _PRELUDE:
            return
        elif kind == "started":
            self.started_event = event.started
            self.queue_seconds = time.monotonic() - self._attempt_began_at
        self.take(kind, event)

    def take(self, kind: str, event: generation.GenerateResponse) -> None:
        """Does with an event what this kind of sink is for."""
        raise NotImplementedError

    @override
    def flush(self) -> None:
        raise NotImplementedError

    @override
    def finished(self, finished: generation.GenerationFinished) -> None:
        self.finished_event = finished
        self._end(None)

    @override
    def failed(self, error: FleetError) -> None:
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
        """Credits the neuron with the tokens that were taken in."""
        if self._sequence is not None:
            self._sequence.credit(self._used_tokens)
            self._used_tokens = 0
