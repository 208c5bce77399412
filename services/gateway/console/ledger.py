"""The last requests, without anything of their content."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import UnsetType

from services.gateway.telemetry.request_log import RequestLine

MOST_REQUESTS: Final = 500

T = TypeVar("T")


class SeenRequest(msgspec.Struct, kw_only=True):
    """One request that has ended. `detail`, which may quote what the client sent, is left out.

    Attributes:
        number: counts all requests of this process.
        ended_at: seconds since 1970.
        model: its own name; `asked` is what the client called it.
        reason: why it failed; empty where it did not.
    """

    number: int
    ended_at: float
    request_id: str
    dialect: str
    model: str
    asked: str
    principal: str
    stream: bool
    status: int
    reason: str
    client_gone: bool
    elapsed_ms: float
    first_token_ms: float | None
    queue_ms: float | None
    neuron: str
    upstream: str
    instance_id: str
    attempts: int
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class RequestLedger:
    """Keeps the last requests that named a model or failed; listings that went well are none.

    A line is kept as it was logged, and made readable when somebody looks: every request pays for
    what is done at its end.

    Attributes:
        count: how many there were since the start.
    """

    def __init__(self) -> None:
        # its number, its model's own name, and what was logged of it
        self._kept: deque[tuple[int, str, RequestLine]] = deque(maxlen=MOST_REQUESTS)
        self.count = 0

    def note(self, line: RequestLine, model: str) -> None:
        """Adds a request that has ended, unless such requests are not listed."""
        if line.model or line.event != "request.finished":
            self.count += 1
            self._kept.append((self.count, model, line))

    def newest(self, most: int, *, model: str = "", principal: str = "") -> list[SeenRequest]:
        """The newest first.

        Args:
            most: how many.
            model: only those for this model; empty for all.
            principal: only those of this key; empty for all.
        """
        found = (
            _seen(*one)
            for one in reversed(self._kept)
            if model in {"", one[1]} and (not principal or principal == one[2].principal)
        )
        return list(itertools.islice(found, most))

    def since(self, count: int, most: int) -> Sequence[SeenRequest]:
        """Those behind the first `count`, in order: the newest `most` of them."""
        found: list[SeenRequest] = []
        for one in reversed(self._kept):
            if one[0] <= count or len(found) == most:
                break
            found.append(_seen(*one))
        return found[::-1]


def _seen(number: int, model: str, line: RequestLine) -> SeenRequest:
    return SeenRequest(
        number=number,
        ended_at=round(line.timestamp.timestamp(), 3),
        request_id=line.request_id,
        dialect=line.dialect,
        model=model,
        asked=line.model,
        principal=_given(line.principal, ""),
        stream=line.stream,
        status=line.status,
        reason="CANCELLED" if line.client_gone else _given(line.reason, ""),
        client_gone=line.client_gone,
        elapsed_ms=line.elapsed_ms,
        first_token_ms=_given(line.first_token_ms, None),
        queue_ms=_given(line.queue_ms, None),
        neuron=_given(line.neuron, ""),
        upstream=_given(line.upstream, ""),
        instance_id=_given(line.instance_id, ""),
        attempts=_given(line.attempts, 0),
        finish_reason=_given(line.finish_reason, ""),
        prompt_tokens=_given(line.prompt_tokens, 0),
        cached_tokens=_given(line.cached_tokens, 0),
        completion_tokens=_given(line.completion_tokens, 0),
        reasoning_tokens=_given(line.reasoning_tokens, 0),
    )


def _given(value: T | UnsetType, otherwise: T) -> T:
    return otherwise if isinstance(value, UnsetType) else value
