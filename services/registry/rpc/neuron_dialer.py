"""Neurons that the registry dials, for networks where only that direction is open."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

from cortex.v1 import neuron_service_pb2, neuron_service_pb2_grpc
from services.backplane.address import Address
from services.backplane.backoff import delays
from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming
from services.backplane.rpc.channels import open_channel
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.members import NameTakenError
from services.registry.rpc import decode
from services.registry.settings import NeuronEntry
from services.registry.store.leader_lease import LeaderLease

# A start of the registry waits 5 seconds for the neurons that the settings name.
_LONGEST_PAUSE_SECONDS: Final = 2.0

log = structlog.get_logger()


class Host(Protocol):
    """What dialling needs of the term of the registry that leads."""

    @property
    def control(self) -> ControlPlane:
        """Takes in what the neuron reports."""
        ...

    @property
    def leader_lease(self) -> LeaderLease:
        """The right to lead, as it was renewed last."""
        ...

    @property
    def credentials(self) -> FleetCredentials | None:
        """What it dials with; None: plain text."""
        ...

    @property
    def faults(self) -> Faults:
        """What nobody foresaw."""
        ...

    def wake(self) -> None:
        """Something was said to `control`."""

    def remember_neuron(self, name: str, address: str) -> None:
        """Notes for the next start that the neuron is a member."""


async def keep_dialling(entry: NeuronEntry, host: Host) -> None:
    """Watches one neuron for ever; after each failed attempt the pause is longer.

    Args:
        entry: the neuron.
        host: the term that takes its reports.
    """
    address = str(Address.parse(entry.endpoint))
    pauses = delays(cap=_LONGEST_PAUSE_SECONDS)
    while True:
        try:
            if await _watch(entry.name, address, host):
                pauses = delays(cap=_LONGEST_PAUSE_SECONDS)
        except (FleetError, NameTakenError) as error:
            log.info("neuron.unreachable", neuron_id=entry.name, address=address, detail=str(error))
        except Exception as error:  # noqa: BLE001 - it is noted, and the next attempt begins anew
            host.faults.note("dialling", error, neuron_id=entry.name)
        await asyncio.sleep(next(pauses))


async def _watch(name: str, address: str, host: Host) -> bool:
    """One stream of states. Returns True if any came."""
    control = host.control
    epoch: int | None = None
    request = neuron_service_pb2.WatchStatusRequest(leader_epoch=host.leader_lease.epoch)
    try:
        async with open_channel(
            address, host.credentials, role=Role.NEURON, neuron=name
        ) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.WatchStatus(request)) as responses:
                async for response in responses:
                    status = response.status
                    status.identity.name, status.identity.address = name, address
                    epoch = _take(status, epoch, host)
    finally:
        if epoch is not None:
            control.membership.stream_broke(name, epoch)
            host.wake()
    return epoch is not None


def _take(status: neuron_service_pb2.NeuronStatus, epoch: int | None, host: Host) -> int | None:
    """Takes one state in, unless the neuron has attached by itself and speaks there."""
    control = host.control
    identity = decode.identity(status.identity)
    member = control.fleet_state.fleet.members.get(identity.name)
    current = None if member is None or member.is_lost else member
    if current is not None and current.epoch != epoch:
        same = current.identity.incarnation_id == identity.incarnation_id
        if same or epoch is None:
            return epoch
    fresh = member is None or member.identity.incarnation_id != identity.incarnation_id
    if epoch is None or fresh or current is None:
        epoch = control.membership.attach(identity)
        host.remember_neuron(identity.name, identity.address)
        log.info("neuron.dialled", neuron_id=identity.name, address=identity.address)
    control.membership.report(identity.name, epoch, decode.report(status.report), status)
    host.wake()
    return epoch
