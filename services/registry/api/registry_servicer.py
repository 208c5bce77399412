"""RegistryService: neurons attach, gateways watch and ask for models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc
import structlog

from cortex.v1 import neuron_service_pb2, registry_service_pb2, registry_service_pb2_grpc
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.security.access import OPEN_TO_ALL, Access
from services.backplane.security.roles import Peer
from services.backplane.timeouts import timeout
from services.registry.api.step_stream import StepStream
from services.registry.fleet.members import NameTakenError
from services.registry.fleet.records import NeuronIdentity
from services.registry.holder import LeaderHolder
from services.registry.rpc import decode, encode
from services.registry.term import LeaderTerm

# A stream that does not say who it is within this time is not a neuron.
_HELLO_SECONDS: Final = 10.0

Requests = AsyncIterator[registry_service_pb2.AttachRequest]
Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Decodes requests, calls the control plane of the term under way, encodes answers.

    Args:
        holder: says whether this registry leads.
        access: says who calls: a neuron speaks only under the name of its certificate. Where
            nobody is asked who he is, every name is believed.
    """

    def __init__(self, holder: LeaderHolder[LeaderTerm], access: Access = OPEN_TO_ALL) -> None:
        self._holder = holder
        self._access = access

    async def Attach(
        self, request_iterator: Requests, context: Context
    ) -> AsyncIterator[registry_service_pb2.AttachResponse]:
        """A neuron's membership while it lasts; a standby only names the leader."""
        term = self._holder.term
        if term is None:
            yield registry_service_pb2.AttachResponse(leader_address=self._holder.leader_address)
            return
        requests = aiter(request_iterator)
        peer = self._access.peer(context)
        hello = await _hello(requests)
        if peer is not None:
            peer.require_neuron(hello.name)
            term.joining.note(hello.name, peer.serial)
        identity = decode.identity(hello)
        epoch = _admit(term, identity)
        listening = asyncio.ensure_future(self._listen(term, hello, epoch, requests, peer=peer))
        try:
            async with contextlib.aclosing(_news(term, listening)) as news:
                async for answer in news:
                    yield answer
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            term.control.membership.stream_broke(identity.name, epoch)
            term.wake()
            term.history.note("neuron.detached", neuron=identity.name)
            log.info("neuron.detached", neuron_id=identity.name, epoch=epoch)

    async def WatchFleet(
        self, request: registry_service_pb2.WatchFleetRequest, context: Context
    ) -> AsyncIterator[registry_service_pb2.WatchFleetResponse]:
        """The fleet's changes, until the caller leaves or this registry no longer leads."""
        term = self._holder.leading_term()
        after = request.after_revision if request.HasField("after_revision") else None
        changes = term.watchers.watch(after, request.registry_incarnation_id)
        async for response in _while_leading(term, changes):
            yield response

    async def EnsureModel(
        self, request: registry_service_pb2.EnsureModelRequest, context: Context
    ) -> AsyncIterator[registry_service_pb2.EnsureModelResponse]:
        """The steps of one placement; leaving cancels nothing for the others."""
        term = self._holder.leading_term()
        stream = StepStream()
        keep = protobuf_time.seconds(request.keep_alive) if request.HasField("keep_alive") else None
        ticket = term.control.ensure(
            request.model,
            stream,
            excluded=frozenset(request.excluded_instance_ids),
            principal=request.principal,
            detach=request.detach,
            keep_alive=keep,
        )
        term.wake()
        try:
            async for step in stream.steps():
                yield encode.step_message(step)
        finally:
            term.control.leave(ticket)
            term.wake()

    async def RenewCertificate(
        self, request: registry_service_pb2.RenewCertificateRequest, context: Context
    ) -> registry_service_pb2.RenewCertificateResponse:
        """A new certificate for a neuron that has one."""
        term = self._holder.leading_term()
        peer = self._access.peer(context)
        if peer is None:
            raise FleetError(Reason.NOT_SUPPORTED, "Nobody has a certificate here.")
        certificate = await term.joining.renew(peer, request.certificate_request)
        return registry_service_pb2.RenewCertificateResponse(certificate=certificate)

    async def _listen(
        self,
        term: LeaderTerm,
        hello: neuron_service_pb2.NeuronIdentity,
        epoch: int,
        requests: Requests,
        *,
        peer: Peer | None,
    ) -> None:
        """Takes reports until farewell, the end of the stream, or a newer one of the same name."""
        control, name = term.control, hello.name
        async for request in requests:
            if request.HasField("farewell"):
                control.membership.farewell(name, epoch)
                term.forget_neuron(name)
                term.history.note("neuron.left", neuron=name)
                log.info("neuron.left", neuron_id=name)
                return
            if not request.HasField("report"):
                raise FleetError(Reason.BAD_REQUEST, "A neuron says hello once.", field="hello")
            status = neuron_service_pb2.NeuronStatus(identity=hello, report=request.report)
            term.device_use.take(status)
            # one that cannot be taken in renews no lease: a neuron that sends no other is lost
            with term.faults.contained("reports", neuron_id=name):
                control.membership.report(name, epoch, decode.report(request.report), status)
            term.wake()
            self._access.recheck(peer)
            member = control.fleet_state.fleet.members.get(name)
            if member is None or member.epoch != epoch:
                message = f"A newer stream speaks for {name}."
                raise FleetError(Reason.FORBIDDEN, message, retry_after_seconds=1.0)


