"""One streamed answer over a socket that the test controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from services.gateway.streaming.stream import ResponseStream, StreamLimits
from services.gateway.streaming.stream_sink import StreamSink

PACE = StreamLimits(
    keepalive_seconds=1.0,
    heartbeat_seconds=3.0,
    slow_reader_seconds=30.0,
    slow_reader_bytes=1 << 20,
)
SLACK = 0.25
BEHIND = 1 << 16


class Socket:
    """A DirectResponse that keeps its writes, and is as full as the test says."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.status = 0
        self.closed = False
        self.full = 0
        self.drained: Callable[[], None] | None = None

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def finish(self, tail: bytes = b"") -> None:
        self.writes.append(tail)
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def buffered(self) -> int:
        return self.full

    def on_close(self, callback: Callable[[], None]) -> None: ...

    def on_drain(self, callback: Callable[[], None]) -> None:
        self.drained = callback

    async def aclose(self) -> None: ...


class Words:
    """A projector in which every event is a word."""

    def comment(self) -> bytes:
        return b": k\n\n"

    def open(self) -> bytes:
        return b"open "

    def text(self, choice: int, text: str, tokens: int) -> bytes:
        return f"{choice}:{text}/{tokens} ".encode()

    def event(self, choice: int, event: generation.GenerateResponse) -> bytes:
        return f"{choice}:{event.WhichOneof('event')} ".encode()

    def finish(self, choice: int, finished: generation.GenerationFinished) -> bytes:
        return f"{choice}:end ".encode()

    def fail(self, error: FleetError) -> bytes:
        return b"failed"

    def heartbeat(self) -> bytes:
        return b"beat "


class Sequence:
    def __init__(self) -> None:
        self.credits: list[int] = []
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def credit(self, tokens: int) -> None:
        self.credits.append(tokens)


class Rig:
    def __init__(self, choices: int = 1) -> None:
        self.socket = Socket()
        words = Words()
        self.stream = ResponseStream(self.socket, words, headers=[], choices=choices, pace=PACE)
        self.sinks = [
            StreamSink(index, self.stream, words, window_tokens=8) for index in range(choices)
        ]
        self.sequence = Sequence()
        self.ends = [sink.begin() for sink in self.sinks]
        for sink in self.sinks:
            sink.attach(self.sequence)

    @property
    def sink(self) -> StreamSink:
        return self.sinks[0]

    def batch(self, *pieces: str) -> None:
        for piece in pieces:
            self.sink.text(piece, 1)
        self.sink.flush()

    def tick(self, *times: float) -> None:
        for now in times:
            self.stream.tick(now, SLACK)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


STARTED = generation.GenerateResponse(started=generation.GenerationStarted(prompt_tokens=1))
REASONING = generation.GenerateResponse(
    reasoning=generation.ReasoningDelta(text="h", token_ids=[1])
)
FINISHED = generation.GenerationFinished()


async def test_what_precedes_the_first_delta_leaves_with_it(rig: Rig) -> None:
    rig.sink.event(STARTED)
    rig.sink.flush()
    assert rig.socket.writes == []
    assert not rig.stream.is_committed

    rig.batch("a")

    assert rig.socket.writes == [b"open 0:started 0:a/1 "]
    assert rig.socket.status == 200
    assert not rig.sink.may_restart


async def test_deltas_of_one_batch_are_one_write(rig: Rig) -> None:
    rig.batch("a", "b", "c")

    assert rig.socket.writes == [b"open 0:abc/3 "]


async def test_order_is_kept_where_text_and_events_mix(rig: Rig) -> None:
    rig.sink.text("a", 1)
    rig.sink.event(REASONING)
    rig.sink.text("b", 1)
    rig.sink.flush()

    assert b"".join(rig.socket.writes) == b"open 0:a/1 0:reasoning 0:b/1 "


async def test_the_end_leaves_with_the_last_text(rig: Rig) -> None:
    rig.sink.text("a", 1)
    rig.sink.finished(FINISHED)
    rig.sink.flush()

    assert rig.socket.writes == [b"open 0:a/1 0:end "]
    assert rig.socket.closed
    assert rig.ends[0].result() is None


