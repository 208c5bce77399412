"""StorageService: reads the call, asks the part that knows, words the answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from cortex.v1 import model_pb2 as model
from cortex.v1 import storage_service_pb2 as pb
from cortex.v1.storage_service_pb2_grpc import StorageServiceServicer
from services.neuron.leader_epoch import LeaderEpoch
from services.neuron.sources.neighbour import neighbours_of
from services.neuron.storage.fetches import Fetches
from services.neuron.storage.removal import StoredModelRemover
from services.neuron.storage.sharing import Sharing

STORAGE_SERVICE: Final = "cortex.v1.StorageService"
Context = grpc.aio.ServicerContext[Any, Any]


class StorageServicer(StorageServiceServicer):
    """The service on its server."""

    def __init__(
        self,
        *,
        fetches: Fetches,
        removal: StoredModelRemover,
        sharing: Sharing,
        leader_epoch: LeaderEpoch,
    ) -> None:
        self._fetches = fetches
        self._removal = removal
        self._sharing = sharing
        self._leader_epoch = leader_epoch

    async def Fetch(
        self, request: pb.FetchRequest, context: Context
    ) -> AsyncIterator[pb.FetchResponse]:
        """Fetches a model's files; see the contract."""
        self._leader_epoch.admit(request.leader_epoch)
        neighbours = neighbours_of(request.neighbours)
        steps = self._fetches.fetch(
            request.source, request.quant, neighbours, verify=request.verify
        )
        async with contextlib.aclosing(steps):
            async for step in steps:
                if isinstance(step, model.StoredModel):
                    yield pb.FetchResponse(stored=step)
                else:
                    yield pb.FetchResponse(progress=step)

    async def RemoveStored(
        self, request: pb.RemoveStoredRequest, context: Context
    ) -> pb.RemoveStoredResponse:
        """Removes files that this neuron has fetched; see the contract."""
        self._leader_epoch.admit(request.leader_epoch)
        return pb.RemoveStoredResponse(freed_bytes=await self._removal.remove(request.model))

    async def DescribeFiles(
        self, request: pb.DescribeFilesRequest, context: Context
    ) -> pb.DescribeFilesResponse:
        """Says what lies here of a repository."""
        return await self._sharing.described(request.origin)

    async def ReadFile(
        self, request: pb.ReadFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadFileResponse]:
        """Sends a file to a neighbour."""
        async with contextlib.aclosing(self._sharing.read(request)) as chunks:
            async for chunk in chunks:
                yield pb.ReadFileResponse(data=chunk)
