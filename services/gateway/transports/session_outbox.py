"""What waits to be sent on a session, and the messages that are made of it."""

from __future__ import annotations

import itertools
from typing import Final

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron

# Bounds one message: this many requests of at most `pool.LARGE_REQUEST_BYTES` each.
_STARTS_PER_MESSAGE: Final = 128


class SessionOutbox:
    """Requests, cancellations and credits, by sequence, until they leave together.

    Args:
        window_tokens: credit of a sequence at its start.
    """

    def __init__(self, *, window_tokens: int) -> None:
        self._window_tokens = window_tokens
        self._starts: dict[int, generation.GenerateRequest] = {}
        self._cancels: list[int] = []
        self._credits: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._starts or self._cancels or self._credits)

    def start(self, sequence_id: int, request: generation.GenerateRequest) -> None:
        """Adds a request."""
        self._starts[sequence_id] = request

    def cancel(self, sequence_id: int) -> bool:
        """Takes a request back, or adds its cancellation where it has left: then True."""
        self._credits.pop(sequence_id, None)
        if self._starts.pop(sequence_id, None) is not None:
            return False
        self._cancels.append(sequence_id)
        return True

    def credit(self, sequence_id: int, tokens: int) -> None:
        """Adds to the credit of a sequence."""
        self._credits[sequence_id] = self._credits.get(sequence_id, 0) + tokens

    def forget(self, sequence_id: int) -> None:
        """Drops the credit of a sequence that has ended."""
        self._credits.pop(sequence_id, None)

    def clear(self) -> None:
        """Drops the requests: there is nobody to send them to."""
        self._starts.clear()

    def next_starts(self) -> list[int]:
        """The sequences whose requests the next message has."""
        return list(self._starts)[:_STARTS_PER_MESSAGE]

    def drop_starts(self, sequence_ids: list[int]) -> None:
        """Drops these requests: they cannot be sent."""
        for sequence_id in sequence_ids:
            self._starts.pop(sequence_id, None)

    def take(self) -> bytes:
        """Everything that waits, as one message, with as many requests as one may have.

        What raises here is a request: all else stays where it was.
        """
        message = neuron.SessionRequest()
        starts = self._starts
        left: dict[int, generation.GenerateRequest] = {}
        if len(starts) > _STARTS_PER_MESSAGE:
            behind = itertools.islice(starts.items(), _STARTS_PER_MESSAGE, None)
            left = dict(behind)
        for sequence_id, request in starts.items():
            if sequence_id not in left:
                start = message.starts.add()
                start.sequence_id = sequence_id
                start.request.MergeFrom(request)
                start.credit_tokens = self._window_tokens
        if self._cancels:
            message.cancelled_sequence_ids.extend(self._cancels)
        waiting: dict[int, int] = {}
        for sequence_id, tokens in self._credits.items():
            if sequence_id in left:
                waiting[sequence_id] = tokens
            else:
                message.credits.add(sequence_id=sequence_id, tokens=tokens)
        data = message.SerializeToString()
        self._starts, self._credits = left, waiting
        self._cancels.clear()
        return data
