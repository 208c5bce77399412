"""Whole answers, as JSON."""

from __future__ import annotations

import json
from typing import Any

from cortex.v1 import generation_pb2 as generation
from tests.unit.gateway.dialects.answers import (
    HEAD,
    Answer,
    Segment,
    collect,
    events_of,
)

HELLO_ANSWER = Answer((Segment("text", "Hello"),), generation.FINISH_REASON_END_OF_TURN)


COLLECTED = collect(HELLO_ANSWER, events_of(HELLO_ANSWER))


def whole_answer(made: tuple[Any, Any]) -> dict[str, Any]:
    dialect, decoded = made
    found: dict[str, Any] = json.loads(dialect.body(decoded, HEAD, [COLLECTED]))
    return found
