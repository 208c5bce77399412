"""Calls to one worker process that end with one answer: counts, vectors, comparisons."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TypeVar

from services.backplane.errors import FleetError
from services.neuron.engine_api.cache import Comparison
from services.neuron.engine_api.frames import (
    AbandonCall,
    Command,
    Compared,
    CompareTokens,
    Counted,
    CountTokens,
    Embedded,
    EmbedTexts,
)
from services.neuron.engine_api.task import Prompt

T = TypeVar("T")
K = TypeVar("K", int, str)


class WorkerCalls:
    """Sends calls, and keeps who waits for their answers.

    Args:
        send: writes commands.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._call_ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Counted | Embedded | Compared]] = {}
        self._lost: FleetError | None = None

    async def count(
        self, instance_id: str, prompt: Prompt, *, principal: str = "", wants_ids: bool = False
    ) -> Counted:
        """How many tokens a prompt has, for a principal; with `wants_ids` also which.

        Raises:
            FleetError: with the engine's reason, or WORKER_LOST.
        """
        command = CountTokens(next(self._call_ids), instance_id, prompt, principal, wants_ids)
        answer = await self._call(command)
        assert isinstance(answer, Counted)
        return answer

    async def embed(
        self, instance_id: str, inputs: tuple[Prompt, ...], *, truncate: bool, principal: str = ""
    ) -> Embedded:
        """One vector per input, for a principal.

        Raises:
            FleetError: with the engine's reason, or WORKER_LOST.
        """
        command = EmbedTexts(next(self._call_ids), instance_id, inputs, truncate, principal)
        answer = await self._call(command)
        assert isinstance(answer, Embedded)
        return answer

    async def compare(
        self, instance_id: str, token_ids: tuple[int, ...], *, principal: str
    ) -> Comparison:
        """A prompt beside what the cache holds of it for a principal.

        Raises:
            FleetError: with the engine's reason, or WORKER_LOST.
        """
        command = CompareTokens(next(self._call_ids), instance_id, token_ids, principal)
        answer = await self._call(command)
        assert isinstance(answer, Compared)
        return answer.comparison

    async def _call(
        self, command: CountTokens | EmbedTexts | CompareTokens
    ) -> Counted | Embedded | Compared:
        try:
            return await self._until(self._calls, command.call_id, command)
        except asyncio.CancelledError:
            self._send(AbandonCall(command.call_id))
            raise

    async def _until(self, waiting: dict[K, asyncio.Future[T]], key: K, command: Command) -> T:
        self._check()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting[key] = future
        self._send(command)
        try:
            return await future
        finally:
            waiting.pop(key, None)

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost.anew()
