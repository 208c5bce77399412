"""Embeddings, from body to body."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.gateway.dialects.openai_embeddings.routes import OpenAIEmbeddings
from tests.unit.gateway.dialects.fixed_fleet import look_up_in


async def test_embeddings_as_numbers_and_packed() -> None:
    plain = await look_up_in(OpenAIEmbeddings(), {"model": "m", "input": ["a", "b"]})
    body = {"model": "m", "input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 2}
    packed = await look_up_in(OpenAIEmbeddings(), body)

    assert [[0.5, -1.0], [0.5, -1.0]] == [one["embedding"] for one in plain["data"]]
    assert {"prompt_tokens": 7, "total_tokens": 7} == plain["usage"]
    raw = base64.b64decode(packed["data"][1]["embedding"])
    assert (0.5, -1.0) == struct.unpack("<2f", raw)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["a", ""]}, "input.1"),
        ({"model": "m", "input": [["a"]]}, "input.0"),
        ({"model": "m", "input": ["x"] * 2049}, "input"),
        ({"model": "m", "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"model": "m", "input": "x", "dimensions": 0}, "dimensions"),
    ],
)
async def test_a_bad_embedding_request_is_refused(body: Any, field: str) -> None:
    with pytest.raises(FleetError) as raised:
        await look_up_in(OpenAIEmbeddings(), body)

    assert field == raised.value.field
