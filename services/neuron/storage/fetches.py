"""Fetches of models that nobody loads yet: one per source, joined by all who want it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import structlog

from cortex.v1 import model_pb2 as model
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.neuron.sources.neighbour import Neighbour
from services.neuron.sources.resolver import Sources

log = structlog.get_logger()


@dataclasses.dataclass(eq=False, slots=True)
class _Fetch:
    """One fetch under way."""

    task: asyncio.Task[model.StoredModel]
    changes: Changes
    progress: model.LoadProgress
    callers: int = 0


class Fetches:
    """The fetches under way and those who wait for them."""

    def __init__(self, sources: Sources, relist: Callable[[], Awaitable[None]]) -> None:
        """Fetches nothing yet.

        Args:
            sources: where files come from.
            relist: lists the disk anew, so that what has come is offered at once.
        """
        self._sources = sources
        self._relist = relist
        self._under_way: dict[tuple[str, str, bool], _Fetch] = {}

    async def fetch(
        self, source: str, quant: str, neighbours: Sequence[Neighbour], *, verify: bool = False
    ) -> AsyncGenerator[model.LoadProgress | model.StoredModel]:
        """Fetches a source, or joins its fetch, or finds its files here.

        Args:
            source: as in a load.
            quant: likewise.
            neighbours: who is asked before the hub.
            verify: compares what is here with the source's digests first.

        Yields: progress, then what has come, last.

        Raises:
            FleetError: why it failed.
        """
        if not source:
            raise FleetError(Reason.BAD_REQUEST, "No source is named.", field="source")
        key = (source, quant, verify)
        under_way = self._under_way.get(key)
        if under_way is None:
            under_way = self._begin(source, quant, neighbours, verify=verify)
            self._under_way[key] = under_way
        under_way.callers += 1
        told: model.LoadProgress | None = None
        try:
            while not under_way.task.done():
                version = under_way.changes.version
                if under_way.progress is not told:
                    told = under_way.progress
                    yield told
                    continue
                await first_ended(under_way.changes.after(version), kept=(under_way.task,))
            if under_way.task.cancelled():
                raise FleetError(Reason.CANCELLED, "The fetch was abandoned.")
            yield under_way.task.result()
        finally:
            under_way.callers -= 1
            if not under_way.callers:
                under_way.task.cancel()
                if self._under_way.get(key) is under_way:
                    del self._under_way[key]

    async def stop(self) -> None:
        """Ends all fetches; what has come stays."""
        tasks = [each.task for each in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(
        self, source: str, quant: str, neighbours: Sequence[Neighbour], *, verify: bool
    ) -> _Fetch:
        changes = Changes()

        def on_bytes(done: int, total: int) -> None:
            made.progress = model.LoadProgress(
                phase=model.LOAD_PHASE_DOWNLOADING, bytes_done=done, bytes_total=total
            )
            changes.bump()

        async def run() -> model.StoredModel:
            if verify:
                await self._sources.discard_damaged(source, quant)
            found = await self._sources.locate(source, quant, on_bytes, neighbours)
            stored = await asyncio.to_thread(self._sources.described, found)
            await self._relist()
            log.info("model.fetched", model=stored.model, source=source, bytes=stored.bytes)
            return stored

        task = asyncio.create_task(run(), name=f"fetch-{source}")
        # Whoever waited may have left by the time it fails.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        made = _Fetch(task, changes, model.LoadProgress(phase=model.LOAD_PHASE_RESOLVING))
        return made
