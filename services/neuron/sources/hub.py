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
import shutil
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
from services.neuron.sources.source import Foreseeing, OnBytes, WeightSource
from services.neuron.weights.inspect import Weights

_MODULE: Final = "services.neuron.sources.hub_download"
_LISTING: Final = ".listing.json"
_MOST_LINE_BYTES: Final = 32 << 20
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

log = structlog.get_logger()


class HubSource(WeightSource, Foreseeing):
    """Models of a hub: those in the store first, then a download by huggingface_hub."""

    def __init__(
        self,
        store: pathlib.Path,
        *,
        stall_seconds: float,
        endpoint: str = "",
        http_limit_bytes: int = HTTP_LIMIT_BYTES,
    ) -> None:
        """Keeps what it fetches in a folder.

        Args:
            store: the folder; made when it is first needed.
            stall_seconds: longest time without a byte.
            endpoint: the hub; empty is the library's own choice.
            http_limit_bytes: larger files come by the hub's own protocol.
        """
        self._store = store / "hf"
        self._stall_seconds = stall_seconds
        self._endpoint = endpoint
        self._http_limit_bytes = http_limit_bytes
        self._forecast = HubForecast(self._describe)
        # Two loads of one repository would write into the same files.
        self._gates: dict[pathlib.Path, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    @override
    def find(self, location: str, quant: str) -> pathlib.Path | None:
        """The file or folder, where all of the wanted files are in the store."""
        wanted = HubModel.parse(location)
        folder, listing = self._folder(wanted), self._listing(wanted)
        if listing is None:
            return None
        chosen = wanted.choose(listing.files, quant)
        return None if _missing(folder, chosen) else model_path(folder, chosen)

    @override
    async def fetch(self, location: str, quant: str, on_bytes: OnBytes) -> pathlib.Path:
        """Downloads the wanted files, going on where an earlier download ended."""
        wanted = HubModel.parse(location)
        _require_library()
        folder = self._folder(wanted)
        try:
            async with self._gates[folder]:
                listing = await asyncio.to_thread(self._listing, wanted)
                if listing is None:
                    listing = (await self._look_up(wanted)).listing
                chosen = wanted.choose(listing.files, quant)
                await self._bring(wanted, listing, _missing(folder, chosen), on_bytes)
        except OSError as error:
            raise unwritable(error) from error
        return model_path(folder, chosen)

    def _folder(self, wanted: HubModel) -> pathlib.Path:
        return self._store / wanted.owner / f"{wanted.name}@{wanted.revision}"

    def _listing(self, wanted: HubModel) -> HubListing | None:
        try:
            content = (self._folder(wanted) / _LISTING).read_bytes()
            return msgspec.json.decode(content, type=HubListing)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("hub.listing_unreadable", model=str(wanted), error=str(error))
            return None

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
        self, wanted: HubModel, listing: HubListing, files: Sequence[HubFile], on_bytes: OnBytes
    ) -> None:
        folder = self._folder(wanted)
        # Hidden: a model that is half there must not be listed. Bytes of two commits do not mix.
        arriving = folder.parent / f".{folder.name}.{listing.commit[:12]}"
        arriving.mkdir(parents=True, exist_ok=True)
        total = sum(file.size for file in files)
        require_room(arriving, total - await asyncio.to_thread(folder_bytes, arriving))
        job = HubJob(
            repository=wanted.repository,
            revision=listing.commit,
            endpoint=self._endpoint,
            folder=str(arriving),
            files=tuple(files),
            http_limit_bytes=self._http_limit_bytes,
        )
        ended = False
        async with contextlib.aclosing(self._run(job)) as lines:
            async for told in lines:
                ended = told.ended
                on_bytes(total if ended else told.done, total)
        if not ended:
            raise _died()
        await asyncio.to_thread(_keep, listing, files, arriving, folder)
        log.info("hub.stored", model=str(wanted), commit=listing.commit, bytes=total)

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


def _missing(folder: pathlib.Path, files: Sequence[HubFile]) -> list[HubFile]:
    return [file for file in files if not _is_whole(folder / file.path, file.size)]


def _is_whole(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _keep(
    listing: HubListing, files: Sequence[HubFile], arriving: pathlib.Path, folder: pathlib.Path
) -> None:
    """Moves whole files into the store, after the listing by which they are found. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = arriving / _LISTING
    draft.write_bytes(msgspec.json.encode(listing))
    draft.replace(folder / _LISTING)
    for file in files:
        kept = folder / file.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        (arriving / file.path).replace(kept)
    shutil.rmtree(arriving, ignore_errors=True)


def _died() -> FleetError:
    return FleetError(Reason.SOURCE_UNAVAILABLE, "The download's process ended without a word.")
