"""Attacker by port for those without a certificate: who gets one, and who does not."""

import asyncio
import contextlib
import pathlib

import grpc
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.authority import issue, revoke
from services.backplane.security.certificates import dns_names, peer_in
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.join_token import JoinToken
from services.backplane.security.key_files import new_key, request_for
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.cli.joining import join
from services.neuron.membership.renewal import keep_renewed
from tests.integration.backplane.joining_fleet import Fleet, door


@pytest.fixture
async def fleet(tmp_path):
    async with Fleet(tmp_path).serving() as fleet:
        yield fleet


async def test_a_token_gets_one_host_the_certificate_of_one_neuron(fleet):
    joined = await join(fleet.door, await fleet.token("beast"), neuron="beast")

    peer = peer_in(joined.certificate)
    assert (peer.roles, peer.neurons) == (frozenset({Role.NEURON}), frozenset({"beast"}))
    assert joined.registry_address.endswith(fleet.address.rpartition(":")[2])
    credentials = fleet.of(joined)
    credentials.require_own(Role.NEURON, neuron="beast")
    with pytest.raises(FleetError, match="GetFleet is for gateway or operator"):
        async with open_channel(fleet.address, credentials) as channel:
            await unary(op_grpc.OperatorServiceStub(channel).GetFleet(op.GetFleetRequest()))


@pytest.mark.parametrize("case", ["used", "ended", "made up", "of another name", "none"])
async def test_who_has_no_good_token_gets_no_certificate(fleet, case):
    token, neuron = await fleet.token("beast", seconds=0.2 if case == "ended" else 60.0), ""
    if case == "used":
        await join(fleet.door, token)
    elif case == "ended":
        await asyncio.sleep(0.25)
    elif case == "made up":
        token = JoinToken(token.fingerprint, "x" * 43)
    elif case == "of another name":
        neuron = "other"
    else:
        token = JoinToken(token.fingerprint, "")

    with pytest.raises(FleetError) as caught:
        await join(fleet.door, token, neuron=neuron)
    assert caught.value.reason is Reason.FORBIDDEN


async def test_a_token_is_good_once_for_many_who_use_it_together(fleet):
    token = await fleet.token("beast")

    ends = await asyncio.gather(
        *(join(fleet.door, token) for _ in range(8)), return_exceptions=True
    )

    assert sum(not isinstance(end, BaseException) for end in ends) == 1


async def test_a_token_survives_a_restart_and_so_does_its_use(tmp_path):
    fleet = Fleet(tmp_path)
    async with fleet.serving():
        used, unused = await fleet.token("beast"), await fleet.token("other")
        await join(fleet.door, used)
    async with fleet.serving():
        assert (await join(fleet.door, unused)).neuron == "other"
        with pytest.raises(FleetError, match="was used"):
            await join(fleet.door, used)
    kept = (tmp_path / "registry.sqlite").read_bytes()
    assert used.secret.encode() not in kept


async def test_a_refused_request_does_not_use_the_token_up(fleet):
    token = await fleet.token("beast")
    async with door(fleet) as stub:
        with pytest.raises(FleetError, match="PKCS #10") as caught:
            await unary(stub.Join(pb.JoinRequest(secret=token.secret, certificate_request=b"x")))
    assert (caught.value.reason, caught.value.field) == (Reason.BAD_REQUEST, "certificate_request")
    assert (await join(fleet.door, token)).neuron == "beast"


async def test_another_fleet_is_told_nothing(fleet, tmp_path):
    other = Fleet(tmp_path / "other")
    token = await fleet.token("beast")
    async with other.serving():
        with pytest.raises(FleetError, match="another authority") as caught:
            await join(other.door, token)
    assert caught.value.reason is Reason.FORBIDDEN
    assert (await join(fleet.door, token)).neuron == "beast"


async def test_a_server_that_shows_our_authority_and_is_not_of_it_is_told_nothing(fleet, tmp_path):
    """Whoever stands between hands the authority on; it has no certificate that is signed by it."""
    impostor = Fleet(tmp_path / "impostor")
    token = await fleet.token("beast")
    asked = []
    original = (fleet.folder / "pki" / "ca.pem").read_bytes()
    async with impostor.serving():
        (impostor.folder / "pki" / "ca.pem").write_bytes(original)
        with pytest.raises(FleetError) as caught:
            await join(impostor.door, token)
        asked.append(caught.value.reason)
    assert asked == [Reason.REGISTRY_UNAVAILABLE]
    assert (await join(fleet.door, token)).neuron == "beast"


async def test_strangers_may_call_nothing_but_joining(fleet):
    async with door(fleet, raw=True) as channel:
        for method in (
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/cortex.v1.OperatorService/GetFleet",
        ):
            call = channel.stream_stream(method)(iter([b""]), timeout=60)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() in {
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNIMPLEMENTED,
            }


