"""Sends files to neighbours: few at a time, and no faster than the settings say."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncGenerator
from typing import BinaryIO, Final

from cortex.v1 import storage_service_pb2 as pb
from services.backplane.errors import FleetError, Reason
from services.neuron.settings import SharingSettings
from services.neuron.sources.hub_store import HubStore

_CHUNK_BYTES: Final = 1 << 20
# Whoever waits for its turn hears so often that it is not forgotten.
_SIGN_SECONDS: Final = 2.0
_MOST_WAITING: Final = 64


class Sharing:
    """What neighbours may read, and how much of it at one time."""

    def __init__(self, store: HubStore, settings: SharingSettings) -> None:
        """Sends nothing yet.

        Args:
            store: whose files are sent.
            settings: how many at a time, and how fast.
        """
        self._store = store
        self._settings = settings
        self._places = asyncio.Semaphore(max(1, settings.streams))
        self._waiting = 0
        self._free_at = 0.0

    async def described(self, origin: str) -> pb.DescribeFilesResponse:
        """What lies here of a repository; nothing where nothing is shared.

        Raises:
            FleetError: BAD_REQUEST.
        """
        if not self._settings.streams:
            return pb.DescribeFilesResponse()
        return await asyncio.to_thread(self._store.described, origin)

    async def read(self, request: pb.ReadFileRequest) -> AsyncGenerator[bytes]:
        """The bytes of a file from an offset on; an empty one is a sign of life.

        Raises:
            FleetError: NOT_FOUND, the file is not here whole; QUEUE_FULL; NOT_SUPPORTED;
                BAD_REQUEST.
        """
        if not self._settings.streams:
            raise FleetError(Reason.NOT_SUPPORTED, "This neuron shares no files.")
        path = await asyncio.to_thread(
            self._store.file_of, request.origin, request.commit, request.path
        )
        async with contextlib.aclosing(self._turn()) as signs:
            async for is_mine in signs:
                if not is_mine:
                    yield b""
                    continue
                async with contextlib.aclosing(self._sent(path, request.offset)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def _turn(self) -> AsyncGenerator[bool]:
        """False as long as others are sent to; True once it is one's own turn, and last."""
        if self._waiting >= _MOST_WAITING:
            raise FleetError(Reason.QUEUE_FULL, "Too many neighbours wait.", retry_after_seconds=5)
        self._waiting += 1
        turn = asyncio.ensure_future(self._places.acquire())
        try:
            while not turn.done():
                await asyncio.wait({turn}, timeout=_SIGN_SECONDS)
                if not turn.done():
                    yield False
        finally:
            self._waiting -= 1
            if not turn.done():
                turn.cancel()
        try:
            yield True
        finally:
            self._places.release()

    async def _sent(self, path: pathlib.Path, offset: int) -> AsyncGenerator[bytes]:
        file = await asyncio.to_thread(path.open, "rb")
        try:
            await asyncio.to_thread(file.seek, offset)
            while chunk := await asyncio.to_thread(_next, file):
                await self._pace(len(chunk))
                yield chunk
        finally:
            file.close()

    async def _pace(self, count: int) -> None:
        """Waits until so many bytes may go, over all neighbours together."""
        most = self._settings.bytes_per_second
        if not most:
            return
        now = asyncio.get_running_loop().time()
        begin = max(now, self._free_at)
        self._free_at = begin + count / most
        await asyncio.sleep(begin - now)


def _next(file: BinaryIO) -> bytes:
    return file.read(_CHUNK_BYTES)
