"""Neurons that the registry dials, for networks where only that direction is open."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

from cortex.v1 import neuron_service_pb2, neuron_service_pb2_grpc
from services.backplane.address import Address
from services.backplane.backoff import delays
from services.backplane.errors import FleetError
from services.backplane.first_ended import first_ended
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming
from services.backplane.rpc.channels import open_channel
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.control.control_plane import ControlPlane
from services.registry.fleet.members import NameTakenError
from services.registry.joining.joining import Joining
from services.registry.joining.revocations import Revocations
from services.registry.rpc import decode
from services.registry.rpc.shown_certificate import shown_serial
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
    def revocations(self) -> Revocations:
        """The certificates that are refused."""
        ...

    @property
    def joining(self) -> Joining:
        """Keeps with which certificate each neuron is in the fleet."""
        ...

    @property
    def device_use(self) -> DeviceUseIntake:
        """Collects the device time that neurons report."""
        ...

    @property
    def faults(self) -> Faults:
        """Records exceptions that no code handles, and what ends because of them."""
        ...

    def wake(self) -> None:
        """Wakes the control loop: there is news for it."""

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
    serial = await shown_serial(address, host.credentials, neuron=name)
    host.revocations.require(serial)
    host.joining.note(name, serial)
    stream = _Stream(name, address, host)
    try:
        ended = await first_ended(stream.run(serial), host.revocations.until_revoked(serial))
        if ended is not None:
            ended.result()
    finally:
        stream.close()
    return stream.epoch is not None


class _Stream:
    """One stream of states of one neuron.

    Attributes:
        epoch: under which they count; None before the first.
    """

    def __init__(self, name: str, address: str, host: Host) -> None:
        self._name, self._address, self._host = name, address, host
        self._control = host.control
        self.epoch: int | None = None

    async def run(self, serial: str) -> None:
        """Takes states in until the stream ends, or its certificate is revoked."""
        host, name, address = self._host, self._name, self._address
        request = neuron_service_pb2.WatchStatusRequest(leader_epoch=host.leader_lease.epoch)
        async with open_channel(
            address, host.credentials, role=Role.NEURON, neuron=name
        ) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.WatchStatus(request)) as responses:
                async for response in responses:
                    host.revocations.require(serial)  # one that was taken out must not come back
                    status = response.status
                    status.identity.name, status.identity.address = name, address
                    self.epoch = _take(status, self.epoch, host)

    def close(self) -> None:
        """The stream is over: what it said is not believed any more."""
        if self.epoch is not None:
            self._control.membership.stream_broke(self._name, self.epoch)
            self._host.wake()


def _take(status: neuron_service_pb2.NeuronStatus, epoch: int | None, host: Host) -> int | None:
    """Takes one state in, unless the neuron has attached by itself and speaks there."""
    control = host.control
    identity = decode.identity(status.identity)
    host.device_use.take(status)
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
