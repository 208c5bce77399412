"""Attacker by port: who reaches a server with the fleet's certificates, and what he may call."""

import asyncio
import shutil
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from cortex.v1 import key_service_pb2 as keys
from cortex.v1 import key_service_pb2_grpc as keys_grpc
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import ChannelPool, open_channel
from services.backplane.security.authority import issue, revoke
from services.backplane.security.roles import Role
from services.backplane.settings import SettingsError
from services.gateway.transports.connect import open_call
from services.gateway.transports.grpc_call import CallSink
from tests.doubles.guarded_server import Pki, serving


async def get_status(address, credentials, *, role=Role.NEURON):
    async with open_channel(address, credentials, role=role) as channel:
        stub = neuron_grpc.NeuronServiceStub(channel)
        return await unary(stub.GetStatus(neuron.GetStatusRequest(), timeout=60))


async def get_fleet(address, credentials):
    async with open_channel(address, credentials) as channel:
        stub = op_grpc.OperatorServiceStub(channel)
        return await unary(stub.GetFleet(op.GetFleetRequest(), timeout=60))


async def load(address, credentials):
    async with open_channel(address, credentials, role=Role.NEURON) as channel:
        stub = neuron_grpc.NeuronServiceStub(channel)
        async with streaming(stub.Load(neuron.LoadRequest(), timeout=60)) as answers:
            return [answer async for answer in answers]


async def test_each_role_may_do_what_it_is_for(pki, served):
    await get_status(served, pki.credentials(Role.GATEWAY))
    assert await load(served, pki.credentials(Role.REGISTRY))
    assert (await get_fleet(served, pki.credentials(Role.OPERATOR))).revision == 7


async def test_a_stranger_gets_no_connection(pki, served, tmp_path):
    other = Pki(tmp_path / "other")
    of_another_authority = other.credentials(Role.OPERATOR, ca=pki.folder / "ca.pem")

    for credentials in (None, of_another_authority):
        with pytest.raises(FleetError) as caught:
            await get_fleet(served, credentials)
        assert caught.value.reason in {Reason.NEURON_LOST, Reason.DEADLINE}


async def test_a_certificate_that_has_ended_gets_no_connection(pki, served, monkeypatch):
    monkeypatch.setattr("services.backplane.security.credentials._has_ended", lambda _: False)
    with pytest.raises(FleetError) as caught:
        await get_fleet(served, pki.credentials(Role.OPERATOR, days=0))
    assert caught.value.reason in {Reason.NEURON_LOST, Reason.DEADLINE}


def test_a_process_does_not_start_with_a_certificate_that_has_ended(pki):
    with pytest.raises(SettingsError, match=r"operator\.pem ended at"):
        pki.credentials(Role.OPERATOR, days=0)


def test_a_process_does_not_start_as_what_its_certificate_does_not_say(pki):
    credentials = pki.credentials(Role.NEURON, neuron="beast")

    credentials.require_own(Role.NEURON, neuron="beast")
    with pytest.raises(SettingsError, match=r"not for other\.neuron.*--neuron other"):
        credentials.require_own(Role.NEURON, neuron="other")
    with pytest.raises(SettingsError, match="not for gateway"):
        credentials.require_own(Role.GATEWAY)


@pytest.mark.parametrize(
    "line", ["{}", "0x{}\r", "serial={}", "\N{BYTE ORDER MARK}{}", "ä\n{} # why"], ids=range(5)
)
def test_serial_numbers_as_other_tools_write_them(pki, line):
    (pki.folder / "revoked").write_text(line.format("0ABC") + "\n", encoding="utf-8")

    assert pki.credentials(Role.GATEWAY, name="x").revoked == {"abc"}


@pytest.mark.parametrize("role", [Role.NEURON, Role.GATEWAY, Role.REGISTRY])
async def test_only_an_operator_operates(pki, served, role):
    credentials = pki.credentials(role, neuron="x" if role is Role.NEURON else "")
    async with open_channel(served, credentials) as channel:
        stub = op_grpc.OperatorServiceStub(channel)
        with pytest.raises(FleetError, match="PinModel is for operator;") as caught:
            await unary(stub.PinModel(op.PinModelRequest(model="a"), timeout=60))
    assert caught.value.reason is Reason.FORBIDDEN


