"""NeuronService: reads the call, asks the part that knows, words the answer. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import NeuronServiceServicer
from services.backplane import protobuf_time
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.security.principals import SYSTEM
from services.backplane.tracing.rpc import told_traceparent
from services.neuron.instances.cache_board import CacheBoard
from services.neuron.instances.instances import Instance, Instances
from services.neuron.instances.load import Loader
from services.neuron.instances.read_ahead import ReadAhead
from services.neuron.instances.unload import Draining, Freed, Releasing, Unloader
from services.neuron.leader_epoch import LeaderEpoch
from services.neuron.membership.report import StatusBoard, to_instance
from services.neuron.serving.event_sink import ReaderSink
from services.neuron.serving.generations import Generations
from services.neuron.serving.queries import Measures
from services.neuron.serving.session import SessionStream
from services.neuron.sources.neighbour import neighbours_of

# Tokens that a reader of Generate may be behind before its generation pauses.
_READER_CREDIT_TOKENS: Final = 256
_WATCH_SECONDS: Final = 2.0
_SETTLE_SECONDS: Final = 0.05

Context = grpc.aio.ServicerContext[Any, Any]


class NeuronServicer(NeuronServiceServicer):
    """The service on its server."""

    def __init__(
        self,
        *,
        instances: Instances,
        loader: Loader,
        unloader: Unloader,
        generations: Generations,
        measures: Measures,
        board: StatusBoard,
        caches: CacheBoard,
        read_ahead: ReadAhead,
        changes: Changes,
        leader_epoch: LeaderEpoch,
        drain_seconds: float,
        faults: Faults,
    ) -> None:
        self._instances = instances
        self._loader = loader
        self._unloader = unloader
        self._generations = generations
        self._measures = measures
        self._board = board
        self._caches = caches
        self._read_ahead = read_ahead
        self._changes = changes
        self._leader_epoch = leader_epoch
        self._drain_seconds = drain_seconds
        self._faults = faults
        self._sessions: set[SessionStream] = set()
        self._closing = asyncio.Event()

    def close_sessions(self) -> None:
        """Ends every stream that would stay open for ever."""
        self._closing.set()
        self._caches.close()
        for session in self._sessions:
            session.close()

    async def Load(
        self, request: neuron.LoadRequest, context: Context
    ) -> AsyncIterator[neuron.LoadResponse]:
        """Loads a model; see the contract."""
        self._leader_epoch.admit(request.leader_epoch)
        steps = self._loader.load(
            request.spec,
            detach=request.detach,
            neighbours=neighbours_of(request.neighbours),
            principal=request.principal if request.HasField("principal") else SYSTEM,
        )
        async with contextlib.aclosing(steps):
            async for step in steps:
                if isinstance(step, Instance):
                    yield neuron.LoadResponse(ready=to_instance(step))
                else:
                    yield neuron.LoadResponse(progress=step)

    async def Unload(
        self, request: neuron.UnloadRequest, context: Context
    ) -> AsyncIterator[neuron.UnloadResponse]:
        """Unloads instances; see the contract."""
        self._leader_epoch.admit(request.leader_epoch)
        if not request.WhichOneof("target"):
            raise FleetError(Reason.BAD_REQUEST, "No target is named.", field="target")
        seconds = self._drain_seconds
        if request.HasField("following"):
            self._read_ahead.begin(request.following)
        if request.HasField("drain_timeout"):
            seconds = max(0.0, protobuf_time.seconds(request.drain_timeout))
        principal = request.principal if request.HasField("principal") else SYSTEM
        targets = self._unloader.targets(instance_id=request.instance_id, name=request.model)
        for instance in targets:
            steps = self._unloader.unload(instance, seconds, principal=principal)
            async with contextlib.aclosing(steps):
                async for step in steps:
                    yield _unload_step(step)

    async def UpdateInstance(
        self, request: neuron.UpdateInstanceRequest, context: Context
    ) -> neuron.UpdateInstanceResponse:
        """Changes what requests get that set nothing; see the contract."""
        self._leader_epoch.admit(request.leader_epoch)
        instance = self._instances.of_id(request.instance_id)
        self._instances.note_sampling(instance, request.default_sampling)
        return neuron.UpdateInstanceResponse(instance=to_instance(instance))

    async def Generate(
        self, request: generation.GenerateRequest, context: Context
    ) -> AsyncIterator[generation.GenerateResponse]:
        """Runs one generation; see the contract."""
        request.traceparent = request.traceparent or told_traceparent(context)
        sink = ReaderSink()
        running = await self._generations.begin(
            request,
            sink,
            credit_tokens=_READER_CREDIT_TOKENS,
            deadline_seconds=context.time_remaining(),
        )
        try:
            async for event, tokens in sink.read():
                yield event
                if tokens:
                    running.grant(tokens)
        finally:
            # The caller's leaving, its deadline, or the ordinary end, where it changes nothing.
            running.cancel()

    async def Session(
        self, request_iterator: AsyncIterator[neuron.SessionRequest], context: Context
    ) -> AsyncIterator[neuron.SessionResponse]:
        """Runs many generations over one stream; see the contract."""
        session = SessionStream(self._generations, self._faults)
        self._sessions.add(session)
        if self._closing.is_set():
            session.close()
        try:
            async with contextlib.aclosing(session.serve(request_iterator)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self._sessions.discard(session)

    async def Embed(self, request: neuron.EmbedRequest, context: Context) -> neuron.EmbedResponse:
        """Embeds texts; see the contract."""
        return await self._measures.embed(request)

    async def CountTokens(
        self, request: neuron.CountTokensRequest, context: Context
    ) -> neuron.CountTokensResponse:
        """Counts tokens; see the contract."""
        return await self._measures.count(request)

    async def ComparePrompt(
        self, request: neuron.ComparePromptRequest, context: Context
    ) -> neuron.ComparePromptResponse:
        """Compares a prompt with what is held of it; see the contract."""
        return await self._measures.compare(request.request)

    async def CanFit(
        self, request: neuron.CanFitRequest, context: Context
    ) -> neuron.CanFitResponse:
        """Says whether a model would fit; see the contract."""
        return await self._measures.can_fit(request)

    async def GetStatus(
        self, request: neuron.GetStatusRequest, context: Context
    ) -> neuron.GetStatusResponse:
        """Answers from memory."""
        return neuron.GetStatusResponse(status=self._board.status())

    async def WatchStatus(
        self, request: neuron.WatchStatusRequest, context: Context
    ) -> AsyncIterator[neuron.WatchStatusResponse]:
        """Streams the status at every change and at least every few seconds."""
        self._leader_epoch.admit(request.leader_epoch)
        report = self._board.reports()
        while not self._closing.is_set():
            version = self._changes.version
            status = neuron.NeuronStatus(identity=self._board.identity, report=report())
            yield neuron.WatchStatusResponse(status=status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changes.after(version), _WATCH_SECONDS)
                # Changes that come together travel together.
                await asyncio.wait_for(self._closing.wait(), _SETTLE_SECONDS)

    async def WatchCache(
        self, request: neuron.WatchCacheRequest, context: Context
    ) -> AsyncIterator[neuron.WatchCacheResponse]:
        """Streams what the caches hold, as differences."""
        async with contextlib.aclosing(self._caches.follow()) as answers:
            async for answer in answers:
                yield answer


def _unload_step(step: Draining | Releasing | Freed) -> neuron.UnloadResponse:
    match step:
        case Draining():
            draining = neuron.UnloadDraining(active_requests=step.active)
            return neuron.UnloadResponse(draining=draining)
        case Releasing():
            return neuron.UnloadResponse(releasing=neuron.UnloadReleasing())
        case Freed():
            unloaded = neuron.Unloaded(instance_id=step.instance_id, freed_bytes=step.freed_bytes)
            return neuron.UnloadResponse(unloaded=unloaded)
