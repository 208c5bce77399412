"""Clients of the gateway: streams that are checked word by word, many at once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Self

import httpx

from tests.system.fleet import models
from tests.system.fleet.models import WORDS
from tests.system.fleet.processes import Fleet


@dataclasses.dataclass
class Answer:
    """What one streaming request got.

    Attributes:
        started, first_text, ended: seconds on the monotonic clock.
        longest_gap: seconds between two texts.
        error: of the response or of a frame in it; empty for none.
    """

    model: str
    tokens: int
    started: float = 0.0
    first_text: float = 0.0
    ended: float = 0.0
    longest_gap: float = 0.0
    status: int = 0
    text: str = ""
    finish: str = ""
    error: str = ""
    last_text: float = 0.0

    @property
    def is_whole(self) -> bool:
        """True if every word came, in order, to the last one that was asked for."""
        return self.error == "" and self.finish == "length" and self.text == self.expected

    @property
    def expected(self) -> str:
        """What the scripted model says in so many tokens."""
        return models.answer(self.model, self.tokens)

    def __str__(self) -> str:
        return (
            f"{self.model}: {self.status} {self.finish or self.error}"
            f" {len(self.text)}/{len(self.expected)} characters …{self.text[-40:]!r}"
        )


class Clients:
    """One HTTP client for all of a test's requests."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(120.0, connect=10.0),
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def stream(
        self,
        model: str,
        tokens: int,
        answer: Answer | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One chat completion; what came so far is in `answer` while it runs."""
        answer = answer or Answer(model, tokens)
        answer.started = time.monotonic()
        body = {
            "model": model,
            "stream": True,
            "max_tokens": tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": "Go"}],
        }
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            ) as response:
                answer.status = response.status_code
                if answer.status != 200:
                    answer.error = (await response.aread()).decode()
                async for line in response.aiter_lines():
                    _take(answer, line)
        except httpx.HTTPError as error:
            answer.error = repr(error)
        answer.ended = time.monotonic()
        return answer

    def begin(
        self, model: str, tokens: int, *, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, asyncio.Task[Answer]]:
        """Starts a stream; the answer fills while it runs."""
        answer = Answer(model, tokens)
        return answer, asyncio.create_task(self.stream(model, tokens, answer, headers=headers))

    async def all(self, wanted: Sequence[tuple[str, int]]) -> list[Answer]:
        """All of these at once."""
        return await asyncio.gather(*(self.stream(model, tokens) for model, tokens in wanted))


async def has_text(answer: Answer, seconds: float = 60.0) -> None:
    """Waits until the first words have come."""
    async with asyncio.timeout(seconds):
        while not answer.text:
            assert not answer.error, answer
            await asyncio.sleep(0.01)


async def two_loaded(fleet: Fleet, clients: Clients) -> tuple[str, str, str]:
    """Loads models until both neurons have one; returns those of left and right, and the third."""
    async with asyncio.timeout(60):
        while True:
            placed = fleet.placed()
            held = [name for names in placed.values() for name in names]
            absent = next(name for name in WORDS if name not in held)
            if len(held) == 2:
                return placed["left"][0], placed["right"][0], absent
            assert (await clients.stream(absent, 1)).is_whole


def _take(answer: Answer, line: str) -> None:
    if not line.startswith("data: {"):
        return
    event = json.loads(line[6:])
    if "error" in event:
        answer.error = json.dumps(event["error"])
    for choice in event.get("choices", ()):
        text = choice["delta"].get("content") or ""
        if text:
            now = time.monotonic()
            answer.first_text = answer.first_text or now
            answer.longest_gap = max(answer.longest_gap, now - (answer.last_text or now))
            answer.last_text = now
        answer.text += text
        answer.finish = choice.get("finish_reason") or answer.finish
