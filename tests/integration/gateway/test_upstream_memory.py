"""What an upstream cannot make the gateway keep: answers for slow clients, cookies."""

from __future__ import annotations

import asyncio
import unittest.mock
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from cortex.v1 import generation_pb2 as generation
from services.backplane.process.faults import Faults
from services.gateway.transports.transport import token_ids
from services.gateway.transports.upstream.settings import UpstreamSettings
from services.gateway.transports.upstream.upstream import Upstream
from tests.doubles.scripted_upstream import DONE, Answer, ScriptedUpstream, chunk
from tests.integration.gateway.fleet import Fleet


@pytest.fixture
async def far() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as one:
        yield one


def upstream(far: ScriptedUpstream, **more: Any) -> UpstreamSettings:
    return UpstreamSettings(name="far", url=far.url, models=("big",), **more)


async def test_a_reader_that_is_slow_holds_the_upstream_back(far: ScriptedUpstream) -> None:
    pieces = (chunk("a"), chunk("b"), chunk("c"), chunk(finish="stop"), DONE)
    gate = asyncio.Event()
    far.answers = [Answer(pieces=pieces, gate=gate)]
    faults = Faults(CollectorRegistry(), "test")
    one = Upstream(upstream(far, idle_seconds=0.2), place="u", window_tokens=1, faults=faults)
    request = generation.GenerateRequest(text="Hi")
    sink = Mock()
    told = asyncio.Event()
    sink.text.side_effect = lambda *_: told.set()
    ended = asyncio.Event()
    sink.finished.side_effect = sink.failed.side_effect = lambda *_: ended.set()

    encoded = await one.encoded(request, model="big", prompt_tokens=1)
    call = one.start(encoded, sink, request_id="r", traceparent="", prompt_tokens=1)
    async with asyncio.timeout(20):
        await told.wait()  # the credit is used up
        gate.set()
        await asyncio.sleep(0.5)  # longer than it may be silent: it is not the one who is
        assert [unittest.mock.call("a", 1)] == sink.text.call_args_list
        assert not ended.is_set()
        call.credit(10)
        await ended.wait()

    assert ["a", "b", "c"] == [one.args[0] for one in sink.text.call_args_list]
    sink.failed.assert_not_called()
    await one.close()


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "Hm"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": " "}}]},
    ],
)
async def test_thoughts_and_calls_are_held_back_and_counted_like_text(
    far: ScriptedUpstream, delta: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    far.answers = [Answer(pieces=[chunk(**delta)] * 3 + [chunk(finish="stop"), DONE], gate=gate)]
    faults = Faults(CollectorRegistry(), "test")
    one = Upstream(upstream(far), place="u", window_tokens=1, faults=faults)
    sink, told, ended = Mock(), asyncio.Event(), asyncio.Event()
    pieces: list[Any] = []

    def heard(event: Any) -> None:
        if token_ids(event):
            pieces.append(event)
            told.set()

    sink.event.side_effect = heard
    sink.finished.side_effect = sink.failed.side_effect = lambda *_: ended.set()
    request = generation.GenerateRequest(text="Hi")

    encoded = await one.encoded(request, model="big", prompt_tokens=1)
    call = one.start(encoded, sink, request_id="r", traceparent="", prompt_tokens=1)
    async with asyncio.timeout(20):
        await told.wait()  # the credit is used up
        gate.set()
        await asyncio.sleep(0.3)
        assert 1 == len(pieces)
        call.credit(10)
        await ended.wait()

    assert 3 == len(pieces)
    await one.close()


async def test_what_one_answer_would_have_kept_is_not_sent_with_the_next(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(upstream(far),))
    far.answers = [Answer(headers={"set-cookie": "who=ann; Path=/"})]

    for _ in range(2):
        assert 200 == (await bare.chat(model="big")).status_code

    assert [None, None] == [one.headers.get("cookie") for one in far.asked]
