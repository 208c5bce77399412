"""What waits for a Session's next message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving import convert

_DELTAS: Final = frozenset({"text", "reasoning", "tool_call"})


class Pending:
    """What waits for the next message. Events, texts and ends keep their order per sequence."""

    def __init__(self) -> None:
        self._events: list[neuron.SequenceEvent] = []
        self._texts: dict[int, tuple[list[str], list[int]]] = {}
        self._ends: list[neuron.SequenceEnd] = []
        # Sequences whose deltas of this message are all events: columns are applied after events.
        self._as_events: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._events or self._texts or self._ends)

    def event(self, sequence_id: int, event: generation.GenerateResponse) -> None:
        """Adds an event to what the next message will carry."""
        if event.WhichOneof("event") in _DELTAS:
            self._deltas_as_events(sequence_id)
        self._events.append(neuron.SequenceEvent(sequence_id=sequence_id, event=event))

    def text(
        self,
        sequence_id: int,
        text: str,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob],
    ) -> None:
        """Adds plain text: to its column, unless it has to be an event."""
        if logprobs:
            self._deltas_as_events(sequence_id)
        if sequence_id in self._as_events:
            self.event(sequence_id, _text_event(text, token_ids, logprobs))
            return
        waiting = self._texts.get(sequence_id)
        if waiting is None:
            self._texts[sequence_id] = ([text], list(token_ids))
        else:
            waiting[0].append(text)
            waiting[1].extend(token_ids)

    def end(self, end: neuron.SequenceEnd) -> None:
        """Adds the end of a sequence to what the next message will carry."""
        self._ends.append(end)

    def forget(self, sequence_id: int) -> None:
        """Drops all that waits of a sequence."""
        self._texts.pop(sequence_id, None)
        self._events = [each for each in self._events if each.sequence_id != sequence_id]
        self._ends = [each for each in self._ends if each.sequence_id != sequence_id]

    def take(self) -> neuron.SessionResponse:
        """The next message; nothing waits after it. Whatever it raises, all still waits."""
        texts = self._texts
        message = neuron.SessionResponse(
            events=self._events,
            text_sequence_ids=texts,
            texts=["".join(parts) for parts, _ in texts.values()],
            text_token_counts=[len(ids) for _, ids in texts.values()],
            text_token_ids=[token_id for _, ids in texts.values() for token_id in ids],
            ends=self._ends,
        )
        self._events, self._texts, self._ends = [], {}, []
        self._as_events.clear()
        return message

    def unsendable(self) -> list[int]:
        """Sequences whose text no message can carry."""
        return [number for number, (parts, _) in self._texts.items() if not _is_sendable(parts)]

    def _deltas_as_events(self, sequence_id: int) -> None:
        """From here to the end of the message this sequence's deltas are events, the first too."""
        self._as_events.add(sequence_id)
        waiting = self._texts.pop(sequence_id, None)
        if waiting is not None:
            event = _text_event("".join(waiting[0]), waiting[1], ())
            self._events.append(neuron.SequenceEvent(sequence_id=sequence_id, event=event))


def _is_sendable(parts: list[str]) -> bool:
    try:
        neuron.SessionResponse(texts=["".join(parts)])
    except Exception:  # noqa: BLE001 - whatever protobuf says of it
        return False
    return True


def _text_event(
    text: str, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
) -> generation.GenerateResponse:
    return generation.GenerateResponse(text=convert.text_delta(text, token_ids, logprobs))