async def test_the_last_choice_ends_the_answer() -> None:
    rig = Rig(choices=2)
    rig.sinks[1].finished(FINISHED)
    assert not rig.socket.closed

    rig.sinks[0].finished(FINISHED)

    assert rig.socket.closed
    assert b"".join(rig.socket.writes) == b"open 1:end 0:end "


async def test_a_reader_that_is_behind_gets_its_deltas_merged(rig: Rig) -> None:
    rig.batch("a")
    rig.socket.full = BEHIND
    for piece in "bcd":
        rig.batch(piece)
    assert len(rig.socket.writes) == 1

    rig.socket.full = 0
    assert rig.socket.drained is not None
    rig.socket.drained()

    assert rig.socket.writes[1:] == [b"0:bcd/3 "]


async def test_credit_is_held_back_while_the_reader_is_behind(rig: Rig) -> None:
    rig.batch("a", "b", "c", "d")
    assert rig.sequence.credits == [4]
    rig.socket.full = BEHIND
    rig.batch("a", "b", "c", "d")
    assert rig.sequence.credits == [4]

    rig.socket.full = 0
    rig.tick(1.0)

    assert rig.sequence.credits == [4, 4]


@pytest.mark.parametrize(
    ("full", "after", "given_up"),
    [(BEHIND, 29.0, False), (BEHIND, 31.0, True), (2 << 20, 1.0, True)],
    ids=["slow", "too slow", "too much"],
)
async def test_a_reader_that_stays_behind_is_given_up(
    rig: Rig, full: int, after: float, given_up: bool
) -> None:
    rig.batch("a")
    rig.socket.full = full
    began = rig.sink._loop_time()
    rig.batch("b")

    rig.tick(began + after)

    assert rig.ends[0].done() is given_up
    assert rig.sequence.cancelled is given_up
    if given_up:
        error = rig.ends[0].result()
        assert error is not None
        assert error.reason is Reason.SLOW_READER


async def test_silence_is_broken_within_a_second(rig: Rig) -> None:
    rig.tick(0.0, 0.25, 0.5)

    assert rig.socket.writes == [b"open : k\n\n"]
    rig.tick(0.75, 1.0)
    assert rig.socket.writes[1:] == [b": k\n\n"]


async def test_a_stream_that_speaks_gets_no_comments(rig: Rig) -> None:
    for step in range(20):
        rig.batch("a")
        rig.tick(step * SLACK)

    assert not any(b": k" in write for write in rig.socket.writes)


async def test_comments_do_not_count_as_events(rig: Rig) -> None:
    rig.batch("a")
    rig.tick(*(step * SLACK for step in range(14)))

    assert rig.socket.writes.count(b"beat ") == 1


async def test_the_comment_says_what_is_waited_for_until_it_has_come(rig: Rig) -> None:
    rig.sink.waiting(registry.EnsureModelResponse(queued=registry.PlacementQueued(position=2)))
    rig.tick(0.0, 0.5)
    assert rig.socket.writes == [b"open : queued, 2 before you\n\n"]

    rig.sink.event(STARTED)
    rig.tick(1.0, 1.5)

    assert rig.socket.writes[-1].endswith(b": k\n\n")


async def test_an_answer_that_goes_on_elsewhere_waits_for_nothing_any_more(rig: Rig) -> None:
    rig.batch("a")
    rig.sink.waiting(registry.EnsureModelResponse(queued=registry.PlacementQueued(position=2)))

    rig.sink.begin(goes_on=True)
    rig.sink.event(STARTED)
    rig.tick(0.0, 0.5, 2.0)

    assert rig.socket.writes[-1] == b": k\n\n"


async def test_a_failure_ends_the_answer_behind_what_was_said(rig: Rig) -> None:
    rig.batch("a")

    rig.stream.fail(FleetError(Reason.ENGINE_FAILED, "x"))

    assert rig.socket.writes[-1] == b"failed"
    assert rig.socket.closed
    rig.tick(100.0, 200.0)
    assert len(rig.socket.writes) == 2
