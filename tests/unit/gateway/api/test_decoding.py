"""Bodies of many items: bounded, decoded beside the event loop."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.api.decoding import Decoding, is_short
from services.gateway.dialects.dialect import Collected, Head, TooMuchHereError
from tests.unit.gateway.dialects.answers import HEAD


async def test_a_body_with_too_many_items_is_refused_by_the_setting_s_name() -> None:
    decoding = Decoding(most_items=1000)
    body = json.dumps({"messages": [0] * 2000}).encode()

    with pytest.raises(FleetError, match=r"gateway\.max_body_items") as raised:
        await decoding.run(lambda *_: pytest.fail("it was decoded"), body, HEAD)

    assert raised.value.reason is Reason.BODY_TOO_LARGE
    decoding.close()


async def test_a_large_body_is_decoded_in_a_thread_and_a_small_one_at_once() -> None:
    decoding = Decoding(most_items=1000)

    def read(_: bytes, __: Head) -> int:
        return threading.get_ident()

    assert await decoding.run(read, b"[0]", HEAD) == threading.get_ident()
    large = json.dumps("x" * (1 << 20)).encode()
    assert await decoding.run(read, large, HEAD) != threading.get_ident()
    decoding.close()


async def test_what_nobody_waits_for_any_more_is_not_decoded() -> None:
    decoding = Decoding(most_items=1000)
    large = json.dumps("x" * (1 << 20)).encode()
    gate = threading.Event()
    decoded: list[int] = []
    busy = [
        asyncio.create_task(decoding.run(lambda *_: gate.wait(10), large, HEAD)) for _ in range(2)
    ]
    left = asyncio.create_task(decoding.run(lambda *_: decoded.append(1), large, HEAD))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait({left})
    gate.set()
    await asyncio.gather(*busy)
    await decoding.run(lambda *_: None, large, HEAD)

    assert decoded == []
    decoding.close()


async def test_a_small_body_that_leads_to_much_is_decoded_in_a_thread() -> None:
    decoding = Decoding(most_items=1000)
    here = threading.get_ident()

    def read(_: bytes, __: Head) -> int:
        if threading.get_ident() == here:
            raise TooMuchHereError
        return threading.get_ident()

    assert await decoding.run(read, b"[0]", HEAD) != here
    decoding.close()


async def test_an_answer_of_many_log_probabilities_is_worded_in_a_thread() -> None:
    decoding = Decoding(most_items=1000)
    alternatives = [generation.TokenLogprob() for _ in range(20)]

    def choice(tokens: int) -> Collected:
        told = [generation.TokenLogprob(alternatives=alternatives) for _ in range(tokens)]
        return Collected([], told, [], generation.GenerationFinished(), [tokens])

    here = threading.get_ident()
    assert is_short([choice(0), choice(20)])
    assert not is_short([choice(0), choice(60)])
    assert await decoding.word(threading.get_ident) != here
    decoding.close()
