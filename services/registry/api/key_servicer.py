"""KeyService: operators make keys and take them back, gateways follow them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, TypeVar

import grpc

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import key_service_pb2_grpc
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.registry.holder import LeaderHolder
from services.registry.keys.directory import USUAL_OVERLAP_SECONDS, KeyDirectory
from services.registry.term import LeaderTerm

Context = grpc.aio.ServicerContext[Any, Any]
Item = TypeVar("Item")

KEY_SERVICE: Final = "cortex.v1.KeyService"
_USUAL_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000
# A record takes some hundred bytes, with long scopes some thousand; a message has 4 MiB at most.
_WATCH_PAGE: Final = 200
# A watcher that hears nothing for so long is told that there is nothing.
_PROGRESS_SECONDS: Final = 5.0
_MOST_USED: Final = 50_000


class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Decodes requests, asks the directory of the term under way, encodes answers.

    Args:
        holder: says whether this registry leads.
    """

    def __init__(self, holder: LeaderHolder[LeaderTerm]) -> None:
        self._holder = holder

    @property
    def _keys(self) -> KeyDirectory:
        return self._holder.leading_term().keys

    async def CreateKey(
        self, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        """A new key, with its secret."""
        secret, key = await self._keys.create(request)
        return pb.CreateKeyResponse(secret=secret, key=key)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """One page of keys."""
        known = self._keys.keys(include_ended=request.include_ended)
        page, following = _page(known, request.page_size, request.page_token)
        return pb.ListKeysResponse(keys=page, next_page_token=following)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        """One key."""
        return pb.GetKeyResponse(key=self._keys.key(request.key))

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        """A key with another secret."""
        given = request.HasField("overlap")
        overlap = protobuf_time.seconds(request.overlap) if given else USUAL_OVERLAP_SECONDS
        secret, key = await self._keys.rotate(request.key, overlap)
        return pb.RotateKeyResponse(secret=secret, key=key)

    async def RevokeKey(
        self, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        """A key that is taken back."""
        return pb.RevokeKeyResponse(key=await self._keys.revoke(request.key))

    async def PutKeyGroup(
        self, request: pb.PutKeyGroupRequest, context: Context
    ) -> pb.PutKeyGroupResponse:
        """A group as it should be."""
        return pb.PutKeyGroupResponse(group=await self._keys.put_group(request.group))

    async def ListKeyGroups(
        self, request: pb.ListKeyGroupsRequest, context: Context
    ) -> pb.ListKeyGroupsResponse:
        """One page of groups."""
        known = {group.name: group for group in self._keys.groups.every()}
        page, following = _page(known, request.page_size, request.page_token)
        return pb.ListKeyGroupsResponse(groups=page, next_page_token=following)

    async def DeleteKeyGroup(
        self, request: pb.DeleteKeyGroupRequest, context: Context
    ) -> pb.DeleteKeyGroupResponse:
        """A group that goes."""
        await self._keys.delete_group(request.name)
        return pb.DeleteKeyGroupResponse()

    async def ReportKeyUse(
        self, request: pb.ReportKeyUseRequest, context: Context
    ) -> pb.ReportKeyUseResponse:
        """Records which keys were used since a gateway's last report."""
        self._keys.used(request.key_ids[:_MOST_USED])
        return pb.ReportKeyUseResponse()

    async def WatchKeys(
        self, request: pb.WatchKeysRequest, context: Context
    ) -> AsyncIterator[pb.WatchKeysResponse]:
        """All keys and groups and then their changes, until this registry no longer leads."""
        term = self._holder.leading_term()
        keys, incarnation = term.keys, term.incarnation_id
        seen: int | None = None
        if request.HasField("after_revision") and request.registry_incarnation_id == incarnation:
            seen = request.after_revision
        while not term.ended.is_set():
            version = keys.changes.version
            for response in _news(keys, seen):
                response.registry_incarnation_id = incarnation
                response.has_keys = keys.has_keys
                yield response
                seen = response.revision  # of when it was looked up: more may have changed since
            moved = first_ended(
                keys.changes.after(version), term.ended.wait(), seconds=_PROGRESS_SECONDS
            )
            if not await moved:
                yield pb.WatchKeysResponse(
                    revision=seen or 0,
                    registry_incarnation_id=incarnation,
                    has_keys=keys.has_keys,
                )


def _news(keys: KeyDirectory, seen: int | None) -> Iterator[pb.WatchKeysResponse]:
    """What a watcher does not know yet, in pages."""
    revision = keys.revisions.revision
    names = None if seen is None else keys.revisions.since(seen)
    if names is None:
        records, groups = keys.live, keys.groups.every()
        yield from _pages(pb.WatchKeysResponse(revision=revision, is_whole=True), records, groups)
        return
    if not names:
        return
    told = pb.WatchKeysResponse(revision=revision)
    records, groups = [], []
    for name in names:
        kind, _, which = name.partition("/")
        if kind == "key":
            record = keys.live_record(which)
            if record is None:
                told.gone_key_ids.append(which)
            else:
                records.append(record)
        elif (group := keys.groups.get(which)) is not None:
            groups.append(group)
        else:
            told.gone_groups.append(which)
    yield from _pages(told, records, groups)


def _pages(
    first: pb.WatchKeysResponse, records: Sequence[pb.KeyRecord], groups: Sequence[pb.KeyGroup]
) -> Iterator[pb.WatchKeysResponse]:
    """The first message filled, and as many more as it takes."""
    revision = first.revision
    rest: list[tuple[str, pb.KeyRecord | pb.KeyGroup]] = [("groups", one) for one in groups]
    rest += [("keys", one) for one in records]
    message = first
    for start in range(0, max(1, len(rest)), _WATCH_PAGE):
        for field, one in rest[start : start + _WATCH_PAGE]:
            getattr(message, field).append(one)
        message.has_more = start + _WATCH_PAGE < len(rest)
        yield message
        message = pb.WatchKeysResponse(revision=revision)


def _page(known: dict[str, Item], size: int, after: str) -> tuple[list[Item], str]:
    """The items behind a name, and the name of the last where there are more.

    Raises:
        FleetError: BAD_REQUEST: the page is too large.
    """
    if size > _LARGEST_PAGE:
        told = f"A page has at most {_LARGEST_PAGE}."
        raise FleetError(Reason.BAD_REQUEST, told, field="page_size")
    size = size or _USUAL_PAGE
    names = [name for name in known if name > after]
    more = len(names) > size
    return [known[name] for name in names[:size]], names[size - 1] if more else ""
