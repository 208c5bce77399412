"""OperatorService: what a person does to the fleet."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import structlog

from cortex.v1 import operator_service_pb2 as pb
from cortex.v1 import operator_service_pb2_grpc, registry_service_pb2
from services import __version__
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.settings import SettingsError
from services.registry.api import explain
from services.registry.api.drains import DrainTracker, watched
from services.registry.api.members import member_named
from services.registry.api.step_stream import StepStream
from services.registry.holder import LeaderHolder
from services.registry.joining.open_tokens import USUAL_SECONDS
from services.registry.placement.orders import UnloadReason
from services.registry.rpc import encode
from services.registry.store.store import FactKind
from services.registry.store.write_behind import durably
from services.registry.term import LeaderTerm

Context = grpc.aio.ServicerContext[Any, Any]
_DRAIN_SECONDS: Final = 300.0

log = structlog.get_logger()


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Decodes requests, calls the control plane of the term under way, encodes answers."""

    def __init__(self, holder: LeaderHolder[LeaderTerm]) -> None:
        self._holder = holder

    async def GetFleet(self, request: pb.GetFleetRequest, context: Context) -> pb.GetFleetResponse:
        """The fleet; a standby answers too, and says who leads."""
        term = self._holder.term
        if term is None:
            facts = pb.RegistryFacts(
                role="standby", version=__version__, leader_address=self._holder.leader_address
            )
            return pb.GetFleetResponse(registry=facts)
        fleet = term.control.fleet_state.fleet
        return pb.GetFleetResponse(
            revision=fleet.revision,
            neurons=[encode.neuron_message(fleet.members[n]) for n in sorted(fleet.members)],
            pending=_pending(term),
            registry=_facts(term, self._holder.leader_address),
        )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Every model and where it is."""
        term = self._holder.leading_term()
        control = term.control
        statuses = term.model_list.statuses(control.cache, control.membership.hardware_version)
        return pb.ListModelsResponse(models=statuses)

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: Context
    ) -> AsyncIterator[pb.LoadModelResponse]:
        """Loads a model; it goes on when the caller leaves, unless that said otherwise."""
        term = self._holder.leading_term()
        if request.neuron:
            member_named(term, request.neuron)
        stream = StepStream()
        ticket = term.control.ensure(
            request.model,
            stream,
            neuron=request.neuron,
            detach=not request.attached,
            retry_failed=True,
        )
        term.wake()
        try:
            async for step in stream.steps():
                yield pb.LoadModelResponse(step=encode.step_message(step))
        finally:
            term.control.leave(ticket, gives_up=request.attached)
            term.wake()

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> AsyncIterator[pb.UnloadModelResponse]:
        """Unloads a model everywhere or on one neuron, after its work is done."""
        term = self._holder.leading_term()
        model = term.control.fleet_state.resolve(request.model)
        instances = [
            (member.name, instance.instance_id)
            for member, instance in term.control.fleet_state.fleet.instances_of(model)
            if request.neuron in {"", member.name}
        ]
        if not instances:
            where = f" on {request.neuron}" if request.neuron else ""
            raise FleetError(
                Reason.NOT_FOUND, f"{request.model!r} is not loaded{where}.", field="model"
            )
        seconds = (
            protobuf_time.seconds(request.drain_timeout)
            if request.HasField("drain_timeout")
            else None
        )
        tracker = DrainTracker(term.control, instances, UnloadReason.OPERATOR, seconds)
        async for left in watched(term, tracker):
            yield pb.UnloadModelResponse(
                instances_left=left.instances,
                active_requests_left=left.active_requests,
                freed_bytes=left.freed_bytes,
            )

    async def PinModel(self, request: pb.PinModelRequest, context: Context) -> pb.PinModelResponse:
        """Keeps a model loaded; written before the answer."""
        term = self._holder.leading_term()
        model = _model(term, request.model)
        await durably(term.fact_writer.write(FactKind.PIN, model, request.neuron))
        term.control.pin(model, request.neuron)
        term.wake()
        term.history.note("model.pinned", model=model, neuron=request.neuron)
        log.info("model.pinned", model=model, neuron_id=request.neuron)
        return pb.PinModelResponse()

    async def UnpinModel(
        self, request: pb.UnpinModelRequest, context: Context
    ) -> pb.UnpinModelResponse:
        """Ends a pin; one of the catalogue ends there."""
        term = self._holder.leading_term()
        model = _model(term, request.model)
        profile = term.control.fleet_state.profile(model)
        if profile is not None and profile.pinned:
            message = f"{model!r} is pinned by the catalogue; change `pin` there and reload."
            raise FleetError(Reason.BAD_REQUEST, message, field="model")
        for name in {model, *term.control.fleet_state.pins_of(model)}:
            await durably(term.fact_writer.delete(FactKind.PIN, name))
        term.control.unpin(model)
        term.wake()
        term.history.note("model.unpinned", model=model)
        log.info("model.unpinned", model=model)
        return pb.UnpinModelResponse()

    async def CordonNeuron(
        self, request: pb.CordonNeuronRequest, context: Context
    ) -> pb.CordonNeuronResponse:
        """Keeps new placements off a neuron."""
        return pb.CordonNeuronResponse(neuron=await self._cordon(request.neuron, cordoned=True))

    async def UncordonNeuron(
        self, request: pb.UncordonNeuronRequest, context: Context
    ) -> pb.UncordonNeuronResponse:
        """Lets placements on again."""
        return pb.UncordonNeuronResponse(neuron=await self._cordon(request.neuron, cordoned=False))

    async def DrainNeuron(
        self, request: pb.DrainNeuronRequest, context: Context
    ) -> AsyncIterator[pb.DrainNeuronResponse]:
        """Cordons a neuron and unloads all that it holds."""
        term = self._holder.leading_term()
        await self._cordon(request.neuron, cordoned=True)
        member = member_named(term, request.neuron)
        given = request.HasField("timeout")
        seconds = protobuf_time.seconds(request.timeout) if given else _DRAIN_SECONDS
        instances = [(member.name, i.instance_id) for i in member.report.instances]
        tracker = DrainTracker(term.control, instances, UnloadReason.DRAIN, seconds)
        async for left in watched(term, tracker):
            yield pb.DrainNeuronResponse(
                active_requests_left=left.active_requests, instances_left=left.instances
            )

    async def ExplainPlacement(
        self, request: pb.ExplainPlacementRequest, context: Context
    ) -> pb.ExplainPlacementResponse:
        """Where a model would go and why. Changes nothing."""
        return explain.message(self._holder.leading_term().control.explain(request.model))

    async def ReloadCatalogue(
        self, request: pb.ReloadCatalogueRequest, context: Context
    ) -> pb.ReloadCatalogueResponse:
        """Reads the catalogue again; nothing changes if it has an error."""
        term = self._holder.leading_term()
        try:
            changes = term.reload()
        except SettingsError as error:
            raise FleetError(Reason.BAD_REQUEST, f"{error}. Nothing was changed.") from error
        return pb.ReloadCatalogueResponse(
            config_revision=term.control.fleet_state.catalogue.revision,
            added=changes.added,
            removed=changes.removed,
            changed=changes.changed,
        )

    async def CreateJoinToken(
        self, request: pb.CreateJoinTokenRequest, context: Context
    ) -> pb.CreateJoinTokenResponse:
        """Makes a token by which one host joins, once."""
        given = request.HasField("lifetime")
        seconds = protobuf_time.seconds(request.lifetime) if given else USUAL_SECONDS
        term = self._holder.leading_term()
        token, until = await term.joining.new_token(request.neuron, seconds)
        response = pb.CreateJoinTokenResponse(token=str(token))
        response.expires_at.CopyFrom(protobuf_time.timestamp(until))
        return response

    async def ListWaitingHosts(
        self, request: pb.ListWaitingHostsRequest, context: Context
    ) -> pb.ListWaitingHostsResponse:
        """Hosts that wait until an operator lets them join."""
        waiting = self._holder.leading_term().joining.waiting()
        return pb.ListWaitingHostsResponse(hosts=map(encode.waiting_host, waiting))

    async def ApproveNeuron(
        self, request: pb.ApproveNeuronRequest, context: Context
    ) -> pb.ApproveNeuronResponse:
        """Lets a host join."""
        term = self._holder.leading_term()
        open_token = await term.joining.approve(request.neuron, request.key)
        return pb.ApproveNeuronResponse(host=encode.waiting_host(open_token))

    async def RevokeNeuron(
        self, request: pb.RevokeNeuronRequest, context: Context
    ) -> pb.RevokeNeuronResponse:
        """Refuses a neuron's certificates everywhere, and takes it out of the fleet."""
        term = self._holder.leading_term()
        serials = await term.joining.revoke(request.neuron)
        member = term.control.fleet_state.fleet.members.get(request.neuron)
        if member is not None:
            term.control.membership.farewell(member.name, member.epoch)
        term.forget_neuron(request.neuron)
        term.history.note("neuron.revoked", neuron=request.neuron)
        term.wake()
        return pb.RevokeNeuronResponse(serials=serials)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """What has happened lately, and what happens from then on."""
        history = self._holder.leading_term().history
        async for event in history.watch(request.after, follow=request.follow):
            yield pb.WatchEventsResponse(event=event)

    async def _cordon(self, name: str, *, cordoned: bool) -> registry_service_pb2.Neuron:
        term = self._holder.leading_term()
        member_named(term, name)
        written = term.fact_writer.write if cordoned else term.fact_writer.delete
        await durably(written(FactKind.CORDON, name))
        term.control.cordon(name, cordoned=cordoned)
        term.wake()
        kind = "neuron.cordoned" if cordoned else "neuron.uncordoned"
        term.history.note(kind, neuron=name)
        log.info(kind, neuron_id=name)
        return encode.neuron_message(member_named(term, name))


