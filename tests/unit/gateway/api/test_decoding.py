"""Bodies of many items: bounded, counted in linear time, decoded beside the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backplane.errors import FleetError, Reason
from services.gateway.api.decoding import Decoding, has_more_items
from services.gateway.dialects.dialect import Head
from tests.unit.gateway.dialects.answers import HEAD

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just('a,"\\,b'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=30,
)


def commas(value: Any) -> int:
    """How many items stand behind another one in the same list or object."""
    if not isinstance(value, (list, dict)):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return max(0, len(value) - 1) + sum(commas(one) for one in inner)


@given(JSON, st.booleans())
def test_items_are_counted_outside_of_strings(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    found = commas(value)

    assert not has_more_items(body, found + 1)
    assert found == 0 or has_more_items(body, found)


def test_text_of_any_length_with_commas_is_one_item() -> None:
    body = json.dumps({"input": "a, b, " * 1_000_000}).encode()

    assert not has_more_items(body, 100)


@pytest.mark.parametrize("item", [b"0,", b'"",', b'{"a":"b"},', b'"\\"",', b'""', b'"\\\\'])
def test_counting_sixty_megabytes_takes_no_long(item: bytes) -> None:
    body = b"[" + item * ((60 << 20) // len(item))
    began = time.process_time()

    has_more_items(body, 100_000)

    assert time.process_time() - began < 5  # 0.1 to 1 s here


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
