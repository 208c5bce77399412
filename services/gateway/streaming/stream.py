"""One streamed answer: where a stream is written to the client.

A neuron's session calls in here for each delta, and the bytes are at the socket before the call
returns: no task wakes per token. Bytes are held back in two cases only: before the first delta
(up to a second, so that a request that fails can still get a plain HTTP error), and while the
client reads more slowly than the model writes.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final

from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Projector
from services.gateway.http1.direct import DirectResponse
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.placement_status import word_step

# Bytes in the socket's buffer above which deltas are merged instead of written.
_BEHIND_BYTES: Final = 32 << 10
_RECHECK_SECONDS: Final = 0.005
Headers = list[tuple[bytes, bytes]]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamLimits:
    """How long a stream may be silent, and how slow its client may read.

    Attributes:
        keepalive_seconds: longest silence; then a comment is sent.
        heartbeat_seconds: longest time without an event that clients parse; then one is sent.
        slow_reader_seconds: a client that is behind for longer is given up (SLOW_READER).
        slow_reader_bytes: likewise when this many bytes wait for it.
    """

    keepalive_seconds: float
    heartbeat_seconds: float
    slow_reader_seconds: float
    slow_reader_bytes: int


class ResponseStream:
    """Writes the response of one streamed request, which may have several choices.

    Attributes:
        is_committed: the head has been sent: an error can no longer change the status.
        sinks: one per choice.
    """

    def __init__(
        self,
        response: DirectResponse,
        projector: Projector,
        *,
        headers: Headers,
        choices: int,
        pace: StreamLimits,
    ) -> None:
        self._response = response
        self._projector = projector
        self._headers = headers
        self._open_choices = choices
        self._pace = pace
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_open = False
        self._behind_since: float | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._wrote_event = False
        self._event_at: float | None = None
        self._quiet_since: float | None = None
        self._waiting_for: bytes | None = None
        self.is_committed = False
        self.sinks: list[ChoiceSink] = []

    @property
    def is_behind(self) -> bool:
        """True while the client reads too slowly: deltas are merged instead of written."""
        return self._behind_since is not None or self._response.buffered() > _BEHIND_BYTES

    def begin(self) -> None:
        """Makes the stream's first bytes; has to come before any other is made."""
        if not self._is_open:
            self._open()

    def write(self, data: bytes) -> None:
        """Sends what was held back, and then these bytes."""
        self._wrote_event = True
        if not self._is_open:
            self._open()
        if self._held:
            self._held.append(data)
            data = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
        if not self.is_committed:
            self._commit()
        self._response.write(data)

    def hold(self, data: bytes) -> None:
        """Holds bytes back for the next write."""
        self.begin()
        if data:
            self._held.append(data)
            self._held_bytes += len(data)

    def release(self) -> None:
        """Sends what was held back."""
        if self._held:
            self.write(b"")

    def end_choice(self, tail: bytes) -> None:
        """Sends the last bytes of one choice; the last choice ends the response."""
        self._open_choices -= 1
        if self._open_choices:
            self.hold(tail) if self.is_behind else self.write(tail)
        else:
            self._finish(tail)

    def fail(self, error: FleetError) -> None:
        """Ends a response that has begun, in the dialect's own form."""
        self._finish(self._projector.fail(error))

    def close(self) -> None:
        """Drops the sinks, so that both are freed without the garbage collector."""
        self.sinks.clear()

    def waiting(self, step: registry.EnsureModelResponse) -> None:
        """Remembers what the client waits for; the next keep-alive comment tells it."""
        self._waiting_for = word_step(step)

    def arrived(self) -> None:
        """Forgets what the client has waited for: the model is placed."""
        self._waiting_for = None

    # Slow readers.

    def fall_behind(self, now: float) -> None:
        """Begins to merge deltas, until the client has caught up."""
        if self._behind_since is None:
            self._behind_since = now
            self._response.on_drain(self._catch_up)
        if self._recheck is None:
            loop = asyncio.get_running_loop()
            self._recheck = loop.call_later(_RECHECK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._recheck = None
        self._catch_up()

    def _catch_up(self) -> None:
        if self._behind_since is None or self._response.closed:
            return
        if self._response.buffered() > _BEHIND_BYTES:
            return  # the ticker and the drain look again
        self._behind_since = None
        self.release()
        for sink in self.sinks:
            sink.flush()

    def _check_reader(self, now: float) -> None:
        if self._behind_since is None:
            return
        waits = self._held_bytes + self._response.buffered()
        too_long = now - self._behind_since > self._pace.slow_reader_seconds
        if too_long or waits > self._pace.slow_reader_bytes:
            error = FleetError(
                Reason.SLOW_READER, f"The stream was not read: {waits} bytes waited for its client."
            )
            for sink in self.sinks:
                sink.give_up(error)

    # Signs of life.

    def tick(self, now: float, slack: float) -> None:
        """Sends a comment or heartbeat on a silent stream; called by the ticker.

        Args:
            now: seconds on the monotonic clock.
            slack: seconds between two calls, by which this one may be late.
        """
        if self._response.closed or not self._open_choices:
            return
        if self._quiet_since is None or self._event_at is None:
            self._quiet_since = self._event_at = now - slack
        self._catch_up()
        if self.is_behind:
            self._check_reader(now)
            return
        if self._wrote_event:
            self._wrote_event = False
            self._quiet_since = self._event_at = now
        elif now - self._event_at >= self._pace.heartbeat_seconds - slack:
            self._event_at = self._quiet_since = now
            self.begin()
            self._speak(self._projector.heartbeat())
        elif now - self._quiet_since >= self._pace.keepalive_seconds - 2 * slack:
            self._quiet_since = now
            self._speak(self._comment())

    def _comment(self) -> bytes:
        comment = self._projector.comment()
        if self._waiting_for is not None and comment.startswith(b":"):
            return b": %b\n\n" % self._waiting_for
        return comment

    def _speak(self, data: bytes) -> None:
        if data:
            self.write(data)
            self._wrote_event = False

    # The response.

    def _open(self) -> None:
        self._is_open = True
        opening = self._projector.open()
        if opening:
            self._held.insert(0, opening)
            self._held_bytes += len(opening)

    def _commit(self) -> None:
        self.is_committed = True
        self._response.start(200, self._headers)

    def _finish(self, tail: bytes) -> None:
        self._open_choices = 0
        self.begin()
        if not self.is_committed:
            self._commit()
        self._held.append(tail)
        self._response.finish(b"".join(self._held))
        self._held.clear()
        if self._recheck is not None:
            self._recheck.cancel()