def _model(term: LeaderTerm, name: str) -> str:
    profile = term.control.fleet_state.profile(name)
    if profile is None:
        raise FleetError(Reason.MODEL_UNKNOWN, f"The model {name!r} does not exist.", field="model")
    return profile.model


def _pending(term: LeaderTerm) -> list[pb.PendingPlacement]:
    found: list[pb.PendingPlacement] = []
    control = term.control
    wall, now = time.time(), control.fleet_state.clock()
    for demand in control.placements.demands:
        pending = pb.PendingPlacement(model=demand.profile.model, waiters=len(demand.tickets))
        if demand.step is not None:
            pending.step.CopyFrom(encode.step_message(demand.step))
        pending.since.CopyFrom(protobuf_time.timestamp(wall - now + demand.since))
        found.append(pending)
    for model, error in control.placements.problems().items():
        found.append(pb.PendingPlacement(model=model, problem=error.message))
    return found


def _facts(term: LeaderTerm, address: str) -> pb.RegistryFacts:
    loads, evictions = term.totals
    facts = pb.RegistryFacts(
        incarnation_id=term.incarnation_id,
        version=__version__,
        role="leader",
        leader_address=address,
        evictions_total=evictions,
        loads_total=loads,
        leader_epoch=term.leader_lease.epoch,
    )
    facts.started_at.CopyFrom(protobuf_time.timestamp(term.started_at))
    return facts
