"""Whole chat completions and legacy completions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.whole_answers import whole_answer


@pytest.mark.parametrize("make", [decoding.chat, decoding.completion])
def test_a_fingerprint_that_is_not_known_is_left_out(make: Any) -> None:
    assert "system_fingerprint" not in whole_answer(make())
