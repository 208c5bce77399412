"""Attacker by port for hosts with a token where an operator has to approve them."""

import asyncio

import pytest
from structlog.testing import capture_logs

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import operator_service_pb2 as op
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import unary
from services.backplane.security.certificates import peer_in
from services.backplane.security.key_files import new_key, request_for
from services.cli.joining import join
from tests.integration.backplane.joining_fleet import Fleet, door


@pytest.fixture
async def strict(tmp_path):
    """A fleet whose hosts have to be approved."""
    async with Fleet(tmp_path, asks_approval=True).serving() as fleet:
        yield fleet


async def asked(fleet, token, request, neuron=""):
    """What the port for joining answers to one call."""
    async with door(fleet) as stub:
        asking = pb.JoinRequest(secret=token.secret, certificate_request=request, neuron=neuron)
        return await unary(stub.Join(asking, timeout=60))


async def waiting(fleet):
    answer = await fleet.operate("ListWaitingHosts", op.ListWaitingHostsRequest())
    return [(host.neuron, host.key, host.approved) for host in answer.hosts]


async def test_a_host_that_has_to_be_approved_gets_nothing_before_and_its_certificate_after(strict):
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    token = await strict.token("beast")
    with capture_logs() as lines:
        joining = asyncio.create_task(
            join(strict.door, token, on_waiting=lambda *of: told.put_nowait(of))
        )
        name, key = await told.get()

        assert (name, await waiting(strict)) == ("beast", [("beast", key, False)])
        assert not joining.done()
        answer = await strict.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="beast"))
        joined = await asyncio.wait_for(joining, 60)

    assert (answer.host.key, answer.host.approved) == (key, True)
    assert peer_in(joined.certificate).neurons == {"beast"}
    assert await waiting(strict) == []
    audited = [each["operation"] for each in lines if each["event"] == "audit.recorded"]
    assert audited == ["neuron.approve", "neuron.join"]


async def test_a_token_of_a_host_that_waits_is_good_for_its_key_alone(strict):
    token, own, other = await strict.token("beast"), request_for(new_key()), request_for(new_key())
    assert (await asked(strict, token, own)).certificate == b""

    async def is_refused():
        with pytest.raises(FleetError, match="Another host") as caught:
            await asked(strict, token, other)
        return caught.value.reason is Reason.FORBIDDEN

    assert await is_refused()
    await strict.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="beast"))
    assert await is_refused()
    assert (await asked(strict, token, own)).certificate

    with pytest.raises(FleetError, match="was used"):
        await asked(strict, token, own)


async def test_several_hosts_that_wait_for_one_name_are_told_apart_by_their_keys(strict):
    for _ in range(2):
        await asked(strict, await strict.token("beast"), request_for(new_key()))
    first, second = [key for _, key, _ in await waiting(strict)]

    with pytest.raises(FleetError, match="2 hosts wait") as caught:
        await strict.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="beast"))
    assert (caught.value.reason, caught.value.field) == (Reason.BAD_REQUEST, "key")
    await strict.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="beast", key=second[:16]))

    assert await waiting(strict) == [("beast", first, False), ("beast", second, True)]
    with pytest.raises(FleetError, match="No host waits") as caught:
        await strict.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="other"))
    assert caught.value.reason is Reason.NOT_FOUND


async def test_a_host_that_waits_is_sent_away_by_revoking_its_name(strict):
    token, own = await strict.token("beast"), request_for(new_key())
    await asked(strict, token, own)

    await strict.operate("RevokeNeuron", op.RevokeNeuronRequest(neuron="beast"))

    with pytest.raises(FleetError, match="not known here"):
        await asked(strict, token, own)
    assert await waiting(strict) == []


async def test_a_host_goes_on_waiting_when_the_registry_was_restarted(tmp_path):
    fleet = Fleet(tmp_path, asks_approval=True)
    own = request_for(new_key())
    async with fleet.serving():
        token = await fleet.token("beast")
        assert (await asked(fleet, token, own)).certificate == b""
        await fleet.operate("ApproveNeuron", op.ApproveNeuronRequest(neuron="beast"))
    async with fleet.serving():
        assert peer_in((await asked(fleet, token, own)).certificate).neurons == {"beast"}
