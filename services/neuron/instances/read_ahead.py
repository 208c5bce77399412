"""Prepares a load while the model before it still drains: reads its files, starts its worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil
import structlog

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.neuron.devices.inventory import CPU
from services.neuron.instances.assign import Assignments
from services.neuron.sources.resolver import Sources
from services.neuron.supervisor.listener import WorkerListener
from services.neuron.supervisor.supervisor import Supervisor

_MOST_SHARE: Final = 0.5
"""Of the memory that is available, so much is read ahead at most: it must not push out others."""

log = structlog.get_logger()


class ReadAhead:
    """Starts workers and reads files before a load begins. What fails here the load does again."""

    def __init__(
        self,
        *,
        sources: Sources,
        assignments: Assignments,
        supervisor: Supervisor,
        listener: WorkerListener,
        faults: Faults,
    ) -> None:
        self._sources = sources
        self._assignments = assignments
        self._supervisor = supervisor
        self._listener = listener
        self._faults = faults
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, spec: model.LoadSpec) -> None:
        """Starts preparing a load in the background."""
        kept = model.LoadSpec()
        kept.CopyFrom(spec)
        task = asyncio.create_task(self._prepare(kept), name="read-ahead")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, spec: model.LoadSpec) -> None:
        """1. A process for its worker, where that takes nothing of a device: on the CPU.

        2. Its files into the page cache, where they are on this disk.
        """
        try:
            weights = await asyncio.to_thread(self._sources.find, spec)
            if weights is None:
                return
            placement, _ = await self._assignments.consider(spec, weights)
            if placement.key.device_ids == (CPU,):
                self._supervisor.prepare(placement.key, self._listener)
            files = weights.files or (weights.path,)
            asked = await asyncio.to_thread(ask_for, [Path(file) for file in files])
            log.info("model.read_ahead", model=spec.model, bytes=asked)
        except FleetError:  # the load will say so itself
            return
        except Exception as error:  # noqa: BLE001 - the load goes without
            self._faults.note("read_ahead", error)


def ask_for(files: Sequence[Path]) -> int:
    """Asks the kernel to read files into its page cache, without waiting.

    Returns: how many bytes were asked for, at most half of the memory that is available. Blocks
    where the disk's queue is full.

    Raises:
        OSError: a file cannot be opened.
    """
    left = int(psutil.virtual_memory().available * _MOST_SHARE)
    asked = 0
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            size = min(os.fstat(descriptor).st_size, left - asked)
            if size > 0:
                os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_WILLNEED)
                asked += size
        finally:
            os.close(descriptor)
    return asked
