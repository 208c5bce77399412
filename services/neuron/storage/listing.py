"""What could be loaded from this neuron's disk, looked at again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from cortex.v1 import model_pb2 as model
from services.neuron.instances.instances import Instances
from services.neuron.sources.resolver import Sources
from services.neuron.storage.last_use import LastUse
from services.neuron.storage.residency import Residency
from services.neuron.storage.unfinished import UnfinishedDownloads

# Between two looks at a disk, as a multiple of how long the last one took: a network's file system
# with thousands of files is looked at less often.
_PAUSE: Final = 10.0
_LONGEST_PAUSE_SECONDS: Final = 30.0


class DiskListing:
    """Lists the models on the disk, with when each was last in use.

    Args:
        sources: look at the disk.
        instances: what is in use now.
        last_use: when each model was in use, over restarts.
        residency: how much of each model is in memory.
        unfinished: what downloads that ended early have left.
        problems: told with those of the files: why something that could be here is not.
        on_listed: is told what there is, a line for each file that cannot be loaded, and what is
            not finished.
    """

    def __init__(
        self,
        sources: Sources,
        instances: Instances,
        last_use: LastUse,
        *,
        residency: Residency,
        unfinished: UnfinishedDownloads,
        problems: Sequence[str],
        on_listed: Callable[
            [Sequence[model.StoredModel], Sequence[str], Sequence[model.UnfinishedDownload]], None
        ],
    ) -> None:
        self._sources = sources
        self._instances = instances
        self._last_use = last_use
        self._residency = residency
        self._unfinished = unfinished
        self._problems = problems
        self._on_listed = on_listed
        self._again_at = 0.0

    async def begin(self) -> None:
        """Removes unfinished downloads that are too old, then looks at the disk."""
        await asyncio.to_thread(self._unfinished.sweep)
        await self.look()

    async def look(self) -> None:
        """Looks at the disk."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        stored, broken = await asyncio.to_thread(self._sources.listing)
        self._last_use.note(self._instances)
        loaded = [instance.instance_id for instance in self._instances]
        await asyncio.to_thread(self._residency.look, loaded)
        self._last_use.tell(stored)
        await asyncio.to_thread(self._last_use.keep)
        unfinished = await asyncio.to_thread(self._unfinished.listed)
        self._on_listed(stored, [*self._problems, *broken], unfinished)
        now = loop.time()
        self._again_at = now + min(_LONGEST_PAUSE_SECONDS, _PAUSE * (now - begun))

    async def look_in_turn(self) -> None:
        """Looks at the disk, but not too soon after a look that took long."""
        if asyncio.get_running_loop().time() >= self._again_at:
            await self.look()

    async def offer_at_once(self) -> None:
        """Offers new files now: looks twice, because only files that stand still are offered."""
        await self.look()
        await self.look()
