"""Input items as they are listed again."""

from __future__ import annotations

from typing import Any

import pytest

from services.gateway.dialects.openai_responses.listed import listed_items


@pytest.mark.parametrize(
    ("sent", "listed"),
    [
        (
            "hi",
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            },
        ),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "hi"}]}],
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
                ],
            },
        ),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}],
            {
                "id": "in_1_0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:", "detail": "auto"}],
            },
        ),
        (
            [{"type": "function_call_output", "id": None, "call_id": "c", "output": "x"}],
            {
                "id": "in_1_0",
                "type": "function_call_output",
                "call_id": "c",
                "output": "x",
                "status": "completed",
            },
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "content": None}],
            {"id": "rs_1", "type": "reasoning", "summary": []},
        ),
    ],
)
def test_items_are_listed_whole(sent: Any, listed: dict[str, Any]) -> None:
    assert listed_items(sent, "resp_1") == [listed]


@pytest.mark.parametrize(
    "odd", [{"type": 1}, {"type": ["message"]}, {"role": "user", "content": [{"type": {}}, 5]}]
)
def test_what_is_no_item_is_left_as_it_came(odd: dict[str, Any]) -> None:
    (listed,) = listed_items([odd], "resp_1")

    assert odd.items() <= listed.items()
