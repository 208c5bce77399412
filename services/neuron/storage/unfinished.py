"""What downloads that ended early have left on the disk: shown, removed, and swept when it is old.

A fetch of the same files goes on behind it, so it is kept for a while.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Final

import structlog

from cortex.v1 import model_pb2 as model
from services.neuron.sources.disk_space import folder_bytes
from services.neuron.sources.hub_store import HubStore
from services.neuron.sources.package import FETCHING

_DAY_SECONDS: Final = 86_400

log = structlog.get_logger()


class UnfinishedDownloads:
    """The left-overs in the model store of one neuron."""

    def __init__(self, store: HubStore, folder: pathlib.Path, *, days: float) -> None:
        """Looks at nothing yet.

        Args:
            store: of the hub's files.
            folder: of the whole model store, where packages are unpacked too.
            days: for which what nobody goes on with is kept; 0 keeps it for good.
        """
        self._store = store
        self._folder = folder
        self._days = days

    def listed(self) -> list[model.UnfinishedDownload]:
        """All of a hub's that no fetch is at now, by origin. Blocks."""
        found: list[model.UnfinishedDownload] = []
        for origin, folder in self._store.unfinished():
            one = model.UnfinishedDownload(origin=origin, bytes=folder_bytes(folder))
            one.modified_at.FromNanoseconds(_newest_ns(folder))
            found.append(one)
        return sorted(found, key=lambda one: one.origin)

    def sweep(self) -> None:
        """Removes what was written to last longer ago than is allowed, and says so. Blocks."""
        if not self._days:
            return
        oldest_ns = time.time_ns() - int(self._days * _DAY_SECONDS * 1e9)
        for origin, folder in [*self._store.unfinished(), *self._packages()]:
            newest_ns = _newest_ns(folder)
            if newest_ns < oldest_ns:
                size, days = folder_bytes(folder), (time.time_ns() - newest_ns) / 1e9 / _DAY_SECONDS
                shutil.rmtree(folder, ignore_errors=True)
                log.info("store.unfinished_removed", source=origin, bytes=size, days=round(days, 1))

    def _packages(self) -> Iterator[tuple[str, pathlib.Path]]:
        """Folders that pip wrote to for a neuron that did not come to their end."""
        if self._folder.is_dir():
            for folder in self._folder.glob(f"{FETCHING}*"):
                yield "package", folder


def _newest_ns(folder: pathlib.Path) -> int:
    """When something below a folder was written last; now, where it goes away meanwhile."""
    newest = 0
    try:
        for inside, _, names in os.walk(folder):
            here = pathlib.Path(inside)
            paths = [here, *(here / name for name in names)]
            newest = max(newest, *(path.stat().st_mtime_ns for path in paths))
    except OSError:
        return time.time_ns()
    return newest or time.time_ns()
