"""One object that the leader of one epoch alone writes: its claim, and how changes get into it.

A leader begins with writing its epoch into the object. That gives it another version, so whatever a
deposed leader has under way fails, finds the newer epoch, and ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec

from services.registry.store.kubernetes.api_server import (
    ApiServer,
    Body,
    ConflictError,
    metadata_of,
)
from services.registry.store.kubernetes.documents import (
    Place,
    TooLargeError,
    body_of,
    content_of,
)
from services.registry.store.kubernetes.lease import EPOCH
from services.registry.store.store import StoreError

DocumentT = TypeVar("DocumentT")
T = TypeVar("T")

# A leader that does not know yet that it is deposed goes on writing, with pauses.
_MOST_CONFLICTS: Final = 20

# What is to be changed, and who waits for it.
_Changes = list[tuple[Callable[[Any], Any], asyncio.Future[Any]]]


class DeposedError(StoreError):
    """A registry of a newer epoch has claimed an object."""

    def __init__(self, epoch: int) -> None:
        super().__init__("Another registry leads.")
        self.epoch = epoch


class ClaimedObject:
    """An object under the epoch of one leader.

    Args:
        api: of the cluster.
        place: of the object.
        epoch: in which the leader leads.
    """

    def __init__(self, api: ApiServer, place: Place, epoch: int) -> None:
        self._api = api
        self.place = place
        self._epoch = epoch
        self._metadata: Body = {}

    async def read(self) -> bytes:
        """The document as it is; empty where there is none. It claims nothing.

        Raises:
            StoreError: it cannot be read.
        """
        found = await self._api.get(self.place.path)
        self._metadata = {} if found is None else metadata_of(found)
        return b"" if found is None else content_of(self.place, found)

    async def claim(self) -> bytes:
        """Writes the epoch into the object; the document as it is from then on.

        Raises:
            DeposedError: there is a newer one.
            StoreError: it cannot be claimed.
        """
        for _ in range(_MOST_CONFLICTS):
            content = await self.read()
            try:
                await self._write_version(content)
            except ConflictError:
                continue
            return content
        raise StoreError(f"Kubernetes: {self.place} changes too often to be claimed.")

    async def write(self, content: bytes) -> None:
        """Replaces the document. The leader knows what is in it, so what else was written is lost.

        Raises:
            DeposedError: a leader of a newer epoch has claimed it.
            StoreError: it cannot be written, or nobody can say whether it was.
        """
        for _ in range(_MOST_CONFLICTS):
            try:
                await self._write_version(content)
            except ConflictError:
                await self.read()
            else:
                return
        raise StoreError(f"Kubernetes: {self.place} changes too often to be written.")

    async def _write_version(self, content: bytes) -> None:
        """Writes in the place of the version that was read, unless a newer leader wrote that."""
        found = _epoch_of(self._metadata)
        if found > self._epoch:
            raise DeposedError(found)
        body = body_of(self.place, content, metadata=self._metadata, epoch=self._epoch)
        if self._metadata:
            written = await self._api.replace(self.place.path, body)
            if written is None:
                self._metadata = {}
                raise ConflictError(f"Kubernetes: {self.place} was removed.")
        else:
            written = await self._api.create(self.place.collection, body)
        self._metadata = metadata_of(written)


class ClaimedDocument(Generic[DocumentT]):
    """A document in a claimed object. What is changed while it is written goes into the next write.

    Args:
        claimed: the object.
        shape: of the document; without arguments it makes an empty one.
        pause_seconds: how long a write that has begun keeps the next one back.
    """

    def __init__(
        self, claimed: ClaimedObject, shape: type[DocumentT], *, pause_seconds: float = 0.0
    ) -> None:
        self._claimed = claimed
        self._shape = shape
        self._pause_seconds = pause_seconds
        self._next_at = 0.0
        self._content = b""
        self._document = shape()
        # false behind a write of which nobody knows whether it was done: the next one is
        self._is_known = True
        self._pending: _Changes = []
        self._writing: asyncio.Task[None] | None = None

    @property
    def document(self) -> DocumentT:
        """As it was written last. Nobody changes it but by `change`."""
        return self._document

    async def claim(self) -> None:
        """Claims the object, and reads the document.

        Raises:
            StoreError: as `ClaimedObject.claim`, or it has another shape.
        """
        self._content = await self._claimed.claim()
        self._document = self._decoded()

    async def change(self, apply: Callable[[DocumentT], T]) -> T:
        """Changes the document, and returns when that is written; else nothing was changed.

        Args:
            apply: changes the document that it is given, and returns the result; what it raises
                it raises before it has changed anything.

        Raises:
            StoreError: it could not be written.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((apply, done))
        if self._writing is None:
            # in a task of its own: who asked may leave, and the write goes on
            self._writing = asyncio.create_task(self._write_pending())
        return await done

    async def close(self) -> None:
        """Ends what is being written; who waits for it is told that it is not known."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write_pending(self) -> None:
        batch: _Changes = []
        try:
            while self._pending:
                await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
                self._next_at = time.monotonic() + self._pause_seconds
                batch, self._pending = self._pending, []
                try:
                    await self._write(batch)
                except TooLargeError:
                    await self._write_apart(batch)
                except StoreError as error:
                    self._is_known = False
                    _fail(batch, error)
        finally:
            self._writing = None
            _fail([*batch, *self._pending], StoreError("Nobody knows whether it was written."))
            self._pending = []

    async def _write_apart(self, batch: _Changes) -> None:
        """One that makes the document too large must not keep the others back."""
        for one in batch:
            try:
                await self._write([one])
            except StoreError as error:
                _fail([one], error)

    async def _write(self, batch: _Changes) -> None:
        document = self._decoded()
        results: list[tuple[asyncio.Future[Any], Any]] = []
        for apply, done in batch:
            try:
                results.append((done, apply(document)))
            except StoreError as error:  # raised before anything was changed
                _fail([(apply, done)], error)
        content = msgspec.json.encode(document)
        if content != self._content or not self._is_known:
            await self._claimed.write(content)
        self._content, self._document, self._is_known = content, document, True
        for done, result in results:
            if not done.done():
                done.set_result(result)

    def _decoded(self) -> DocumentT:
        if not self._content:
            return self._shape()
        try:
            return msgspec.json.decode(self._content, type=self._shape)
        except msgspec.DecodeError as error:
            place = self._claimed.place
            raise StoreError(f"Kubernetes: {place} cannot be read: {error}") from error


def _fail(batch: _Changes, error: StoreError) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)


def _epoch_of(metadata: Body) -> int:
    notes: Any = metadata.get("annotations")
    text = str((notes if isinstance(notes, dict) else {}).get(EPOCH, ""))
    return int(text) if text.isdecimal() else 0