async def test_a_gateway_may_look_at_the_fleet_and_others_may_not(pki, served):
    assert (await get_fleet(served, pki.credentials(Role.GATEWAY))).revision == 7
    for role in (Role.NEURON, Role.REGISTRY):
        credentials = pki.credentials(role, neuron="x" if role is Role.NEURON else "")
        with pytest.raises(FleetError, match="GetFleet is for gateway or operator") as caught:
            await get_fleet(served, credentials)
        assert caught.value.reason is Reason.FORBIDDEN


async def test_digests_of_keys_are_for_gateways_and_keys_are_made_by_operators(pki, served):
    made, watched = (
        lambda stub: stub.CreateKey(keys.CreateKeyRequest(name="a"), timeout=60),
        lambda stub: stub.ReportKeyUse(keys.ReportKeyUseRequest(), timeout=60),
    )
    for role, call, may in (
        (Role.OPERATOR, made, True),
        (Role.GATEWAY, watched, True),
        (Role.GATEWAY, made, False),
        (Role.OPERATOR, watched, False),
        (Role.REGISTRY, made, False),
    ):
        async with open_channel(served, pki.credentials(role), role=Role.REGISTRY) as channel:
            answer = unary(call(keys_grpc.KeyServiceStub(channel)))
            if may:
                await answer
            else:
                with pytest.raises(FleetError) as caught:
                    await answer
                assert caught.value.reason is Reason.FORBIDDEN


async def test_a_gateway_loads_nothing(pki, served):
    with pytest.raises(FleetError, match="Load is for operator or registry") as caught:
        await load(served, pki.credentials(Role.GATEWAY))
    assert caught.value.reason is Reason.FORBIDDEN


async def test_health_is_for_every_certificate(pki, served):
    credentials = pki.credentials(Role.NEURON, neuron="x")
    async with open_channel(served, credentials, role=Role.NEURON) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"", timeout=60)


async def test_a_revoked_certificate_is_refused_and_its_streams_end(pki, served):
    credentials = pki.credentials(Role.GATEWAY)
    async with open_channel(served, credentials, role=Role.NEURON) as channel:
        stub = neuron_grpc.NeuronServiceStub(channel)
        call = stub.WatchStatus(neuron.WatchStatusRequest(), timeout=30)

        async def watch():
            async with streaming(call) as answers:
                async for _ in answers:
                    revoke(pki.folder, str(pki.folder / "gateway.pem"))

        with pytest.raises(FleetError, match="revoked") as caught:
            await watch()
        assert caught.value.reason is Reason.FORBIDDEN
    with pytest.raises(FleetError, match="revoked"):
        await get_status(served, credentials)


async def test_another_neuron_at_a_neurons_address_is_told_nothing(pki, served):
    credentials = pki.credentials(Role.GATEWAY)
    async with open_channel(served, credentials, role=Role.NEURON, neuron="other") as channel:
        stub = neuron_grpc.NeuronServiceStub(channel)
        with pytest.raises(FleetError) as caught:
            await unary(stub.GetStatus(neuron.GetStatusRequest(), timeout=60))
    assert caught.value.reason in {Reason.NEURON_LOST, Reason.DEADLINE}
    with pytest.raises(FleetError, match="cannot be reached"):
        await session(served, Ear(), credentials, neuron="other")


async def test_a_session_ends_when_its_neurons_certificate_is_revoked(pki, served):
    ear = Ear()
    await session(served, ear, pki.credentials(Role.GATEWAY), neuron="beast")
    revoke(pki.folder, pki.serial("neuron+registrybeast"))

    async with asyncio.timeout(60):
        error = await ear.end
    assert error.reason is Reason.NEURON_LOST


async def test_a_server_without_the_role_is_told_nothing(pki):
    async with serving(pki.credentials(Role.GATEWAY)) as address:
        with pytest.raises(FleetError) as caught:
            await get_status(address, pki.credentials(Role.GATEWAY, name="client"))
    assert caught.value.reason in {Reason.NEURON_LOST, Reason.DEADLINE}


