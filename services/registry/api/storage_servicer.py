"""FleetStorageService: pulls models to the fleet's disks, and removes them, for operators."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import structlog

from cortex.v1 import storage_service_pb2 as pb
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.roles import Role
from services.registry.api.drains import DrainTracker, watched
from services.registry.api.members import member_named
from services.registry.api.pulls import Pull, able
from services.registry.fleet.records import Instance, Member, StoredModel
from services.registry.holder import LeaderHolder
from services.registry.placement.orders import UnloadReason
from services.registry.term import LeaderTerm

FLEET_STORAGE_SERVICE: Final = "cortex.v1.FleetStorageService"
# Deleting some hundred gigabytes takes file systems a while.
_REMOVE_SECONDS: Final = 120.0
Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


class FleetStorageServicer(storage_grpc.FleetStorageServiceServicer):
    """Decodes requests, asks neurons, encodes answers.

    Args:
        holder: says whether this registry leads.
    """

    def __init__(self, holder: LeaderHolder[LeaderTerm]) -> None:
        self._holder = holder

    async def PullModel(
        self, request: pb.PullModelRequest, context: Context
    ) -> AsyncIterator[pb.PullModelResponse]:
        """Fetches a model's files to neurons."""
        term = self._holder.leading_term()
        if not request.source:
            raise FleetError(Reason.BAD_REQUEST, "No source is named.", field="source")
        named = [member_named(term, name) for name in dict.fromkeys(request.neurons)]
        members = named or await able(term, request)
        log.info("pull.ordered", source=request.source, neurons=[member.name for member in members])
        async with contextlib.aclosing(Pull(term, request).steps(members)) as steps:
            async for step in steps:
                yield step

    async def RemoveModel(
        self, request: pb.RemoveModelRequest, context: Context
    ) -> AsyncIterator[pb.RemoveModelResponse]:
        """Removes a model's files from disks."""
        term = self._holder.leading_term()
        if request.neuron:
            member_named(term, request.neuron)
        stored = term.control.fleet_state.fleet.stored(request.model)
        places = {name: files for name, files in stored.items() if request.neuron in {"", name}}
        if not places:
            where = f" of {request.neuron}" if request.neuron else ""
            raise FleetError(
                Reason.NOT_FOUND,
                f"{request.model!r} lies on no disk{where}; see `cortex models --local`.",
                field="model",
            )
        for name in sorted(places):
            answer = pb.RemoveModelResponse(neuron=name)
            try:
                answer.freed_bytes = await _remove(
                    term, member_named(term, name), places[name], request
                )
            except FleetError as error:
                answer.problem = error.message
            yield answer


async def _remove(
    term: LeaderTerm, member: Member, stored: StoredModel, request: pb.RemoveModelRequest
) -> int:
    """Removes the files of one neuron; returns the bytes that were freed."""
    if stored.origin:  # else the neuron refuses, and nothing must be unloaded for that
        loaded = [one for one in member.report.instances if _has(one, stored)]
        if loaded and not request.force:
            told = f"{loaded[0].model} is loaded from them; unload it first, or force it."
            raise FleetError(Reason.BAD_REQUEST, told, field="model")
        tracker = DrainTracker(
            term.control,
            [(member.name, one.instance_id) for one in loaded],
            UnloadReason.OPERATOR,
            None,
        )
        async for _ in watched(term, tracker):
            pass
    order = pb.RemoveStoredRequest(model=request.model, leader_epoch=term.leader_lease.epoch)
    async with open_channel(
        member.identity.address, term.credentials, role=Role.NEURON, neuron=member.name
    ) as channel:
        stub = storage_grpc.StorageServiceStub(channel)
        answer = await unary(stub.RemoveStored(order, timeout=_REMOVE_SECONDS))
    log.info("model.removed", model=request.model, neuron_id=member.name)
    return int(answer.freed_bytes)


def _has(instance: Instance, stored: StoredModel) -> bool:
    """Whether an instance was loaded from these files, under whatever name."""
    weights = instance.weights
    return instance.model == stored.model or (
        weights is not None and weights.source == stored.source
    )
