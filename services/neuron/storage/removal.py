"""Removes models that this neuron has fetched itself, and nothing that somebody else put there.

And what fetches that ended early have left of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Awaitable, Callable

import structlog

from services.backplane.errors import FleetError, Reason
from services.neuron.instances.instances import Instances
from services.neuron.sources.hub import HubSource
from services.neuron.sources.resolver import Sources
from services.neuron.weights.inspect import Weights

log = structlog.get_logger()


class StoredModelRemover:
    """Removes stored models, one after the other."""

    def __init__(
        self,
        *,
        sources: Sources,
        hub: HubSource,
        instances: Instances,
        relist: Callable[[], Awaitable[None]],
    ) -> None:
        """Removes nothing yet.

        Args:
            sources: which models there are, and which of them were fetched.
            hub: what removes unfinished downloads.
            instances: what is loaded or being loaded; it keeps its files.
            relist: lists the disk anew.
        """
        self._sources = sources
        self._hub = hub
        self._instances = instances
        self._relist = relist
        self._turn = asyncio.Lock()

    async def remove(self, name: str) -> int:
        """Removes the files of a model.

        Args:
            name: as it is listed; `hf:OWNER/NAME@REVISION` for an unfinished download.

        Returns: bytes that were freed.

        Raises:
            FleetError: NOT_FOUND, there is no such model; BAD_REQUEST, somebody else put it there,
                or an instance has it; SOURCE_UNAVAILABLE, the disk refuses.
        """
        if name.startswith("hf:"):
            freed = await self._hub.discard_unfinished(name)
            log.info("store.unfinished_removed", source=name, bytes=freed)
            await self._relist()
            return freed
        async with self._turn:
            weights = await asyncio.to_thread(self._sources.stored, name)
            if weights is None:
                raise FleetError(
                    Reason.NOT_FOUND, f"There is no {name!r} on this disk.", field="model"
                )
            if not self._sources.origin_of(weights.path):
                raise FleetError(
                    Reason.BAD_REQUEST,
                    f"{name} was not fetched by this neuron: {weights.path} is for who put it"
                    " there to remove.",
                    field="model",
                )
            self._require_unused(name, weights)
            freed = await asyncio.to_thread(_remove, weights)
            log.info("model.removed", model=name, path=str(weights.path), freed_bytes=freed)
        await self._relist()
        return freed

    def _require_unused(self, name: str, weights: Weights) -> None:
        # A load that looks for its files now may be about to find these.
        for instance in self._instances:
            used = instance.weights
            if used is None or used.source == f"path:{weights.path}":
                raise FleetError(
                    Reason.BAD_REQUEST,
                    f"{name} is in use: {instance.model} is {instance.state.value} here.",
                    field="model",
                )


def _remove(weights: Weights) -> int:
    """Removes files, and folders that are empty then. Blocks.

    Raises:
        FleetError: SOURCE_UNAVAILABLE.
    """
    freed = 0
    try:
        for path in weights.files:
            size = path.stat().st_size
            path.unlink()
            freed += size
    except OSError as error:
        raise FleetError(
            Reason.SOURCE_UNAVAILABLE, f"{error.filename} cannot be removed: {error.strerror}."
        ) from error
    _remove_leftovers(weights.path if weights.path.is_dir() else weights.path.parent)
    return freed


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Companions of weights that are gone; a folder that still holds weights stays as it is."""
    with contextlib.suppress(OSError):  # they hold no weights, so they may as well stay
        files = [path for path in folder.rglob("*") if path.is_file()]
        if any(path.suffix in {".gguf", ".safetensors"} for path in files):
            return
        for path in files:
            path.unlink()
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
        folder.parent.rmdir()