async def test_a_flood_neither_gets_in_nor_keeps_others_out(fleet):
    token = await fleet.token("beast")
    fake = pb.JoinRequest(secret="x" * 43, certificate_request=b"x" * 10_000)
    large = pb.JoinRequest(secret="x" * 43, certificate_request=b"x" * 1_000_000)

    async def one(request):
        async with door(fleet) as stub:
            with pytest.raises(FleetError) as caught:
                await unary(stub.Join(request, timeout=30))
            return caught.value.reason

    with capture_logs() as told:
        flood = [asyncio.create_task(one(each)) for each in (fake, large) * 100]
        joined = await join(fleet.door, token)
        reasons = set(await asyncio.gather(*flood))

    assert joined.neuron == "beast"
    assert reasons <= {Reason.FORBIDDEN, Reason.QUEUE_FULL}
    assert Reason.FORBIDDEN in reasons
    assert 0 < len([each for each in told if each["event"] != "join.joined"]) < 50
    await fleet.operate("GetFleet", op.GetFleetRequest())


async def test_only_an_operator_makes_tokens_and_only_for_names_that_can_be(fleet):
    for name in ("", "a b", "*", "Beast"):
        with pytest.raises(FleetError, match="cannot stand in a certificate") as caught:
            await fleet.token(name)
        assert (caught.value.reason, caught.value.field) == (Reason.BAD_REQUEST, "neuron")
    with pytest.raises(FleetError, match="at most 24 hours"):
        await fleet.token("beast", seconds=1e6)


async def renew(fleet, credentials, request):
    async with open_channel(fleet.address, credentials) as channel:
        stub = registry_grpc.RegistryServiceStub(channel)
        asked = registry.RenewCertificateRequest(certificate_request=request)
        return (await unary(stub.RenewCertificate(asked, timeout=60))).certificate


async def test_a_neuron_renews_its_own_names_alone(fleet):
    credentials = fleet.of(await join(fleet.door, await fleet.token("beast")))
    key = new_key()

    fresh = await renew(fleet, credentials, request_for(key))

    assert peer_in(fresh).neurons == {"beast"}
    with pytest.raises(FleetError, match="RenewCertificate is for neuron"):
        await renew(fleet, fleet.credentials, request_for(key))
    issue(
        fleet.folder / "pki",
        [Role.NEURON, Role.GATEWAY],
        neuron="x",
        out=fleet.folder / "two",
        days=2,
    )
    two = FleetCredentials(
        FleetSettings(
            ca=str(fleet.folder / "pki" / "ca.pem"),
            certificate=str(fleet.folder / "two.pem"),
            key=str(fleet.folder / "two.key"),
        )
    )
    with pytest.raises(FleetError, match="one neuron and nothing else"):
        await renew(fleet, two, request_for(key))
    for _ in range(20):
        with contextlib.suppress(FleetError):
            await renew(fleet, credentials, request_for(key))
    with pytest.raises(FleetError, match="16 certificates") as caught:
        await renew(fleet, credentials, request_for(key))
    assert caught.value.reason is Reason.RATE_LIMITED


async def test_a_certificate_is_renewed_in_time_for_the_same_key(fleet, monkeypatch):
    monkeypatch.setattr("services.backplane.security.credentials._LOOK_SECONDS", 0.0)
    joined = await join(fleet.door, await fleet.token("beast"))
    credentials = fleet.of(joined)
    before = credentials.own
    faults = Faults(CollectorRegistry(), "test")

    with capture_logs() as told:
        renewing = asyncio.create_task(
            keep_renewed(credentials, ["127.0.0.1:1", fleet.address], faults)
        )
        async with asyncio.timeout(60):
            while credentials.own.serial_number == before.serial_number:
                await asyncio.sleep(0.01)
        renewing.cancel()

    assert credentials.own.public_key() == before.public_key()
    assert dns_names(credentials.own) == dns_names(before)
    assert mode(credentials.settings.certificate) == mode(credentials.settings.key)
    assert "certificate.renewed" in [each["event"] for each in told]
    await fleet.operate("RevokeNeuron", op.RevokeNeuronRequest(neuron="beast"))
    with pytest.raises(FleetError, match="revoked"):
        await renew(fleet, credentials, request_for(new_key()))


async def test_a_registry_that_gives_none_leaves_the_certificate_as_it_is(fleet, monkeypatch):
    monkeypatch.setattr("services.backplane.security.credentials._LOOK_SECONDS", 0.0)
    credentials = fleet.of(await join(fleet.door, await fleet.token("beast")))
    before = credentials.own
    revoke(fleet.folder / "pki", f"{credentials.own.serial_number:x}")
    with capture_logs() as told:
        renewing = asyncio.create_task(
            keep_renewed(credentials, [fleet.address], Faults(CollectorRegistry(), "test"))
        )
        async with asyncio.timeout(60):
            while "certificate.not_renewed" not in {each["event"] for each in told}:
                await asyncio.sleep(0.01)
        renewing.cancel()
    assert credentials.own == before


def mode(path):
    return pathlib.Path(path).stat().st_mode
