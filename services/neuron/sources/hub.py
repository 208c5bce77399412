"""`hf:OWNER/NAME@REVISION[/GLOB]`: weights from a Hugging Face hub, kept in the model store.

What a revision means is looked up once and kept with the files: a branch that moves on later
changes nothing here, and what has been fetched is found again without a network.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
import structlog
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.disk_space import (
    folder_bytes,
    require_room,
    stood_still,
    unwritable,
)
from services.neuron.sources.hub_download import HTTP_LIMIT_BYTES, HubJob, HubProgress
from services.neuron.sources.hub_files import HubFile, HubListing, HubModel, model_path
from services.neuron.sources.hub_forecast import HubDescription, HubForecast
from services.neuron.sources.hub_store import Arrival, HubStore, discard, keep, missing
from services.neuron.sources.neighbour import Neighbour
from services.neuron.sources.neighbours import NeighbourFiles, Offer
from services.neuron.sources.source import Foreseeing, Mending, OnBytes, WeightSource
from services.neuron.weights.inspect import Weights

_MODULE: Final = "services.neuron.sources.hub_download"
_MOST_LINE_BYTES: Final = 32 << 20
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

log = structlog.get_logger()


class HubSource(WeightSource, Foreseeing, Mending):
    """Models of a hub: those in the store first, then a download by huggingface_hub."""

    def __init__(
        self,
        store: pathlib.Path,
        *,
        stall_seconds: float,
        endpoint: str = "",
        http_limit_bytes: int = HTTP_LIMIT_BYTES,
        neighbours: NeighbourFiles | None = None,
    ) -> None:
        """Keeps what it fetches in a folder: `store`.

        Args:
            store: the folder; made when it is first needed.
            stall_seconds: longest time without a byte.
            endpoint: the hub; empty is the library's own choice.
            http_limit_bytes: larger files come by the hub's own protocol.
            neighbours: how others of the fleet are asked; None: in plain text.
        """
        self.store = HubStore(store / "hf")
        self._stall_seconds = stall_seconds
        self._endpoint = endpoint
        self._http_limit_bytes = http_limit_bytes
        self._forecast = HubForecast(self._describe)
        self._neighbours = neighbours or NeighbourFiles(None, stall_seconds=stall_seconds)
        # Two loads of one repository would write into the same files.
        self._gates: dict[pathlib.Path, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    @override
    def find(self, location: str, quant: str) -> pathlib.Path | None:
        """The file or folder, where all of the wanted files are in the store."""
        wanted = HubModel.parse(location)
        folder, listing = self.store.folder(wanted), self.store.listing(wanted)
        if listing is None:
            return None
        chosen = wanted.choose(listing.files, quant)
        return None if missing(folder, chosen) else model_path(folder, chosen)

    @override
    async def fetch(
        self,
        location: str,
        quant: str,
        on_bytes: OnBytes,
        neighbours: Sequence[Neighbour] = (),
    ) -> pathlib.Path:
        """Fetches the wanted files, going on where an earlier fetch ended.

        Neighbours are asked first, also for what the revision means; the hub for the rest.
        """
        wanted = HubModel.parse(location)
        folder = self.store.folder(wanted)
        try:
            async with self._gates[folder]:
                offers = await self._neighbours.offers(neighbours, f"hf:{wanted}")
                with self.store.arriving(wanted) as arrival:
                    listing = await asyncio.to_thread(self.store.listing, wanted)
                    if listing is None and offers:
                        listing = offers[0].listing
                    if listing is None:
                        _require_library()
                        listing = (await self._look_up(wanted)).listing
                    chosen = wanted.choose(listing.files, quant)
                    arrival.listing = listing
                    await self._bring(wanted, arrival, missing(folder, chosen), on_bytes, offers)
        except OSError as error:
            raise unwritable(error) from error
        return model_path(folder, chosen)

    @override
    async def discard_damaged(self, location: str, quant: str) -> int:
        """By the digests that the hub has told."""
        wanted = HubModel.parse(location)
        listing = await asyncio.to_thread(self.store.listing, wanted)
        if listing is None:
            return 0
        folder = self.store.folder(wanted)
        async with self._gates[folder]:
            try:
                gone = await asyncio.to_thread(discard, folder, wanted.choose(listing.files, quant))
            except OSError as error:
                raise unwritable(error) from error
        for path in gone:
            log.warning("hub.damaged_file_removed", model=str(wanted), path=path)
        return len(gone)

    async def discard_unfinished(self, origin: str) -> int:
        """Removes what ended fetches of `hf:OWNER/NAME@REVISION` have left.

        Returns: bytes that were freed.

        Raises:
            FleetError: NOT_FOUND, nothing; BAD_REQUEST, a fetch goes on with it now;
                SOURCE_UNAVAILABLE, the disk refuses.
        """
        gate = self._gates[self.store.folder(HubModel.parse(origin.removeprefix("hf:")))]
        if gate.locked():
            told = f"{origin} is being fetched; what has come so far is in use."
            raise FleetError(Reason.BAD_REQUEST, told, field="model")
        async with gate:
            try:
                return await asyncio.to_thread(self.store.discard_unfinished, origin)
            except OSError as error:
                raise unwritable(error) from error

    @override
    async def foresee(self, location: str, quant: str) -> Weights:
        """What the wanted files will weigh, by the hub's own list of them."""
        wanted = HubModel.parse(location)
        _require_library()
        return await self._forecast.weights(wanted, quant)

    async def _describe(self, wanted: HubModel) -> HubDescription:
        return await self._look_up(wanted, wants_config=True)

    async def _look_up(self, wanted: HubModel, *, wants_config: bool = False) -> HubDescription:
        job = HubJob(
            repository=wanted.repository,
            revision=wanted.revision,
            endpoint=self._endpoint,
            wants_config=wants_config,
        )
        async with contextlib.aclosing(self._run(job)) as lines:
            async for told in lines:
                if told.listing is not None:
                    return HubDescription(told.listing, told.config)
        raise _died()

    async def _bring(
        self,
        wanted: HubModel,
        arrival: Arrival,
        files: Sequence[HubFile],
        on_bytes: OnBytes,
        offers: Sequence[Offer],
    ) -> None:
        listing, folder = arrival.listing, self.store.folder(wanted)
        assert listing is not None
        arriving = self.store.arriving_folder(wanted, listing)
        arriving.mkdir(parents=True, exist_ok=True)
        total = sum(file.size for file in files)
        require_room(arriving, total - await asyncio.to_thread(folder_bytes, arriving))
        arrival.folder = arriving
        await self._neighbours.bring(
            offers,
            f"hf:{wanted}",
            commit=listing.commit,
            files=files,
            folder=arriving,
            on_bytes=lambda done: on_bytes(done, total),
        )
        if any(not (arriving / file.path).is_file() for file in files):
            await self._download(wanted, listing, files, arriving, on_bytes)
        await asyncio.to_thread(keep, listing, files, arriving, folder)
        log.info("hub.stored", model=str(wanted), commit=listing.commit, bytes=total)

    async def _download(
        self,
        wanted: HubModel,
        listing: HubListing,
        files: Sequence[HubFile],
        arriving: pathlib.Path,
        on_bytes: OnBytes,
    ) -> None:
        """Has the hub bring the files that are not there yet."""
        _require_library()
        total, ended = sum(file.size for file in files), False
        job = HubJob(
            repository=wanted.repository,
            revision=listing.commit,
            endpoint=self._endpoint,
            folder=str(arriving),
            files=tuple(files),
            http_limit_bytes=self._http_limit_bytes,
        )
        async with contextlib.aclosing(self._run(job)) as lines:
            async for told in lines:
                ended = told.ended
                on_bytes(total if ended else told.done, total)
        if not ended:
            raise _died()

    async def _run(self, job: HubJob) -> AsyncGenerator[HubProgress]:
        """What a job tells, line by line; leaving ends its process.

        Raises:
            FleetError: why it failed, or that it stood still.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_MOST_LINE_BYTES,
            env={**os.environ, **_QUIET},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(job))
            process.stdin.close()
            while line := await asyncio.wait_for(process.stdout.readline(), self._stall_seconds):
                told = msgspec.json.decode(line, type=HubProgress)
                if told.reason:
                    raise FleetError(Reason[told.reason], told.message, field="spec.source")
                yield told
        except TimeoutError as late:
            raise stood_still(self._stall_seconds) from late
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _require_library() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FleetError(
            Reason.NOT_SUPPORTED,
            "huggingface_hub is not installed here: pip install 'cortex-fleet[hf]'.",
            field="spec.source",
        )


def _died() -> FleetError:
    return FleetError(Reason.SOURCE_UNAVAILABLE, "The download's process ended without a word.")