async def _hello(requests: Requests) -> neuron_service_pb2.NeuronIdentity:
    try:
        async with timeout(_HELLO_SECONDS):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration) as error:
        raise FleetError(Reason.BAD_REQUEST, "A neuron says hello first.", field="hello") from error
    hello = first.hello
    if not first.HasField("hello"):
        raise FleetError(Reason.BAD_REQUEST, "A neuron says hello first.", field="hello")
    if not hello.name.isprintable():
        message = f"The name {hello.name!r} cannot be printed."
        raise FleetError(Reason.BAD_REQUEST, message, field="hello.name")
    for field in ("name", "incarnation_id", "address"):
        if not getattr(hello, field):
            message = f"A neuron without {field} cannot be a member."
            raise FleetError(Reason.BAD_REQUEST, message, field=f"hello.{field}")
    return hello


def _admit(term: LeaderTerm, identity: NeuronIdentity) -> int:
    try:
        epoch = term.control.membership.attach(identity)
    except NameTakenError as error:
        raise FleetError(Reason.FORBIDDEN, f"{error}.", field="hello.name") from error
    term.wake()
    term.remember_neuron(identity.name, identity.address)
    term.history.note("neuron.attached", neuron=identity.name, detail=identity.address)
    log.info(
        "neuron.attached",
        neuron_id=identity.name,
        address=identity.address,
        incarnation_id=identity.incarnation_id,
        epoch=epoch,
    )
    return epoch


async def _news(
    term: LeaderTerm, listening: asyncio.Future[None]
) -> AsyncGenerator[registry_service_pb2.AttachResponse]:
    """What a neuron is told while it is listened to, but not beyond the term."""
    answer = registry_service_pb2.AttachResponse(
        lease=protobuf_time.duration(term.lease_seconds), leader_epoch=term.leader_lease.epoch
    )
    ending = asyncio.ensure_future(term.ended.wait())
    changes = term.revocations.changes
    try:
        while not (listening.done() or ending.done()):
            version = changes.version
            if term.revocations.are_kept:
                answer.revoked.CopyFrom(encode.revoked_message(term.revocations.serials))
            yield answer
            await first_ended(changes.after(version), kept=(listening, ending))
    finally:
        ending.cancel()
    if listening.done():
        listening.result()


async def _while_leading(
    term: LeaderTerm, changes: AsyncIterator[registry_service_pb2.WatchFleetResponse]
) -> AsyncIterator[registry_service_pb2.WatchFleetResponse]:
    ending = asyncio.ensure_future(term.ended.wait())
    try:
        while True:
            step = asyncio.ensure_future(anext(changes))
            if await first_ended(step, kept=(ending,)) is not step:
                return
            yield step.result()
    finally:
        ending.cancel()
        closing: Any = changes
        await closing.aclose()
