"""Streamed legacy completions."""

from __future__ import annotations

from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD


def test_an_echo_is_streamed_once() -> None:
    dialect, decoded = decoding.completion(echo=True)
    projector = dialect.projector(decoded, HEAD)

    told = projector.text(0, " y", 1) + projector.text(0, "ou", 1)

    assert b'"text":"hello y"' in told
    assert b'"text":"ou"' in told
