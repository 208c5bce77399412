"""Legal answers of a model, cut into events in any way, and what dialects make of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.dialect import Collected, DecodedRequest, Dialect, Head
from services.gateway.streaming.collect import CollectSink

HEAD = Head("req_1", {}, {}, 1_700_000_000)
Event = generation.GenerateResponse


@dataclasses.dataclass(frozen=True)
class Segment:
    """One stretch of an answer: text, reasoning, or one call."""

    kind: str
    body: str
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer of a model."""

    segments: tuple[Segment, ...]
    reason: generation.FinishReason.ValueType = generation.FINISH_REASON_END_OF_TURN

    def joined(self, kind: str) -> str:
        return "".join(one.body for one in self.segments if one.kind == kind)

    def calls(self) -> list[tuple[str, str, Any]]:
        """Id, name and arguments of each call."""
        found = [one for one in self.segments if one.kind == "tool_call"]
        return [
            (f"call_{index}", one.name, json.loads(one.body)) for index, one in enumerate(found)
        ]

    def parts(self) -> list[tuple[str, str]]:
        """Kind and text of each stretch, neighbours of one kind joined."""
        found: list[tuple[str, str]] = []
        for one in self.segments:
            if found and found[-1][0] == one.kind != "tool_call":
                found[-1] = (one.kind, found[-1][1] + one.body)
            else:
                found.append((one.kind, one.body))
        return found

    def finished(self) -> generation.GenerationFinished:
        stop = "###" if self.reason == generation.FINISH_REASON_STOP_STRING else ""
        usage = generation.Usage(
            prompt_tokens=20, cached_prompt_tokens=8, completion_tokens=9, reasoning_tokens=2
        )
        return generation.GenerationFinished(reason=self.reason, stop_string=stop, usage=usage)


def started() -> Event:
    return Event(
        started=generation.GenerationStarted(
            instance_id="n1/m", prompt_tokens=20, cached_prompt_tokens=8
        )
    )


def queued(position: int) -> Event:
    return Event(queued=generation.GenerationQueued(position=position))


def events_of(answer: Answer, sizes: Iterable[int] = ()) -> list[Event]:
    """The deltas of an answer, its text cut into pieces of the given sizes."""
    cuts = iter(sizes)
    events: list[Event] = []
    call = -1
    for segment in answer.segments:
        call += segment.kind == "tool_call"
        for index, piece in enumerate(_cut(segment.body, cuts)):
            events.append(_delta(segment, call, piece, first=index == 0))
    return events


def _cut(text: str, cuts: Any) -> list[str]:
    pieces = []
    while text:
        size = next(cuts, len(text))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def _delta(segment: Segment, call: int, piece: str, *, first: bool) -> Event:
    match segment.kind:
        case "text":
            return Event(text=generation.TextDelta(text=piece))
        case "reasoning":
            return Event(reasoning=generation.ReasoningDelta(text=piece))
        case _:
            delta = generation.ToolCallDelta(index=call, arguments_json=piece)
            if first:
                delta.call_id, delta.name = f"call_{call}", segment.name
            return Event(tool_call=delta)


def collect(answer: Answer, events: Sequence[Event]) -> Collected:
    """What the gateway collects of the events."""
    sink = CollectSink(0, window_tokens=64)
    sink.event(started())
    for event in events:
        if event.WhichOneof("event") == "text" and not event.text.logprobs:
            sink.text(event.text.text, 1)
        else:
            sink.event(event)
    sink.finished(answer.finished())
    return sink.collected()


def stream(
    dialect: Dialect,
    decoded: DecodedRequest,
    answer: Answer,
    events: Sequence[Event],
    *,
    beats: Iterable[int] = (),
    waits: int = 0,
    head: Head = HEAD,
) -> bytes:
    """The streamed answer; after the events numbered by `beats` the line was silent for long."""
    projector = dialect.projector(decoded, head)
    silent = set(beats)
    told = [projector.open()]
    for position in range(waits, 0, -1):
        told += [projector.event(0, queued(position)), projector.comment()]
    told.append(projector.event(0, started()))
    for index, event in enumerate(events):
        if event.WhichOneof("event") == "text" and not event.text.logprobs:
            told.append(projector.text(0, event.text.text, 1))
        else:
            told.append(projector.event(0, event))
        if index in silent:
            told += [projector.comment(), projector.heartbeat()]
    told.append(projector.finish(0, answer.finished()))
    return b"".join(told)


_TEXT = st.text(
    st.characters(codec="utf-8") | st.sampled_from('"\\\n\r\u2028😀é<>'), min_size=1, max_size=12
)
_ARGUMENTS = st.dictionaries(_TEXT, st.integers() | _TEXT | st.none(), max_size=3).map(
    lambda found: json.dumps(found, ensure_ascii=False)
)
SEGMENTS = st.one_of(
    st.builds(Segment, st.just("text"), _TEXT),
    st.builds(Segment, st.just("reasoning"), _TEXT),
    st.builds(Segment, st.just("tool_call"), _ARGUMENTS, st.sampled_from(("get_weather", "run"))),
)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    segments = tuple(draw(st.lists(SEGMENTS, max_size=6)))
    reasons = [generation.FINISH_REASON_MAX_TOKENS]
    if any(one.kind == "tool_call" for one in segments):
        reasons.append(generation.FINISH_REASON_TOOL_CALLS)
    else:
        reasons += [generation.FINISH_REASON_END_OF_TURN, generation.FINISH_REASON_STOP_STRING]
    return Answer(segments, draw(st.sampled_from(reasons)))


SIZES = st.lists(st.integers(1, 5), max_size=60)
BEATS = st.sets(st.integers(0, 20), max_size=4)
