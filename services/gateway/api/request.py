"""One request while it runs: what may end it early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.api.access_log import RequestRecord
from services.gateway.settings import GatewaySettings
from services.gateway.streaming.stream import ResponseStream

# What a template may add to a prompt, in bytes, generously.
_TEMPLATE_BYTES: Final = 512
# The longest that a client sees nothing at all while its prompt is being counted.
_COUNTING_SECONDS: Final = 30.0


class RequestScope:
    """One request under way: what ends it early, and what the ticker looks at."""

    __slots__ = ("_settings", "_task", "ended_by", "is_over", "record", "requests", "stream")

    def __init__(self, settings: GatewaySettings, record: RequestRecord) -> None:
        self._settings = settings
        self._task = asyncio.current_task()
        self.record = record
        self.requests: Sequence[generation.GenerateRequest] = ()
        self.stream: ResponseStream | None = None
        self.is_over = False
        self.ended_by: FleetError | None = None

    def close(self) -> None:
        """Nothing ends it any more."""
        self.is_over = True
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def leave(self) -> None:
        """The client has gone: stops everything that runs for it."""
        if not self.is_over:
            self.record.client_gone = True
            self.end(FleetError(Reason.CANCELLED, "The client has gone."))

    def end(self, error: FleetError) -> None:
        """Ends the request, wherever it stands, with an error."""
        if not self.is_over and self.ended_by is None and self._task is not None:
            self.ended_by = error
            self._task.cancel()

    def uncancel(self) -> None:
        """Takes back the cancellation that `end` has made, once it is known for what it was."""
        assert self._task is not None
        self._task.uncancel()

    def tick(self, now: float, slack: float) -> None:
        """See `Watched.tick`."""
        for sink in self.record.sinks:
            sink.check_silence(
                now,
                first_event_seconds=self._settings.first_event_seconds,
                idle_seconds=self._settings.idle_seconds,
            )
        if self.stream is not None and not self._may_be_refused(self.stream, now):
            self.stream.tick(now, slack)

    def _may_be_refused(self, stream: ResponseStream, now: float) -> bool:
        """The neuron is still counting a prompt that may be too long for it.

        A refusal is an HTTP error, which clients act on, as long as no head has gone out: a
        keep-alive would make it the end of a stream. Most prompts need not wait for that, because
        a token is at least one byte.
        """
        target = self.record.served_by.last
        if stream.is_committed or target is None or any(sink.is_heard for sink in stream.sinks):
            return False
        since = [one for sink in stream.sinks if (one := sink.unanswered_since) is not None]
        if not since or now - min(since) > _COUNTING_SECONDS:
            return False
        longest = max(request.ByteSize() for request in self.requests)
        return longest + _TEMPLATE_BYTES > target.max_context_tokens
