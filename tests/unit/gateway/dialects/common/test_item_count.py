"""Items of JSON are counted in linear time, without decoding it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dialects.common import item_count
from services.gateway.dialects.common.item_count import count_items

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

    assert count_items(body, found + 1) == found
    assert count_items(body, found) == found


def test_text_of_any_length_with_commas_is_one_item() -> None:
    body = json.dumps({"input": "a, b, " * 1_000_000}).encode()

    assert count_items(body, 100) < 10


@pytest.mark.parametrize("item", [b"0,", b'"",', b'{"a":"b"},', b'"\\"",', b'""', b'"\\\\'])
def test_counting_sixty_megabytes_takes_no_long(item: bytes) -> None:
    body = b"[" + item * ((60 << 20) // len(item))
    began = time.process_time()

    assert count_items(body, 100_000) <= 100_000

    assert time.process_time() - began < 5  # 0.1 to 1 s here


@pytest.mark.parametrize("size", [1, 2, 5])
@given(value=JSON, escaped=st.booleans())
def test_items_are_counted_alike_wherever_a_piece_ends(
    size: int, value: Any, escaped: bool
) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    found = commas(value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(item_count, "_SMALL_PIECE_BYTES", size)

        assert count_items(body, found + 1) == found
        assert count_items(body, found) == found


def test_objects_of_one_field_within_another_are_no_items() -> None:
    body = b'{"": {"": {"": "a,b"}}}'

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(item_count, "_SMALL_PIECE_BYTES", 5)

        assert count_items(body, 1) == 0


@pytest.mark.parametrize("text", [b"a,", b'\\",', b"\\\\,"])
def test_others_run_while_a_long_text_with_commas_is_looked_through(text: bytes) -> None:
    body = b'["' + text * ((60 << 20) // len(text)) + b'"]'
    counting = threading.Thread(target=count_items, args=(body, 1_000))

    counting.start()
    turns = 0
    while counting.is_alive():
        time.sleep(0)
        turns += 1

    assert turns > 8  # 1 to 3 where the whole text was one step
