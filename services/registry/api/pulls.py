"""A pull that an operator has asked for: one neuron fetches from the hub, others from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from cortex.v1 import model_pb2, neuron_service_pb2, neuron_service_pb2_grpc
from cortex.v1 import storage_service_pb2 as pb
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.roles import Role
from services.backplane.units import format_bytes
from services.registry.fleet.records import Member
from services.registry.rpc import encode
from services.registry.term import LeaderTerm

# A neuron asks the hub for 20 s at most.
_FORECAST_SECONDS = 40.0


class Pull:
    """Runs fetches on several neurons, keeping only the newest progress of each."""

    def __init__(self, term: LeaderTerm, request: pb.PullModelRequest) -> None:
        """Fetches nothing before `steps`.

        Args:
            term: the leadership that it belongs to.
            request: what to fetch.
        """
        self._term = term
        self._request = request
        self._told: dict[str, pb.PullModelResponse] = {}
        self._changes = Changes()

    async def steps(self, members: Sequence[Member]) -> AsyncGenerator[pb.PullModelResponse]:
        """Yields how far each neuron is until all have ended; leaving ends fetches of no one else.

        Args:
            members: where to; one after the other is tried as the first, the others follow it.
        """
        running = asyncio.ensure_future(self._run(members))
        ending = asyncio.ensure_future(self._term.ended.wait())
        seen: dict[str, pb.PullModelResponse] = {}
        try:
            while True:
                version, is_over = self._changes.version, running.done() or ending.done()
                for name, told in list(self._told.items()):
                    if seen.get(name) is not told:
                        seen[name] = told
                        yield told
                if is_over:
                    break
                await first_ended(self._changes.after(version), kept=(running, ending))
            if running.done():
                running.result()
        finally:
            ending.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self, members: Sequence[Member]) -> None:
        waiting = list(members)
        while waiting:
            if await self._fetch(waiting.pop(0)):
                break
        await asyncio.gather(*(self._fetch(member) for member in waiting))

    async def _fetch(self, member: Member) -> bool:
        """Fetches on one neuron; returns whether its disk has the files now."""
        try:
            async with contextlib.aclosing(self._fetched(member)) as steps:
                async for step in steps:
                    self._tell(step)
                    if step.HasField("stored"):
                        return True
            words = f"{member.name} ended without a result."
            self._tell(pb.PullModelResponse(neuron=member.name, problem=words))
        except FleetError as error:
            self._tell(pb.PullModelResponse(neuron=member.name, problem=error.message))
        except Exception as error:  # noqa: BLE001 - it is noted; the other neurons go on
            fault = self._term.faults.note("pull", error, neuron_id=member.name)
            self._tell(pb.PullModelResponse(neuron=member.name, problem=fault.message))
        return False

    async def _fetched(self, member: Member) -> AsyncGenerator[pb.PullModelResponse]:
        term, request = self._term, self._request
        neighbours = term.control.executor.neighbours.of(request.source, without=member.name)
        arrived = {name for name, told in self._told.items() if told.HasField("stored")}
        for other in term.control.fleet_state.fleet.members.values():
            if other.name in arrived and all(other.name != one.name for one in neighbours):
                neighbours += (encode.neighbour(other),)
        fetch = pb.FetchRequest(
            source=request.source,
            quant=request.quant,
            neighbours=[encode.neighbour_message(one) for one in neighbours],
            leader_epoch=term.leader_lease.epoch,
            verify=request.verify,
        )
        async with open_channel(
            member.identity.address, term.credentials, role=Role.NEURON, neuron=member.name
        ) as channel:
            stub = storage_grpc.StorageServiceStub(channel)
            async with streaming(stub.Fetch(fetch)) as answers:
                async for answer in answers:
                    told = pb.PullModelResponse(neuron=member.name)
                    if answer.HasField("stored"):
                        told.stored.CopyFrom(answer.stored)
                    else:
                        told.progress.CopyFrom(answer.progress)
                    yield told

    def _tell(self, told: pb.PullModelResponse) -> None:
        self._told[told.neuron] = told
        self._changes.bump()


async def able(term: LeaderTerm, request: pb.PullModelRequest) -> list[Member]:
    """The neurons whose devices, empty, could run the model.

    Those that have files of it already come first.

    Raises:
        FleetError: NO_NEURONS; NO_ROOM, it is too large for each; or why nobody can say its size.
    """
    members = [m for m in term.control.fleet_state.fleet.members.values() if m.can_serve]
    if not members:
        raise FleetError(Reason.NO_NEURONS, "No neuron is attached.")
    neighbours = term.control.executor.neighbours.of(request.source, without="")
    holders = {one.name for one in neighbours}
    members.sort(key=lambda member: (member.name not in holders, member.name))
    needed = await _needed(term, request, members)
    found = [member for member in members if _capacity(member) >= needed]
    if not found:
        most = max(_capacity(member) for member in members)
        raise FleetError(
            Reason.NO_ROOM,
            f"It needs {format_bytes(needed)}, and no neuron has more than {format_bytes(most)};"
            " name one to fetch it all the same.",
            field="source",
        )
    return found


async def _needed(term: LeaderTerm, request: pb.PullModelRequest, members: Sequence[Member]) -> int:
    """Memory that the model takes, as the first neuron that can tell says it."""
    spec = model_pb2.LoadSpec(model="pull", source=request.source, quant=request.quant)
    question = neuron_service_pb2.CanFitRequest(spec=spec)
    refused = FleetError(Reason.NO_NEURONS, "No neuron is attached.")
    for member in members:
        try:
            async with open_channel(
                member.identity.address, term.credentials, role=Role.NEURON, neuron=member.name
            ) as channel:
                stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
                answer = await unary(stub.CanFit(question, timeout=_FORECAST_SECONDS))
                return int(answer.required_bytes)
        except FleetError as error:
            refused = error
            if error.reason in {Reason.BAD_REQUEST, Reason.MODEL_UNKNOWN}:
                break  # every other one would say the same
    if refused.reason is Reason.NOT_FOUND:  # a source that tells no size before the download
        return 0
    raise refused


def _capacity(member: Member) -> int:
    by_kind: dict[bool, int] = {}
    for device in member.report.devices:
        room = max(0, device.total_bytes - device.reserved_bytes)
        by_kind[device.kind == "cpu"] = by_kind.get(device.kind == "cpu", 0) + room
    return max(by_kind.values(), default=0)
