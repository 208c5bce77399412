"""Files of a hub's repository from other neurons of the fleet, so that the hub is asked once."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Final

import structlog

from cortex.v1 import storage_service_pb2 as pb
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.errors import FleetError
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.timeouts import timeout
from services.neuron.sources.checksum import check_file
from services.neuron.sources.disk_space import file_bytes, stood_still
from services.neuron.sources.hub_download import part_of
from services.neuron.sources.hub_files import HubFile, HubListing
from services.neuron.sources.neighbour import Neighbour

_ANSWER_SECONDS: Final = 5.0
_MOST_ASKED: Final = 8
# Between two looks at what is arriving at a neighbour.
_LOOK_SECONDS: Final = 0.5
# Longest wait for a neighbour that asks the hub what a revision means.
_LOOK_UP_SECONDS: Final = 20.0
_MOST_WRITTEN_BYTES: Final = 4 << 20

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """What a neighbour has of a repository.

    Attributes:
        listing: all files of the repository at the neighbour's commit.
        whole: paths of those that it has.
        arriving_bytes: that it has so far of what it is fetching itself; None: it fetches nothing.
    """

    neighbour: Neighbour
    listing: HubListing
    whole: frozenset[str]
    arriving_bytes: int | None


class NeighbourFiles:
    """Fetches files of a hub's repository from other neurons of the fleet."""

    def __init__(self, credentials: FleetCredentials | None, *, stall_seconds: float) -> None:
        """Knows none yet: they are named with each fetch.

        Args:
            credentials: the fleet's; None: plain text.
            stall_seconds: longest time without a word of a neighbour that sends.
        """
        self._credentials = credentials
        self._stall_seconds = stall_seconds

    async def offers(self, neighbours: Sequence[Neighbour], origin: str) -> list[Offer]:
        """Asks neighbours at once what they have of a repository; failures count as nothing."""
        asked = [self._offer(each, origin) for each in neighbours[:_MOST_ASKED]]
        return [offer for offer in await asyncio.gather(*asked) if offer is not None]

    async def bring(
        self,
        offers: Sequence[Offer],
        origin: str,
        *,
        commit: str,
        files: Sequence[HubFile],
        folder: pathlib.Path,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Fetches what neighbours have; a file gets its name once its digest is right.

        What none of them has, or could send, is left to whoever is asked next; parts stay and are
        where that one goes on. A file that a neighbour is fetching itself is waited for as long
        as it comes nearer.

        Args:
            offers: of neighbours, in order of preference.
            origin: `hf:OWNER/NAME@REVISION`.
            commit: of which the files are.
            files: wanted.
            folder: where they go.
            on_bytes: told the bytes that are there of all files.

        Raises:
            OSError: the disk cannot be written.
        """
        for offer in [one for one in offers if one.listing.commit == commit]:
            current: Offer | None = offer
            while current is not None and _lacking(files, folder):
                has = [file for file in _lacking(files, folder) if file.path in current.whole]
                try:
                    for file in has:
                        await self._copy(
                            current, origin, file, folder, lambda: on_bytes(_here(files, folder))
                        )
                except FleetError as error:
                    log.info(
                        "neighbour.failed",
                        neighbour=offer.neighbour.name,
                        origin=origin,
                        reason=error.message,
                    )
                    break
                if _lacking(files, folder):
                    current = await self._nearer(current, origin, commit)

    async def _offer(self, neighbour: Neighbour, origin: str) -> Offer | None:
        request = pb.DescribeFilesRequest(origin=origin)
        until = asyncio.get_running_loop().time() + _LOOK_UP_SECONDS
        try:
            async with self._opened(neighbour) as stub:
                while True:
                    answer = await unary(stub.DescribeFiles(request, timeout=_ANSWER_SECONDS))
                    is_late = asyncio.get_running_loop().time() > until
                    if answer.commit or not answer.HasField("arriving_bytes") or is_late:
                        break
                    await asyncio.sleep(_LOOK_SECONDS)  # it is just asking the hub
        except FleetError as error:
            log.debug("neighbour.silent", neighbour=neighbour.name, reason=error.message)
            return None
        if not answer.commit:
            return None
        files = tuple(HubFile(one.path, one.size, one.sha256) for one in answer.files)
        arriving = answer.arriving_bytes if answer.HasField("arriving_bytes") else None
        listing = HubListing(answer.commit, files)
        if not listing.is_sound:
            log.warning("neighbour.unsound", neighbour=neighbour.name, origin=origin)
            return None
        return Offer(neighbour, listing, frozenset(answer.whole), arriving)

    async def _nearer(self, offer: Offer, origin: str, commit: str) -> Offer | None:
        """The neighbour's next offer, once its own fetch has come nearer; None where it has not."""
        if offer.arriving_bytes is None:
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + self._stall_seconds
        while loop.time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            fresh = await self._offer(offer.neighbour, origin)
            if fresh is None or fresh.listing.commit != commit:
                return None
            if fresh.whole != offer.whole or fresh.arriving_bytes != offer.arriving_bytes:
                return fresh
        return None

    async def _copy(
        self,
        offer: Offer,
        origin: str,
        file: HubFile,
        folder: pathlib.Path,
        note: Callable[[], None],
    ) -> None:
        """Brings one file, going on behind what is there of it.

        Raises:
            FleetError: the neighbour failed, or sent other bytes than the hub has.
        """
        part = part_of(folder, file)
        await asyncio.to_thread(part.parent.mkdir, parents=True, exist_ok=True)
        here = await asyncio.to_thread(_size_of, part, file)
        request = pb.ReadFileRequest(
            origin=origin, commit=offer.listing.commit, path=file.path, offset=here
        )
        async with (
            self._opened(offer.neighbour) as stub,
            streaming(stub.ReadFile(request)) as answers,
        ):
            waiting: list[bytes] = []
            async for data in self._in_time(answers):
                waiting.append(data)
                if sum(map(len, waiting)) >= _MOST_WRITTEN_BYTES:
                    await asyncio.to_thread(_append, part, waiting)
                    waiting = []
                    note()
            await asyncio.to_thread(_append, part, waiting)
            note()
        await asyncio.to_thread(check_file, file, part)
        await asyncio.to_thread(part.replace, folder / file.path)
        log.info("neighbour.sent", neighbour=offer.neighbour.name, path=file.path, bytes=file.size)

    async def _in_time(self, answers: AsyncIterator[pb.ReadFileResponse]) -> AsyncGenerator[bytes]:
        reader = aiter(answers)
        while True:
            try:
                async with timeout(self._stall_seconds):
                    yield (await anext(reader)).data
            except StopAsyncIteration:
                return
            except TimeoutError as late:
                raise stood_still(self._stall_seconds) from late

    def _opened(self, neighbour: Neighbour) -> _Opened:
        return _Opened(neighbour, self._credentials)


class _Opened:
    """A connection of its own: neighbours are asked rarely, and are who they say they are."""

    def __init__(self, neighbour: Neighbour, credentials: FleetCredentials | None) -> None:
        self._channel = open_channel(
            neighbour.address, credentials, role=Role.NEURON, neuron=neighbour.name
        )

    async def __aenter__(self) -> storage_grpc.StorageServiceAsyncStub:
        return storage_grpc.StorageServiceStub(self._channel)

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


def _lacking(files: Sequence[HubFile], folder: pathlib.Path) -> list[HubFile]:
    return [file for file in files if not (folder / file.path).is_file()]


def _here(files: Sequence[HubFile], folder: pathlib.Path) -> int:
    total = 0
    for file in files:
        for path in (folder / file.path, part_of(folder, file)):
            size = file_bytes(path)
            if size is not None:
                total += size
                break
    return total


def _size_of(part: pathlib.Path, file: HubFile) -> int:
    """Bytes of a part that can be gone on behind; a part that is too long is begun anew."""
    part.touch()
    if part.stat().st_size > file.size:
        part.write_bytes(b"")
    return part.stat().st_size


def _append(part: pathlib.Path, chunks: Sequence[bytes]) -> None:
    with part.open("ab") as out:
        out.writelines(chunks)
