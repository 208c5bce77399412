"""What only a Session owes: batches, credit, in-band cancel, isolation."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles.neuron_host import PATIENCE_SECONDS, chat, running_neuron
from tests.doubles.neuron_transports import SessionStream, answer, session_of


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        await host.load("bravo")
        await host.load("endless")
        yield host


@pytest.fixture
async def session(host):
    async with session_of(host) as session:
        yield session


async def text_of(stream: SessionStream, tokens: int) -> str:
    """The text of the next so many tokens."""
    text, count = "", 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in stream:
            text += event.text.text
            count += len(event.text.token_ids)
            if count >= tokens:
                assert count == tokens
                return text
    raise AssertionError("it ended early")


async def test_one_message_carries_many_sequences(session):
    rules = generation.StopRules(max_tokens=500)
    streams = [session.start(chat(model="endless", stop=rules)) for _ in range(4)]

    answers = await asyncio.gather(*map(answer, streams))

    assert all(made.tokens == 500 for made in answers)
    widest = max(len(message.text_sequence_ids) for message in session.messages)
    assert widest >= 2
    assert len(session.messages) < 4 * 500


async def test_plain_text_travels_by_column(session):
    made = await answer(session.start(chat(model="bravo")))

    assert made.text == "Hello from model bravo"
    events = [each.event for message in session.messages for each in message.events]
    assert [event.WhichOneof("event") for event in events] == ["started"]


async def test_a_sequence_without_credit_is_not_decoded(host, session):
    stream = session.start(chat(model="endless"), credit=5)
    assert await text_of(stream, 5) == "la li lu la li".replace(" la", "la")

    other = await answer(
        session.start(chat(model="endless", stop=generation.StopRules(max_tokens=100)))
    )
    assert other.tokens == 100  # a hundred steps in which the first one could have gone on
    assert stream.inbox.empty()

    stream.grant(3)
    assert len(await text_of(stream, 3)) > 0
    await stream.cancel()
    await host.until_idle("endless")


async def test_no_event_follows_a_cancel(host, session):
    stream = session.start(chat(model="endless"))
    await text_of_some(stream)

    await stream.cancel()
    await host.until_idle("endless")
    # A round trip behind the cancel: what comes for the sequence now was sent after it was read.
    await answer(session.start(chat(model="bravo")))
    seen = stream.inbox.qsize()
    await answer(session.start(chat(model="bravo")))

    assert stream.inbox.qsize() == seen
    ends = [end.sequence_id for message in session.messages for end in message.ends]
    assert stream.sequence_id not in ends


async def text_of_some(stream) -> None:
    async for event in stream:
        if event.text.text:
            return


async def test_one_failure_leaves_the_others_alone(session):
    good = [session.start(chat(model="bravo")) for _ in range(3)]
    bad = [
        session.start(chat(model="nowhere")),
        session.start(chat(model="bravo", top_logprobs=99)),
        session.start(chat("x" * 9000, model="bravo")),
    ]

    answers = await asyncio.gather(*map(answer, [*good, *bad]))

    assert [made.text for made in answers[:3]] == ["Hello from model bravo"] * 3
    reasons = [made.error.reason for made in answers[3:] if made.error]
    assert reasons == [Reason.MODEL_UNKNOWN, Reason.BAD_REQUEST, Reason.CONTEXT_TOO_LONG]


async def test_starts_and_cancels_travel_together(host, session):
    first = session.start(chat(model="endless"))
    await text_of_some(first)
    start = neuron.SessionStart(sequence_id=500, request=chat(model="bravo"), credit_tokens=1000)
    inbox: asyncio.Queue[object] = asyncio.Queue()
    session._inboxes[500] = inbox

    session.send(neuron.SessionRequest(starts=[start], cancelled_sequence_ids=[first.sequence_id]))

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not isinstance(await inbox.get(), neuron.SequenceEnd):
            pass
    await host.until_idle("endless")


async def test_half_closing_lets_what_runs_finish(host):
    call = host.stub.Session()
    start = neuron.SessionStart(sequence_id=1, request=chat(model="bravo"), credit_tokens=1000)
    await call.write(neuron.SessionRequest(starts=[start]))
    await call.done_writing()

    messages = [message async for message in call]

    assert messages[-1].ends[0].finished.reason == generation.FINISH_REASON_END_OF_TURN
    assert "".join(text for message in messages for text in message.texts)


async def test_a_caller_that_vanishes_frees_all_its_places(host):
    async with session_of(host) as session:
        for _ in range(3):
            await text_of_some(session.start(chat(model="endless")))

    await host.until_idle("endless")


async def test_a_reader_that_takes_nothing_is_ended(tmp_path):
    async with running_neuron(tmp_path, slow_reader_seconds=0.2) as host:
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        await host.load("endless")
        async with session_of(host) as session:
            made = await answer(session.start(chat(model="endless"), credit=5))

        assert made.error is not None
        assert made.error.reason is Reason.SLOW_READER
        assert made.tokens == 5
        await host.until_idle("endless")


async def test_a_slow_reader_of_generate_stops_the_decoding(host):
    """Its transport holds some, its credit the rest; nothing is decoded for nobody."""
    words = [letter * 200 for letter in "abcdefghijklmnopqrst"]
    host.script("wordy", words=words, is_endless=True)
    await host.load("wordy")
    # Its alternatives make every token some kilobytes, far more than any window in all.
    rules = generation.StopRules(max_tokens=3000)
    call = host.stub.Generate(chat(model="wordy", stop=rules, top_logprobs=20))
    await host.until_busy("wordy")

    # As many steps as the slow one would have needed, in the same batch.
    made = [event async for event in host.stub.Generate(chat(model="wordy", stop=rules))]

    assert made[-1].finished.usage.completion_tokens == 3000
    assert (await host.instance("wordy")).active_requests == 1
    late = [event async for event in call]
    assert late[-1].finished.usage.completion_tokens == 3000
