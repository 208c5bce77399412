"""FleetStorageService: pulls models to the fleet's disks, and removes them, for operators."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
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
_HUB: Final = "hf:"
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
        stored = _places(term, request.model)
        places = {one: files for one, files in stored.items() if request.neuron in {"", one}}
        if not places:
            where = f" of {request.neuron}" if request.neuron else ""
            raise FleetError(
                Reason.NOT_FOUND,
                f"{request.model!r} lies on no disk{where}; see `cortex models --local`.",
                field="model",
            )
        for neuron in sorted(places):
            answer = pb.RemoveModelResponse(neuron=neuron)
            files, member = places[neuron], member_named(term, neuron)
            try:
                if files is not None:
                    await _unload(term, member, files, force=request.force)
                name = request.model if files is None else files.model
                answer.freed_bytes = await _remove(term, member, name)
            except FleetError as error:
                answer.problem = error.message
            yield answer


def _places(term: LeaderTerm, name: str) -> Mapping[str, StoredModel | None]:
    """The neurons that have a model's files; with None those where its download is not finished.

    Raises:
        FleetError: as `_own_name`.
    """
    fleet = term.control.fleet_state.fleet
    if name.startswith(_HUB):
        members = fleet.members.items()
        return {neuron: None for neuron, member in members if name in member.report.unfinished}
    return fleet.stored(_own_name(term, name))


def _own_name(term: LeaderTerm, name: str) -> str:
    """By which name neurons are asked for a model's files; names of the catalogue mean no files.

    Raises:
        FleetError: BAD_REQUEST, the name means different files on different disks.
    """
    fleet_state = term.control.fleet_state
    own = fleet_state.resolve(name)
    if own == name or own in fleet_state.catalogue.profiles:
        return name
    meant = fleet_state.fleet.stored(own)
    for neuron, files in fleet_state.fleet.stored(name).items():
        if neuron not in meant or meant[neuron].source != files.source:
            told = f"{name} is {own} in the fleet, and not on {neuron}; name one of the files."
            raise FleetError(Reason.BAD_REQUEST, told, field="model")
    return own


async def _unload(term: LeaderTerm, member: Member, stored: StoredModel, *, force: bool) -> None:
    """Unloads what was loaded from files that are to go, once its work is done.

    Raises:
        FleetError: BAD_REQUEST, something is, and it is not forced.
    """
    if not stored.origin:  # the neuron refuses, and nothing must be unloaded for that
        return
    loaded = [one for one in member.report.instances if _has(one, stored)]
    if loaded and not force:
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


async def _remove(term: LeaderTerm, member: Member, name: str) -> int:
    """Removes the files of one neuron; returns the bytes that were freed."""
    order = pb.RemoveStoredRequest(model=name, leader_epoch=term.leader_lease.epoch)
    async with open_channel(
        member.identity.address, term.credentials, role=Role.NEURON, neuron=member.name
    ) as channel:
        stub = storage_grpc.StorageServiceStub(channel)
        answer = await unary(stub.RemoveStored(order, timeout=_REMOVE_SECONDS))
    log.info("model.removed", model=name, neuron_id=member.name)
    return int(answer.freed_bytes)


def _has(instance: Instance, stored: StoredModel) -> bool:
    """Whether an instance was loaded from these files, under whatever name."""
    weights = instance.weights
    return instance.model == stored.model or (
        weights is not None and weights.source == stored.source
    )