async def test_a_renewed_certificate_is_taken_in_without_a_restart(pki, tmp_path):
    """Both ends end with the authority that made the first ones; new connections use new ones."""
    shutil.copytree(pki.folder, tmp_path / "next")
    (tmp_path / "next" / "ca.key").unlink()
    fresh = Pki(tmp_path / "next")
    server = pki.credentials(Role.NEURON, neuron="beast", name="server")
    client = pki.credentials(Role.GATEWAY, name="client")
    pool = ChannelPool(client)
    async with serving(server) as address:
        await unary(_status(pool, address))
        for name in ("server.pem", "server.key", "client.pem", "client.key", "ca.pem"):
            (pki.folder / name).unlink()
        issue(fresh.folder, [Role.NEURON], neuron="beast", out=pki.folder / "server", days=2)
        issue(fresh.folder, [Role.GATEWAY], out=pki.folder / "client", days=2)
        shutil.copy(fresh.folder / "ca.pem", pki.folder / "ca.pem")
        first = client.generation
        while client.generation == first:
            await asyncio.sleep(0.05)
        before = server.generation
        while server.generation == before == first:
            await asyncio.sleep(0.05)
        await unary(_status(pool, address))
    await pool.close()


async def test_half_a_renewal_disturbs_nobody(pki, monkeypatch):
    monkeypatch.setattr("services.backplane.security.credentials._LOOK_SECONDS", 0.0)
    server = pki.credentials(Role.NEURON, neuron="beast", name="server")
    client = pki.credentials(Role.GATEWAY, name="client")
    async with serving(server) as address:
        for name in ("server", "client"):
            issue(pki.folder, [Role.OPERATOR], out=pki.folder / "next", days=2)
            (pki.folder / "next.key").replace(pki.folder / f"{name}.key")
        await get_status(address, client)
        (await session(address, Ear(), client, neuron="beast")).cancel()


async def test_an_address_that_has_left_keeps_no_channel_of_an_older_certificate(pki, monkeypatch):
    monkeypatch.setattr("services.backplane.security.credentials._LOOK_SECONDS", 0.0)
    pool = ChannelPool(pki.credentials(Role.GATEWAY, name="client"))
    async with serving(pki.credentials(Role.NEURON, neuron="beast", name="server")) as address:
        before = pool.get(address)
        stub = neuron_grpc.NeuronServiceStub(before)
        call = stub.WatchStatus(neuron.WatchStatusRequest(), timeout=30)
        await call.read()
        issue(pki.folder, [Role.GATEWAY], out=pki.folder / "client", days=2)
        assert pool.get(address) is not before
        await call.read()

        await pool.discard(address)
        async with asyncio.timeout(60):
            assert await call.code() is grpc.StatusCode.CANCELLED
    await pool.close()


def _status(pool, address):
    stub = neuron_grpc.NeuronServiceStub(pool.get(address))
    return stub.GetStatus(neuron.GetStatusRequest(), timeout=60)


class Ear(CallSink):
    """Keeps what came."""

    def __init__(self):
        self.messages, self.end = [], asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()

    def message(self, data):
        self.messages.append(data)
        self.heard.set()

    def caught_up(self):
        pass

    def writable(self):
        pass

    def ended(self, error):
        self.end.set_result(error)


async def session(address, ear, credentials, neuron=""):
    return await open_call(
        address,
        "/cortex.v1.NeuronService/Session",
        ear,
        Faults(CollectorRegistry(), "test"),
        credentials=credentials,
        neuron=neuron,
    )


async def test_the_gateways_own_http2_speaks_tls(pki, served):
    ear = Ear()
    call = await session(served, ear, pki.credentials(Role.GATEWAY), neuron="beast")
    call.send(b"")
    async with asyncio.timeout(60):
        await ear.heard.wait()
    call.cancel()


async def test_the_gateways_own_http2_trusts_no_other_role(pki):
    async with serving(pki.credentials(Role.OPERATOR)) as address:
        with pytest.raises(FleetError, match="cannot be reached") as caught:
            await session(address, Ear(), pki.credentials(Role.GATEWAY))
    assert caught.value.reason is Reason.NEURON_LOST
