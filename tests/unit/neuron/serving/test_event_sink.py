from __future__ import annotations

import asyncio

import pytest

from cortex.v1 import generation_pb2 as g
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving.event_sink import ReaderSink


def queued(position: int) -> g.GenerateResponse:
    return g.GenerateResponse(queued=g.GenerationQueued(position=position))


async def read_all(sink: ReaderSink):
    return [item async for item in sink.read()]


async def test_text_that_was_not_taken_yet_is_merged_with_its_tokens():
    sink = ReaderSink()
    sink.text("a", (1,), (TokenLogprob(1, b"a", -1.0),))
    sink.text("b", (2, 3), ())
    sink.finished(g.GenerationFinished())

    (text, tokens), (end, _) = await read_all(sink)

    assert text.text.text == "ab"
    assert list(text.text.token_ids) == [1, 2, 3]
    assert len(text.text.logprobs) == 1
    assert tokens == 3
    assert end.HasField("finished")


async def test_other_events_keep_their_place_between_texts():
    sink = ReaderSink()
    sink.text("a", (1,), ())
    sink.event(g.GenerateResponse(reasoning=g.ReasoningDelta(text="hm")), 1)
    sink.text("b", (2,), ())
    sink.finished(g.GenerationFinished())

    kinds = [event.WhichOneof("event") for event, _ in await read_all(sink)]

    assert kinds == ["text", "reasoning", "text", "finished"]


async def test_of_waiting_news_only_the_newest_counts():
    sink = ReaderSink()
    for position in (3, 2, 1):
        sink.event(queued(position))
    sink.finished(g.GenerationFinished())

    (first, _), _ = await read_all(sink)

    assert first.queued.position == 1


async def test_an_error_comes_behind_what_was_said():
    sink = ReaderSink()
    sink.text("a", (1,), ())
    sink.failed(FleetError(Reason.WORKER_LOST, "gone"))
    reading = sink.read()

    event, _ = await anext(reading)

    assert event.text.text == "a"
    with pytest.raises(FleetError):
        await anext(reading)


async def test_a_waiting_reader_is_woken():
    sink = ReaderSink()
    reading = asyncio.ensure_future(anext(sink.read()))
    await asyncio.sleep(0)

    sink.text("a", (1,), ())

    event, tokens = await asyncio.wait_for(reading, 60)
    assert (event.text.text, tokens) == ("a", 1)
